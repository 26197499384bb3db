// What AddressSanitizer, ThreadSanitizer and Valgrind must be told about a stack that is not the thread's own.
// Empty when the build has no sanitizer. The calls live in src/instrument.
#pragma once

#include "culm/config.hpp"

namespace culm::instrument {

#if CULM_INSTRUMENTED
struct ContextRecord {
    void* fake_stack = nullptr;        // AddressSanitizer: where the frames of detect_stack_use_after_return live
    const void* bottom = nullptr;      // AddressSanitizer: lowest address of the stack
    unsigned long size_bytes = 0;
    void* thread_sanitizer = nullptr;  // ThreadSanitizer: its fiber
    unsigned valgrind_id = 0;
};
#else
struct ContextRecord {};
#endif

}  // namespace culm::instrument
