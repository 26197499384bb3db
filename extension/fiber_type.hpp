// culm.Fiber: the Python object of a fiber, or of what will be one when it is started.
//
// Until it is started it has a Task and no runtime fiber: no stack and no thread, so that any thread may start it.
// Reference rule: the runtime side holds one strong reference ("scheduled") to every fiber that can become runnable
// without the help of a Fiber object: ready, running, or parked on something else than a permit. A fiber parked by
// park() or switch() has given that reference up: when nobody else refers to it, nobody can ever wake it, and it is
// unwound by its finalizer.
// Invariant: holds_scheduled says whether that one reference exists.
#pragma once

#include <Python.h>

#include <utility>

#include "arguments.hpp"
#include "culm/runtime/fiber.hpp"
#include "thread_host.hpp"

namespace culm::extension {

struct PyFiber {
    PyObject_HEAD PyObject* weak_references;
    runtime::Fiber* fiber;  // one reference; null until it is started
    PyObject* function;
    PyObject* arguments;  // tuple or null, until the end; with has_keywords its last item is their dict
    PyObject* name;       // str or null: then the function's qualified name is shown
    union {
        runtime::Task* task;  // while `fiber` is null: owned; its argument is a strong reference to the context
        PyObject* value;      // afterwards: the result once it has finished, null if it failed
    };
    PyObject* exception;  // to be raised when it continues; finished: how it failed, else null
    bool has_keywords;
    bool discarded;  // cancelled before it was started
    bool holds_scheduled;
    bool outcome_taken;  // result() or exception() has been called, or nothing to report
    bool lost_in_fork;   // a fiber of the forking thread that belongs to the parent process only; ask lost()
    bool told_to_exit;   // FiberExit has been raised in it, or is about to be
    bool left_at_exit;   // stands for a thread: the interpreter's exit stops it without unwinding it
};

// With the garbage collector's header 96 bytes, a size of the interpreter's allocator. Every parked fiber has one.
static_assert(sizeof(PyFiber) <= 80);

extern PyTypeObject PyFiber_Type;
bool ready_fiber_type(PyObject* module);
PyObject* leave_at_exit(PyObject* module, PyObject* fiber);

inline bool is_fiber(PyObject* object) noexcept { return Py_IS_TYPE(object, &PyFiber_Type); }
inline PyObject* as_object(PyFiber* fiber) noexcept { return reinterpret_cast<PyObject*>(fiber); }
inline PyFiber* as_fiber(PyObject* object) noexcept { return reinterpret_cast<PyFiber*>(object); }
inline PyFiber* host_of(runtime::Fiber& fiber) noexcept { return static_cast<PyFiber*>(fiber.host); }

inline bool is_unstarted(const PyFiber* self) noexcept { return self->fiber == nullptr && !self->discarded; }
inline std::uint64_t fiber_id(const PyFiber* self) noexcept {
    return self->fiber != nullptr ? self->fiber->id() : self->task->id;
}

// The contextvars context that a fiber is to start in (borrowed): null once it has run, or when there is none. It is
// the argument of its task, whose body needs none.
inline PyObject* start_context(const PyFiber* self) noexcept {
    return static_cast<PyObject*>(self->fiber != nullptr ? self->fiber->argument() : self->task->argument);
}

// The object of the calling thread's running fiber (borrowed).
inline PyFiber* running_fiber(ThreadHost& host) noexcept { return host_of(host.scheduler->running()); }

// It exists in the parent process only.
inline bool lost(const PyFiber* self) noexcept {
    return self->lost_in_fork || (self->fiber != nullptr && self->fiber->scheduler().lost_in_fork());
}
inline bool finished(const PyFiber* self) noexcept {
    if (self->fiber == nullptr) return self->discarded;
    return self->fiber->state() == runtime::FiberState::kFinished || lost(self);
}
// Its frames are saved, not live in a thread state. (A fiber that idles polls on its own stack: parked, yet running.)
bool suspended(const PyFiber* self) noexcept;

// --- fiber_life.cpp ---

// An un-started fiber. Null with an exception set. Runs Python.
PyFiber* new_fiber(ThreadHost& host, const SpawnArguments& arguments);
// One that runs in its turn on this thread. Null with an exception set. Runs Python.
PyFiber* spawn_fiber(ThreadHost& host, const SpawnArguments& arguments);
// The main fiber's object for a new host.
PyFiber* new_main_fiber(ThreadHost& host);
// Gives an un-started fiber of whatever thread a stack of this one: from here on it belongs here, but is not runnable
// yet. False with an OSError set, and it is as before.
bool promise_fiber(ThreadHost& host, PyFiber* self);
// Puts a promised fiber into the run queue.
void start_promised_fiber(ThreadHost& host, PyFiber* self);
// Ends a fiber that was not started as cancelled. On any thread. Runs Python.
void discard_unstarted_fiber(PyFiber* self);
// Raises FiberExit in a fiber suspended in park() or switch() and runs it at once until it ends or parks. Switches.
// Runs Python.
void unwind_fiber(ThreadHost& host, PyFiber* self);
// The same for any started fiber of whatever thread, in its turn: it becomes runnable and ends when it runs.
void end_fiber_soon(PyFiber* self);
// Gives up a suspended fiber whose body will never return, without unwinding it: `failure` (stolen; null: the exception
// that is set) is its outcome. Runs Python.
void give_up_fiber(ThreadHost& host, PyFiber* self, PyObject* failure);
void report_untaken(PyFiber* self);  // Runs Python.
void report_all_untaken();           // Runs Python.
void forget_untaken(PyFiber* self) noexcept;
PyObject* know_dummy_threads(PyObject* module, PyObject* const* args, Py_ssize_t count);

// Takes the scheduled reference back before making a fiber runnable.
inline void hold_scheduled(PyFiber* self) noexcept {
    if (self->holds_scheduled) return;
    self->holds_scheduled = true;
    Py_INCREF(as_object(self));
}
// Gives it up; dropped on the side that continues.
inline void release_scheduled_later(ThreadHost& host, PyFiber* self) {
    self->holds_scheduled = false;
    drop_later(host, as_object(self));
}

// --- fiber_waits.cpp ---
PyObject* fiber_join(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names);
PyObject* fiber_result(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names);
PyObject* fiber_exception(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names);
PyObject* fiber_cancel(PyObject* self, PyObject* unused);

// --- stack_use.cpp ---
bool ready_stack_use_type(PyObject* module);
PyObject* fiber_stack(PyObject* self, void* unused);
PyObject* resident_pages(PyObject* module, PyObject* fiber);

// "'name'" or the function's qualified name, for messages. New reference; null with an exception set.
PyObject* fiber_label(PyFiber* self);

}  // namespace culm::extension
