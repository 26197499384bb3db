// The primitives that schedulers and libraries are built from. switch_to is the hot path: a METH_FASTCALL function
// whose checks are a handful of loads.
//
// Invariant: a value sent to a fiber is received once: while one is on its way, sending another raises.
#include "lowlevel.hpp"

#include <sys/epoll.h>

#include "arguments.hpp"
#include "deadline.hpp"
#include "errors.hpp"
#include "fiber_type.hpp"

namespace culm::extension {

using runtime::Fiber;
using runtime::FiberState;
using runtime::kNever;
using runtime::WaitKind;
using runtime::Wake;

namespace {

// The running fiber continues after park or switch: what was sent to it, or what is to be raised in it.
// A signal whose handler raised nothing leaves the fiber waiting.
inline PyObject* receive(ThreadHost& host, PyFiber* self, Wake wake, std::int64_t deadline_ns) {
    while (true) {
        if (wake == Wake::kNotified && self->exception == nullptr) {
            PyObject* value = self->value;
            self->value = nullptr;
            return value != nullptr ? value : Py_NewRef(Py_None);
        }
        bool again = false;
        if (!settle_wake(host, wake, again)) return nullptr;
        if (wake == Wake::kTimeout) {
            PyErr_SetString(PyExc_TimeoutError, "park() was not ended by unpark() within the timeout");
            return nullptr;
        }
        wake = host.scheduler->park(deadline_ns);
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
    if (host != nullptr && &as_fiber(object)->fiber->scheduler() != host->scheduler) {
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
    const Fiber& fiber = *target->fiber;
    return fiber.state() == FiberState::kParked && fiber.wait_kind() == WaitKind::kPermit &&
           &fiber.scheduler() == host.scheduler && !target->lost_in_fork;
}

bool can_be_switched_to(PyFiber* target, PyObject* value) {
    const Fiber& fiber = *target->fiber;
    if (fiber.state() == FiberState::kNew) {
        if (value == Py_None) return true;
        PyErr_SetString(PyExc_TypeError,
                        "cannot send a value to a fiber that has not started; pass arguments to Fiber()");
        return false;
    }
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

// Runs on the owner with the value sent from another OS thread in `value`.
bool deliver(PyFiber* target, PyObject* value) {
    if (target->value != nullptr) {
        PyErr_Format(PyExc_RuntimeError, "%R already has a value on its way; it must receive that one first", target);
        return false;
    }
    target->value = Py_NewRef(value);
    return true;
}

void unpark_on_owner(runtime::Scheduler& scheduler, void* argument) {
    auto* target = static_cast<PyFiber*>(argument);
    if (!finished(target)) {
        if (!target->fiber->is_main()) hold_scheduled(target);
        scheduler.unpark(*target->fiber);
    }
    drop_later(*thread_host, as_object(target));
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
    const Wake wake = host->scheduler->park(deadline_ns);
    if (give_up_reference) {
        hold_scheduled(self);
        flush_drops(*host);
    }
    return receive(*host, self, wake, deadline_ns);
}

PyObject* unpark(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "unpark() takes a Fiber and at most one value");
        return nullptr;
    }
    if (!check_target(nullptr, args[0], "unpark")) return nullptr;
    PyFiber* target = as_fiber(args[0]);
    if (target->fiber->state() == FiberState::kNew) {
        PyErr_Format(PyExc_RuntimeError, "%R has not started; start() it first", args[0]);
        return nullptr;
    }
    if (!deliver(target, count == 2 ? args[1] : Py_None)) return nullptr;
    runtime::Scheduler& owner = target->fiber->scheduler();
    if (thread_host != nullptr && thread_host->scheduler == &owner) {
        if (!target->fiber->is_main()) hold_scheduled(target);
        owner.unpark(*target->fiber);
        Py_RETURN_NONE;
    }
    Py_INCREF(as_object(target));
    if (owner.post(unpark_on_owner, target)) Py_RETURN_NONE;
    Py_DECREF(as_object(target));
    Py_CLEAR(target->value);
    PyErr_Format(PyExc_RuntimeError, "%R cannot be unparked: its OS thread has ended", args[0]);
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
    // A fiber that is still suspended has received what was sent before: there is nothing to overwrite.
    if (count == 2 && target->fiber->state() == FiberState::kParked) Py_XSETREF(target->value, Py_NewRef(value));
    if (!target->fiber->is_main()) hold_scheduled(target);
    const bool give_up_reference = !self->fiber->is_main();
    if (give_up_reference) release_scheduled_later(*host, self);
    const Wake wake = host->scheduler->switch_to(*target->fiber);
    if (give_up_reference && !self->holds_scheduled) hold_scheduled(self);  // a permit brought it back
    return receive(*host, self, wake, kNever);
}

PyObject* wait_readable(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    return wait_descriptor("wait_readable", EPOLLIN, args, count, names);
}

PyObject* wait_writable(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    return wait_descriptor("wait_writable", EPOLLOUT, args, count, names);
}

}  // namespace culm::extension
