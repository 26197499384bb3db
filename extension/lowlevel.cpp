// The primitives that schedulers and libraries are built from. switch_to is the hot path: a METH_FASTCALL function
// whose checks are a handful of loads.
//
// A value travels in the record of the wait that it ends, or in a permit that waits for the fiber's next park(); the
// reference to it goes with it.
// Invariant: a value sent to a fiber is received once: while one is on its way by unpark(), sending another raises.
#include "lowlevel.hpp"

#include "arguments.hpp"
#include "deadline.hpp"
#include "errors.hpp"
#include "fiber_type.hpp"

namespace culm::extension {

using runtime::Fiber;
using runtime::FiberState;
using runtime::kNever;
using runtime::Scheduler;
using runtime::Sent;
using runtime::WaitKind;
using runtime::Wake;
using runtime::Woken;

namespace {

// The running fiber continues after park or switch: what was sent to it, or what is to be raised in it.
// A signal whose handler raised nothing leaves the fiber waiting.
inline PyObject* receive(ThreadHost& host, PyFiber* self, Woken woken, std::int64_t deadline_ns) {
    while (true) {
        auto* value = static_cast<PyObject*>(woken.value);
        if (woken.wake == Wake::kNotified && self->exception == nullptr) {
            return value != nullptr ? value : Py_NewRef(Py_None);
        }
        bool again = false;
        const bool goes_on = settle_wake(host, woken.wake, again);
        Py_XDECREF(value);  // sent to a fiber that an exception was waiting for
        if (!goes_on) return nullptr;
        if (woken.wake == Wake::kTimeout) {
            PyErr_SetString(PyExc_TimeoutError, "park() was not ended by unpark() within the timeout");
            return nullptr;
        }
        woken = host.scheduler->park(deadline_ns);
        flush_drops(host);
    }
}

bool check_target(ThreadHost* host, PyObject* object, const char* caller) {
    if (!is_fiber(object)) {
        PyErr_Format(PyExc_TypeError, "%s() needs a Fiber, not %.100s", caller, Py_TYPE(object)->tp_name);
        return false;
    }
    if (finished(as_fiber(object))) {
        PyErr_Format(PyExc_RuntimeError, "%R has finished; it cannot be continued", object);
        return false;
    }
    const Fiber* fiber = as_fiber(object)->fiber;
    if (host != nullptr && fiber != nullptr && &fiber->scheduler() != host->scheduler) {
        PyErr_Format(PyExc_RuntimeError, "%R belongs to another OS thread; only unpark() and cancel() reach across",
                     object);
        return false;
    }
    return true;
}

// The usual case of the two checks around this, in the fewest steps.
bool waits_here(const ThreadHost& host, PyObject* object) noexcept {
    if (!is_fiber(object)) return false;
    const PyFiber* target = as_fiber(object);
    if (target->fiber == nullptr) return false;
    const Fiber& fiber = *target->fiber;
    return fiber.state() == FiberState::kParked && fiber.wait_kind() == WaitKind::kPermit &&
           &fiber.scheduler() == host.scheduler && !target->lost_in_fork;
}

bool can_be_switched_to(PyFiber* target, PyObject* value) {
    if (target->fiber == nullptr) {
        if (value == Py_None) return true;
        PyErr_SetString(PyExc_TypeError,
                        "cannot send a value to a fiber that has not started; pass arguments to Fiber()");
        return false;
    }
    const Fiber& fiber = *target->fiber;
    if (fiber.state() == FiberState::kParked && fiber.wait_kind() == WaitKind::kPermit) return true;
    if (fiber.state() == FiberState::kRunning) {
        PyErr_SetString(PyExc_RuntimeError, "a fiber cannot switch to itself");
        return false;
    }
    PyErr_Format(PyExc_RuntimeError,
                 "cannot switch to %R: only a fiber that has not started or is suspended in park() or switch() can be",
                 target);
    return false;
}

PyObject* wait_descriptor(const char* caller, std::uint32_t events, PyObject* const* args, Py_ssize_t count,
                          PyObject* names) {
    if (count < 1) {
        PyErr_Format(PyExc_TypeError, "%s() needs a file descriptor or an object with fileno()", caller);
        return nullptr;
    }
    ThreadHost* host = ensure_thread_host();
    PyObject* timeout = nullptr;
    if (host == nullptr || !parse_timeout_argument(caller, args + 1, count - 1, names, timeout)) return nullptr;
    runtime::FdRequest request{.fd = PyObject_AsFileDescriptor(args[0]), .wanted = events};
    if (request.fd < 0) return nullptr;
    std::int64_t deadline_ns = 0;
    if (!deadline_from_timeout(*host, timeout, "timeout", deadline_ns)) return nullptr;
    while (true) {
        const Wake wake = host->scheduler->wait_fd(request, deadline_ns);
        bool again = false;
        if (!settle_wake(*host, wake, again)) return nullptr;
        if (again) continue;
        if (wake == Wake::kTimeout) {
            PyErr_Format(PyExc_TimeoutError, "%s(): descriptor %d was not ready within the timeout", caller,
                         request.fd);
            return nullptr;
        }
        if (request.ready == runtime::kFdInvalid) {
            errno = EBADF;
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        Py_RETURN_NONE;
    }
}

}  // namespace

PyObject* park(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    ThreadHost* host = ensure_thread_host();
    PyObject* timeout = nullptr;
    std::int64_t deadline_ns = 0;
    if (host == nullptr || !parse_timeout_argument("park", args, count, names, timeout)) return nullptr;
    if (!deadline_from_timeout(*host, timeout, "timeout", deadline_ns)) return nullptr;
    PyFiber* self = running_fiber(*host);
    const bool give_up_reference = deadline_ns == kNever && !self->fiber->is_main();
    if (give_up_reference) release_scheduled_later(*host, self);
    const Woken woken = host->scheduler->park(deadline_ns);
    if (give_up_reference) {
        hold_scheduled(self);
        flush_drops(*host);
    }
    return receive(*host, self, woken, deadline_ns);
}

PyObject* unpark(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "unpark() takes a Fiber and at most one value");
        return nullptr;
    }
    if (!check_target(nullptr, args[0], "unpark")) return nullptr;
    PyFiber* target = as_fiber(args[0]);
    if (target->fiber == nullptr) {
        PyErr_Format(PyExc_RuntimeError, "%R has not started; start() it first", args[0]);
        return nullptr;
    }
    PyObject* value = Py_NewRef(count == 2 ? args[1] : Py_None);
    const Sent sent = Scheduler::unpark(*target->fiber, value);
    if (sent == Sent::kSent) Py_RETURN_NONE;
    Py_DECREF(value);
    if (sent == Sent::kBusy) {
        PyErr_Format(PyExc_RuntimeError, "%R already has a value on its way; it must receive that one first", target);
    } else {
        PyErr_Format(PyExc_RuntimeError, "%R cannot be unparked: its OS thread has ended", args[0]);
    }
    return nullptr;
}

