// Making and taking down what a thread needs to run fibers.
#include "thread_host.hpp"

#include <algorithm>
#include <memory>

#include "errors.hpp"
#include "fiber_type.hpp"
#include "interposition.hpp"

namespace culm::extension {

using runtime::Fiber;
using runtime::Scheduler;

namespace {

constexpr int kUnwindRoundsMax = 10;
constexpr std::int64_t kFirstUnwindGraceNs = 1'000'000'000;
constexpr std::int64_t kUnwindGraceNs = 100'000'000;
// However long one wait took, it counts as no more than this: a process that got no processor meanwhile has not had
// the time that its clean-ups are given.
constexpr std::int64_t kUnwindWaitNs = 10'000'000;
constexpr const char* kCapsuleKey = "culm.thread";

struct Collection {
    std::vector<PyFiber*> fibers;  // strong
    bool at_exit = false;
};

void collect_fiber(Fiber& fiber, void* context) {
    auto& collection = *static_cast<Collection*>(context);
    PyFiber* self = host_of(fiber);
    if (self == nullptr || self->lost_in_fork || (collection.at_exit && self->left_at_exit)) return;
    Py_INCREF(as_object(self));
    collection.fibers.push_back(self);
}

// What has caught FiberExit each time, or waits where nothing can end the wait: whoever waits for it is told.
void give_up_fibers(ThreadHost& host) {
    Collection collection;
    host.scheduler->for_each_fiber(collect_fiber, &collection);
    const runtime::Fiber* running = &host.scheduler->running();
    for (PyFiber* fiber : collection.fibers) {
        if (fiber->fiber != running && !finished(fiber)) {
            PyErr_Format(PyExc_RuntimeError,
                         "%R did not end when its thread did: it caught FiberExit, or waits for what cannot be "
                         "interrupted; join fibers before their thread ends",
                         fiber);
            give_up_fiber(host, fiber, take_raised_instance());  // giving up runs Python: nothing may be set
        }
        Py_DECREF(as_object(fiber));
    }
}

void take_down(ThreadHost* host) {
    unwind_all_fibers(*host, false);
    give_up_fibers(*host);
    flush_drops(*host);
    interpreter::hide_fiber_identities(host->record);
    Py_CLEAR(host->main);
    Py_CLEAR(host->undertaker);
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

// Waits for the fiber's end, until the grace is used up or a signal's handler raises (Ctrl-C). Runs Python.
void await_end(Scheduler& scheduler, const PyFiber* self, std::int64_t& grace_ns) {
    while (!finished(self) && grace_ns > 0) {
        const std::int64_t before_ns = scheduler.clock().now_ns();
        const std::int64_t deadline_ns = runtime::deadline_after(before_ns, std::min(grace_ns, kUnwindWaitNs));
        if (scheduler.join(*self->fiber, deadline_ns) == runtime::Wake::kInterrupted && PyErr_CheckSignals() < 0) {
            PyErr_WriteUnraisable(nullptr);
            grace_ns = 0;
            return;
        }
        grace_ns -= std::clamp<std::int64_t>(scheduler.clock().now_ns() - before_ns, 1, kUnwindWaitNs);
    }
}

// Raises FiberExit in every live fiber and waits for their ends, so that a clean-up may wait in its turn, but no longer
// than the grace. False: there was none.
bool unwind_round(ThreadHost& host, bool at_exit, bool is_first) {
    Collection collection{.fibers = {}, .at_exit = at_exit};
    host.scheduler->for_each_fiber(collect_fiber, &collection);
    const std::vector<PyFiber*>& live = collection.fibers;
    const runtime::Fiber* running = &host.scheduler->running();
    for (PyFiber* fiber : live) {
        if (is_first && fiber->told_to_exit) continue;  // it is cleaning up
        if (fiber->fiber != running && !finished(fiber)) end_fiber_soon(fiber);
    }
    // Each has its turn before the grace begins, however many they are.
    if (!live.empty()) host.scheduler->yield_now();
    std::int64_t grace_ns = is_first ? kFirstUnwindGraceNs : kUnwindGraceNs;
    for (PyFiber* fiber : live) {
        if (fiber->fiber != running) await_end(*host.scheduler, fiber, grace_ns);
        Py_DECREF(as_object(fiber));
    }
    flush_drops(host);
    return !live.empty();
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

void unwind_all_fibers(ThreadHost& host, bool at_exit) {
    host.closing = true;
    for (int round = 0; round < kUnwindRoundsMax && unwind_round(host, at_exit, round == 0); ++round) {
    }
}

PyObject* shut_down(PyObject*, PyObject*) {
    ThreadHost* host = thread_host;
    if (host != nullptr) {
        unwind_all_fibers(*host, true);
        flush_drops(*host);
        host->closing = false;  // what was registered with atexit earlier runs later, and may use fibers
    }
    report_all_untaken();
    Py_RETURN_NONE;
}

}  // namespace culm::extension
