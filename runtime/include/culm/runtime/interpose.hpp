// Interposition: blocking libc calls made by any loaded object park the fiber instead of the OS thread.
//
// install() patches the global offset table of every loaded object, and of each one loaded later (dlopen is hooked), so
// that calls to the functions in src/interpose/table.cpp reach our replacements. libc, the dynamic loader and the
// object that holds this code are left alone. Invariant: on a thread without a scheduler, while the scheduler itself is
// at work, or while the fiber holds a pthread mutex, a replacement behaves exactly like libc.
#pragma once

#include <cstddef>

#include "culm/result.hpp"

namespace culm::runtime {
class Fiber;
}

namespace culm::runtime::interpose {

struct Options {
    // Any address inside the interpreter (its executable or shared library). There, and only there, the semaphore waits
    // and pthread_self() are replaced too: pthread_self() then names the running fiber. Null: no interpreter.
    const void* interpreter_object = nullptr;
};

struct Statistics {
    std::size_t objects = 0;   // loaded objects patched
    std::size_t slots = 0;     // table entries patched
    unsigned long parks = 0;   // calls that parked a fiber instead of blocking its thread
    unsigned long direct = 0;  // calls that had to block the thread: a pthread mutex was held
};

// Patches. Idempotent; a second call looks for objects loaded since. EACCES and the like when a table cannot be
// written.
Result<void> install(const Options& options) noexcept;
// Puts every table entry back. The hooks stay valid: a call already inside one finishes normally.
void uninstall() noexcept;
bool installed() noexcept;
Statistics statistics() noexcept;

// The embedding language was told that a wait for a lock is cancelled (Calls::cancelled_in_lock) and has not raised
// that yet; and that it has now.
bool is_lock_cancelled(Fiber& running) noexcept;
void settle_lock_cancelled(Fiber& running) noexcept;
// pthread_self() has told the interpreter this fiber's identity at least once.
bool was_asked_identity(Fiber& running) noexcept;

// In Calls::cancelled_in_lock: the first pthread_self() that the running fiber asks afterwards, while
// is_lock_cancelled(), answers *answer. For an interpreter that takes a failed wait seriously on one thread only.
void answer_identity_once(const unsigned long* answer) noexcept;

}  // namespace culm::runtime::interpose
