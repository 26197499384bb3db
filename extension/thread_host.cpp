// Making and taking down what a thread needs to run fibers.
#include "thread_host.hpp"

#include <memory>

#include "culm/runtime/undertaker.hpp"
#include "culm/runtime/unwinding.hpp"
#include "errors.hpp"
#include "fiber_type.hpp"
#include "interposition.hpp"

namespace culm::extension {

using runtime::Fiber;
using runtime::Scheduler;

namespace {

constexpr const char* kCapsuleKey = "culm.thread";

void take_down(ThreadHost* host) {
    host->closing = true;
    runtime::unwind_fibers(*host->scheduler, runtime::Ending::kThread);
    runtime::Undertaker::dismiss(*host->scheduler);
    flush_drops(*host);
    interpreter::hide_fiber_identities(host->record);
    Py_CLEAR(host->main);
    (void)Scheduler::close_current();  // refused while a fiber refuses to end: its memory stays
    thread_host = nullptr;
    flush_drops(*host);  // what calls of other threads, taken in during the close, left behind
    delete host;
}

// Runs when the thread state is cleared, on its own thread. Runs Python.
void thread_ends(PyObject* capsule) {
    auto* host = static_cast<ThreadHost*>(PyCapsule_GetPointer(capsule, kCapsuleKey));
    if (host == nullptr || host != thread_host || !interpreter::may_run_python()) return;
    PyObject* pending = PyErr_Occurred() ? take_raised_instance() : nullptr;
    take_down(host);
    if (pending != nullptr) raise_instance(pending);
}

bool install_thread_end(ThreadHost* host) {
    PyObject* dict = PyThreadState_GetDict();  // borrowed; the main fiber's: no other fiber exists yet
    PyObject* capsule = dict == nullptr ? nullptr : PyCapsule_New(host, kCapsuleKey, thread_ends);
    if (capsule == nullptr) {
        if (!PyErr_Occurred()) PyErr_NoMemory();
        return false;
    }
    const bool good = PyDict_SetItemString(dict, kCapsuleKey, capsule) == 0;
    Py_DECREF(capsule);
    return good;
}

}  // namespace

void flush_drops_slow(ThreadHost& host) {
    while (host.drop_after_switch != nullptr) {
        PyObject* object = host.drop_after_switch;
        host.drop_after_switch = nullptr;
        if (!host.drop_more.empty()) {
            host.drop_after_switch = host.drop_more.back();
            host.drop_more.pop_back();
        }
        Py_DECREF(object);
    }
}

ThreadHost* ensure_thread_host() {
    if (thread_host != nullptr) return thread_host;
    auto host = std::make_unique<ThreadHost>();
    if (!interpreter::adopt_thread(host->record)) return nullptr;
    auto scheduler = Scheduler::ensure();
    if (!scheduler) {
        raise_error(scheduler.error());
        return nullptr;
    }
    host->scheduler = scheduler.value();
    interpreter::prepare_main(host->main_state, host->record);
    host->main = new_main_fiber(*host);
    if (host->main == nullptr || !install_thread_end(host.get())) {
        Py_CLEAR(host->main);
        (void)Scheduler::close_current();
        return nullptr;
    }
    thread_host = host.release();
    if (interposed()) show_identities(*thread_host);
    return thread_host;
}

namespace {

bool has_to_unwind(Fiber& fiber, runtime::Ending ending) {
    PyFiber* self = host_of(fiber);
    if (self == nullptr || self->lost_in_fork) return false;
    if (ending == runtime::Ending::kProgram && self->left_at_exit) return false;
    Py_INCREF(as_object(self));
    return true;
}

void let_unwound_go(Fiber& fiber) {
    Py_DECREF(as_object(host_of(fiber)));
    flush_drops(*thread_host);
}

bool was_told_to_unwind(const Fiber& fiber) { return static_cast<const PyFiber*>(fiber.host)->told_to_exit; }

void tell_to_unwind(Fiber& fiber) { end_fiber_soon(host_of(fiber)); }

bool handle_signals_meanwhile() {
    if (PyErr_CheckSignals() == 0) return true;
    PyErr_WriteUnraisable(nullptr);
    return false;
}

void give_up_unwinding(Fiber& fiber) {
    PyFiber* self = host_of(fiber);
    PyErr_Format(PyExc_RuntimeError,
                 "%R did not end when its thread did: it caught FiberExit, or waits for what cannot be interrupted; "
                 "join fibers before their thread ends",
                 self);
    give_up_fiber(*thread_host, self, take_raised_instance());  // giving up runs Python: nothing may be set
}

}  // namespace

runtime::Unwinding unwinding_roles() noexcept {
    return {.hold = has_to_unwind,
            .let_go = let_unwound_go,
            .was_told = was_told_to_unwind,
            .tell = tell_to_unwind,
            .handle_signals = handle_signals_meanwhile,
            .give_up = give_up_unwinding};
}

PyObject* shut_down(PyObject*, PyObject*) {
    ThreadHost* host = thread_host;
    if (host != nullptr) {
        host->closing = true;
        runtime::unwind_fibers(*host->scheduler, runtime::Ending::kProgram);
        flush_drops(*host);
        host->closing = false;  // what was registered with atexit earlier runs later, and may use fibers
    }
    report_all_untaken();
    Py_RETURN_NONE;
}

}  // namespace culm::extension
