// What AddressSanitizer, ThreadSanitizer and Valgrind must be told about a stack that is not the thread's own.
//
// Empty when the build has no sanitizer. The real calls live in src/instrument, one file per instrument, of which the
// build compiles one.
// Invariant: before_switch and after_switch of one thread come in pairs, with nothing instrumented between the former
// and the switch.
#pragma once

#include <cstddef>

#include "culm/config.hpp"

namespace culm::instrument {

inline constexpr bool kInstrumented = CULM_INSTRUMENTED != 0;

// What a new context runs first.
struct FirstCall {
    void (*entry)(void* argument) = nullptr;
    void* argument = nullptr;
};

#if CULM_INSTRUMENTED

struct ContextRecord {
    void* fake_stack = nullptr;    // AddressSanitizer: where the frames of detect_stack_use_after_return live
    const void* bottom = nullptr;  // AddressSanitizer: lowest address of the stack
    std::size_t size_bytes = 0;
    void* thread_sanitizer = nullptr;  // ThreadSanitizer: its fiber
    unsigned valgrind_id = 0;
    bool is_thread = false;  // adopted from the OS thread: not ours to destroy
    FirstCall first;         // AddressSanitizer: what to run once the arrival has been reported
};

// Returns what the first switch must call: `first` itself, or something that reports the arrival and then calls it.
FirstCall context_created(ContextRecord& record, std::byte* limit, std::byte* base, FirstCall first) noexcept;
void context_adopted(ContextRecord& record) noexcept;
void context_retired(ContextRecord& record, const void* sp) noexcept;
void before_switch(ContextRecord& from, ContextRecord& to, bool from_ends) noexcept;
void after_switch(ContextRecord& resumed) noexcept;

#else

struct ContextRecord {};

inline FirstCall context_created(ContextRecord&, std::byte*, std::byte*, FirstCall first) noexcept { return first; }
inline void context_adopted(ContextRecord&) noexcept {}
inline void context_retired(ContextRecord&, const void*) noexcept {}
inline void before_switch(ContextRecord&, ContextRecord&, bool) noexcept {}
inline void after_switch(ContextRecord&) noexcept {}

#endif

}  // namespace culm::instrument
