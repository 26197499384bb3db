// Python timeouts to deadlines, and outcomes of waits to exceptions.
#pragma once

#include <Python.h>

#include <cstdint>

#include "culm/runtime/scheduler.hpp"
#include "thread_host.hpp"

namespace culm::extension {

// `timeout` in seconds: None or null for ever. False with TypeError/ValueError set for a non-number, a negative, a NaN.
// `what` names the argument in the message. Huge values mean for ever.
bool deadline_from_timeout(ThreadHost& host, PyObject* timeout, const char* what, std::int64_t& deadline_ns);
// Seconds as a duration in nanoseconds; same errors.
bool duration_from_seconds(PyObject* seconds, const char* what, std::int64_t& duration_ns);

// After a wait of the running fiber. Returns true if the wait is over with kNotified or kTimeout; false with an
// exception set (Cancelled, an injected one, what a signal handler raised). kInterrupted without an exception: sets
// `again`.
bool settle_wake(ThreadHost& host, runtime::Wake wake, bool& again);

}  // namespace culm::extension