PyObject* switch_to(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "switch() takes a Fiber and at most one value");
        return nullptr;
    }
    ThreadHost* host = thread_host != nullptr ? thread_host : ensure_thread_host();
    if (host == nullptr) return nullptr;
    PyObject* value = count == 2 ? args[1] : Py_None;
    if (!waits_here(*host, args[0])) [[unlikely]] {
        if (!check_target(host, args[0], "switch") || !can_be_switched_to(as_fiber(args[0]), value)) return nullptr;
    }
    PyFiber* target = as_fiber(args[0]);
    PyFiber* self = running_fiber(*host);
    if (self->fiber->cancel_requested()) [[unlikely]] {
        // Before anything has been promised to the target. An already expired sleep takes the request.
        bool again = false;
        if (!settle_wake(*host, host->scheduler->sleep_until(0), again)) return nullptr;
    }
    if (target->fiber == nullptr && !promise_fiber(*host, target)) return nullptr;
    const bool sends = count == 2 && target->fiber->state() == FiberState::kParked;
    if (!target->fiber->is_main()) hold_scheduled(target);
    const bool give_up_reference = !self->fiber->is_main();
    if (give_up_reference) release_scheduled_later(*host, self);
    const Woken woken = host->scheduler->switch_to(*target->fiber, sends ? Py_NewRef(value) : nullptr);
    if (give_up_reference && !self->holds_scheduled) hold_scheduled(self);  // a permit brought it back
    return receive(*host, self, woken, kNever);
}

PyObject* wait_readable(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    return wait_descriptor("wait_readable", runtime::kFdReadable, args, count, names);
}

PyObject* wait_writable(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    return wait_descriptor("wait_writable", runtime::kFdWritable, args, count, names);
}

}  // namespace culm::extension
