// join(), result(), exception() and cancel(): waiting for a fiber, from a fiber or from another OS thread.
//
// Within a thread the waiter parks in the fiber's own queue. From another OS thread it waits on a threading lock that
// the fiber's end releases: a plain thread blocks, a fiber of a patched program parks. Invariant: a remote waiter's
// lock is in remote_waiters() from before it blocks until it is released or gives up.
#include <unordered_map>
#include <vector>

#include "arguments.hpp"
#include "deadline.hpp"
#include "errors.hpp"
#include "fiber_type.hpp"

namespace culm::extension {

using runtime::FiberState;
using runtime::Wake;

namespace {

std::unordered_map<PyFiber*, std::vector<PyObject*>>& remote_waiters() {
    static auto* waiters = new std::unordered_map<PyFiber*, std::vector<PyObject*>>;
    return *waiters;
}

void forget_waiter(PyFiber* self, PyObject* lock) {
    auto found = remote_waiters().find(self);
    if (found == remote_waiters().end()) return;
    std::erase(found->second, lock);
    if (found->second.empty()) remote_waiters().erase(found);
}

// 1: finished, 0: timed out, -1: exception.
int wait_from_other_thread(PyFiber* self, PyObject* timeout) {
    PyObject* threading = PyImport_ImportModule("_thread");
    PyObject* lock = threading == nullptr ? nullptr : PyObject_CallMethod(threading, "allocate_lock", nullptr);
    Py_XDECREF(threading);
    PyObject* first = lock == nullptr ? nullptr : PyObject_CallMethod(lock, "acquire", nullptr);
    Py_XDECREF(first);
    if (first == nullptr) {
        Py_XDECREF(lock);
        return -1;
    }
    remote_waiters()[self].push_back(lock);
    const bool for_ever = timeout == nullptr || timeout == Py_None;
    PyObject* acquired = for_ever ? PyObject_CallMethod(lock, "acquire", nullptr)
                                  : PyObject_CallMethod(lock, "acquire", "OO", Py_True, timeout);
    forget_waiter(self, lock);
    Py_DECREF(lock);
    if (acquired == nullptr) return -1;
    Py_DECREF(acquired);
    return finished(self) ? 1 : 0;
}

int wait_in_own_thread(ThreadHost& host, PyFiber* self, std::int64_t deadline_ns, bool for_outcome) {
    if (self->fiber == &host.scheduler->running()) {
        PyErr_SetString(PyExc_RuntimeError, "a fiber cannot wait for its own end");
        return -1;
    }
    const bool by_main = for_outcome && host.scheduler->running().is_main();
    while (!finished(self)) {
        if (by_main) host.result_for_main = self;
        const Wake wake = host.scheduler->join(*self->fiber, deadline_ns);
        if (by_main) host.result_for_main = nullptr;
        bool again = false;
        if (!settle_wake(host, wake, again)) return -1;
        if (wake == Wake::kTimeout) return finished(self) ? 1 : 0;
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
    if (self->fiber->state() == FiberState::kFinished) return 1;
    if (self->fiber->is_main()) {
        PyErr_SetString(PyExc_RuntimeError, "cannot wait for a thread's main fiber; join the thread instead");
        return -1;
    }
    Py_INCREF(as_object(self));
    const int outcome = &self->fiber->scheduler() == host->scheduler
                            ? wait_in_own_thread(*host, self, deadline_ns, for_outcome)
                            : wait_from_other_thread(self, timeout);
    Py_DECREF(as_object(self));
    return outcome;
}

void raise_timeout(PyFiber* self) {
    PyObject* label = fiber_label(self);
    if (label == nullptr) return;
    PyErr_Format(PyExc_TimeoutError, "fiber %U has not finished within the timeout", label);
    Py_DECREF(label);
}

void cancel_on_owner(runtime::Scheduler& scheduler, void* argument) {
    auto* self = static_cast<PyFiber*>(argument);
    if (!finished(self)) {
        if (!self->fiber->is_main()) hold_scheduled(self);
        scheduler.cancel(*self->fiber);
    }
    drop_later(*thread_host, as_object(self));  // not here: the scheduler is at work, and the object's end may switch
}

}  // namespace

void release_remote_waiters(PyFiber* self) {
    auto found = remote_waiters().find(self);
    if (found == remote_waiters().end()) return;
    std::vector<PyObject*> locks = std::move(found->second);
    remote_waiters().erase(found);
    for (PyObject* lock : locks) {
        Py_INCREF(lock);
        PyObject* done = PyObject_CallMethod(lock, "release", nullptr);
        if (done == nullptr) PyErr_Clear();  // the waiter gave up in the same moment
        Py_XDECREF(done);
        Py_DECREF(lock);
    }
}

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
    runtime::Scheduler& owner = self->fiber->scheduler();
    if (thread_host == nullptr || thread_host->scheduler != &owner) {
        Py_INCREF(object);
        if (owner.post(cancel_on_owner, self)) Py_RETURN_TRUE;
        Py_DECREF(object);
        PyErr_Format(PyExc_RuntimeError, "%R cannot be cancelled: its OS thread has ended", object);
        return nullptr;
    }
    if (self->fiber->state() == FiberState::kNew) {
        discard_new_fiber(*thread_host, self);
        Py_RETURN_TRUE;
    }
    if (!self->fiber->is_main()) hold_scheduled(self);
    owner.cancel(*self->fiber);
    Py_RETURN_TRUE;
}

}  // namespace culm::extension
