// join(), result(), exception() and cancel(): waiting for a fiber, from a fiber of whatever OS thread.
#include "arguments.hpp"
#include "deadline.hpp"
#include "errors.hpp"
#include "fiber_type.hpp"

namespace culm::extension {

using runtime::FiberState;
using runtime::Wake;

namespace {

// One wait for the end, started or not.
Wake join_once(ThreadHost& host, PyFiber* self, std::int64_t deadline_ns) {
    if (self->fiber != nullptr) return host.scheduler->join(*self->fiber, deadline_ns);
    self->task->may_be_joined = true;
    return host.scheduler->join_task(self->task->id, deadline_ns);
}

// 1: finished, 0: timed out, -1: exception.
int wait_for_end(ThreadHost& host, PyFiber* self, std::int64_t deadline_ns, bool for_outcome) {
    const bool by_main = for_outcome && host.scheduler->running().is_main();
    while (!finished(self)) {
        if (by_main) host.result_for_main = self;
        const Wake wake = join_once(host, self, deadline_ns);
        if (by_main) host.result_for_main = nullptr;
        bool again = false;
        if (!settle_wake(host, wake, again)) return -1;
        if (wake == Wake::kTimeout) return finished(self) ? 1 : 0;
        if (wake == Wake::kNotified && !finished(self)) {
            PyErr_Format(PyExc_RuntimeError, "%R will not finish: its OS thread has ended", self);
            return -1;
        }
    }
    return 1;
}

int wait_until_finished(PyFiber* self, PyObject* timeout, bool for_outcome) {
    ThreadHost* host = ensure_thread_host();
    if (host == nullptr) return -1;
    std::int64_t deadline_ns = 0;
    if (!deadline_from_timeout(*host, timeout, "timeout", deadline_ns)) return -1;
    if (lost(self)) {
        PyErr_Format(PyExc_RuntimeError, "%R runs in the parent process only; it did not survive fork()", self);
        return -1;
    }
    if (finished(self)) return 1;
    if (self->fiber != nullptr && self->fiber->is_main()) {
        PyErr_SetString(PyExc_RuntimeError, "cannot wait for a thread's main fiber; join the thread instead");
        return -1;
    }
    if (self->fiber == &host->scheduler->running()) {
        PyErr_SetString(PyExc_RuntimeError, "a fiber cannot wait for its own end");
        return -1;
    }
    Py_INCREF(as_object(self));
    const int outcome = wait_for_end(*host, self, deadline_ns, for_outcome);
    Py_DECREF(as_object(self));
    return outcome;
}

void raise_timeout(PyFiber* self) {
    PyObject* label = fiber_label(self);
    if (label == nullptr) return;
    PyErr_Format(PyExc_TimeoutError, "fiber %U has not finished within the timeout", label);
    Py_DECREF(label);
}

}  // namespace

PyObject* fiber_join(PyObject* object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    PyObject* timeout = nullptr;
    if (!parse_timeout_argument("join", args, count, names, timeout)) return nullptr;
    const int outcome = wait_until_finished(as_fiber(object), timeout, false);
    return outcome < 0 ? nullptr : PyBool_FromLong(outcome);
}

namespace {

// Waits for the end and marks the outcome as taken. False: an exception is set.
bool take_outcome(const char* caller, PyFiber* self, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    PyObject* timeout = nullptr;
    if (!parse_timeout_argument(caller, args, count, names, timeout)) return false;
    const int outcome = wait_until_finished(self, timeout, true);
    if (outcome == 0) raise_timeout(self);
    if (outcome <= 0) return false;
    forget_untaken(self);
    self->outcome_taken = true;
    return true;
}

}  // namespace

PyObject* fiber_result(PyObject* object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    PyFiber* self = as_fiber(object);
    if (!take_outcome("result", self, args, count, names)) return nullptr;
    if (self->exception == nullptr) return Py_NewRef(self->value != nullptr ? self->value : Py_None);
    raise_instance(Py_NewRef(self->exception));
    return nullptr;
}

PyObject* fiber_exception(PyObject* object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    PyFiber* self = as_fiber(object);
    if (!take_outcome("exception", self, args, count, names)) return nullptr;
    return Py_NewRef(self->exception != nullptr ? self->exception : Py_None);
}

PyObject* fiber_cancel(PyObject* object, PyObject*) {
    PyFiber* self = as_fiber(object);
    if (finished(self)) Py_RETURN_FALSE;
    if (self->fiber == nullptr) {
        discard_unstarted_fiber(self);
        Py_RETURN_TRUE;
    }
    if (runtime::Scheduler::cancel(*self->fiber)) Py_RETURN_TRUE;
    PyErr_Format(PyExc_RuntimeError, "%R cannot be cancelled: its OS thread has ended", object);
    return nullptr;
}

}  // namespace culm::extension
