// Code on a stack that was suspended while a trace, profile or monitoring function was set or removed (3.13 and later).
//
// When the set of monitored events changes, the interpreter rewrites the code of all frames that run on some OS thread;
// other code is rewritten when it is called next. The frames of a suspended fiber are neither. They would go on without
// the new events, and 3.15 ends the process when an exception passes through code that was never instrumented. So a
// fiber notes the version of the instrumentation when it is left, and one that continues under another version has the
// code of its frames rewritten first (record 0015).
#pragma once

#include <cstdint>

#include "interpreter/cpython_headers.hpp"

namespace culm::interpreter {

// The interpreter counts the changes above the bits that ask the evaluation loop for something, in every thread state.
[[gnu::always_inline]] inline std::uint32_t instrumentation_version(const PyThreadState* tstate) noexcept {
    return static_cast<std::uint32_t>(__atomic_load_n(&tstate->eval_breaker, __ATOMIC_RELAXED) >> _PY_EVAL_EVENTS_BITS);
}

// For the frames of the running fiber. Keeps a pending exception, runs no Python. Where memory is used up, code stays
// as it is.
void rewrite_stale_code(PyThreadState* tstate) noexcept;

// The running fiber continues; it was left under the version `known`.
[[gnu::always_inline]] inline void resume_instrumentation(PyThreadState* tstate, std::uint32_t known) noexcept {
    if (instrumentation_version(tstate) != known) [[unlikely]]
        rewrite_stale_code(tstate);
}

}  // namespace culm::interpreter
