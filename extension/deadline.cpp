// Seconds given by a Python caller become nanoseconds on the scheduler's clock; how a wait ended becomes an exception.
#include "deadline.hpp"

#include <cerrno>
#include <cmath>

#include "errors.hpp"
#include "fiber_type.hpp"

namespace culm::extension {

using runtime::kNever;
using runtime::Wake;

bool duration_from_seconds(PyObject* seconds, const char* what, std::int64_t& duration_ns) {
    const double value = PyFloat_AsDouble(seconds);
    if (value == -1.0 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError)) return false;
        PyErr_Format(PyExc_TypeError, "%s must be a number of seconds, not %.100s", what, Py_TYPE(seconds)->tp_name);
        return false;
    }
    if (std::isnan(value)) {
        PyErr_Format(PyExc_ValueError, "%s must be a number of seconds, not NaN", what);
        return false;
    }
    if (value < 0) {
        PyErr_Format(PyExc_ValueError, "%s must not be negative, got %R", what, seconds);
        return false;
    }
    const double nanoseconds = std::ceil(value * 1e9);
    duration_ns = nanoseconds >= 9.2e18 ? kNever : static_cast<std::int64_t>(nanoseconds);
    return true;
}

bool deadline_from_timeout(ThreadHost& host, PyObject* timeout, const char* what, std::int64_t& deadline_ns) {
    deadline_ns = kNever;
    if (timeout == nullptr || timeout == Py_None) return true;
    std::int64_t duration_ns = 0;
    if (!duration_from_seconds(timeout, what, duration_ns)) return false;
    deadline_ns = runtime::deadline_after(host.scheduler->clock().now_ns(), duration_ns);
    return true;
}

bool settle_wake(ThreadHost& host, Wake wake, bool& again) {
    again = false;
    PyFiber* self = running_fiber(host);
    if (self->exception != nullptr) {
        PyObject* exception = self->exception;
        self->exception = nullptr;
        raise_instance(exception);
        return false;
    }
    switch (wake) {
        case Wake::kCancelled:
            raise_cancelled(self);
            return false;
        case Wake::kInterrupted:
            if (PyErr_CheckSignals() < 0) return false;
            again = true;
            return true;
        case Wake::kClosed:
            errno = EBADF;
            PyErr_SetFromErrno(PyExc_OSError);
            return false;
        case Wake::kNotified:
        case Wake::kTimeout:
            return true;
    }
    Py_UNREACHABLE();
}

}  // namespace culm::extension
