// A fiber from creation to its end: made, started, run, unwound, its outcome recorded and, if nobody asks, reported.
//
// Invariant: when a fiber's body returns to the runtime, its interpreter state owns nothing and its outcome is
// recorded.
#include <new>
#include <unordered_set>

#include "culm/runtime/interpose.hpp"
#include "culm/strategy_pool.hpp"
#include "embedder.hpp"
#include "errors.hpp"
#include "fiber_type.hpp"
#include "fork.hpp"
#include "stack_sites.hpp"

namespace culm::extension {

using runtime::Fiber;
using runtime::FiberState;

namespace {

// The fibers that have finished with an exception which nobody has asked for. No references: forget_untaken() takes an
// object out before it goes.
std::unordered_set<PyFiber*>& untaken() {
    static auto* set = new std::unordered_set<PyFiber*>;  // outlives static destruction: objects may die late
    return *set;
}

bool is_silent_end(PyObject* exception) {
    return PyErr_GivenExceptionMatches(exception, Cancelled) || PyErr_GivenExceptionMatches(exception, FiberExit) ||
           PyErr_GivenExceptionMatches(exception, PyExc_SystemExit);
}

// A call of the fiber failed with ECANCELED, and the exception that C code made of that has ended the fiber before the
// evaluation loop could raise Cancelled. The fiber was cancelled all the same: Cancelled is its outcome, unless it has
// a result.
void raise_what_is_pending(ThreadHost& host, PyFiber* self, PyObject* result) {
    PyObject* pending = interpreter::withdraw_raise_soon(host.record, saved_state(host, *self->fiber));
    if (pending == nullptr) return;
    if (result != nullptr) return Py_DECREF(pending);
    PyObject* failure = take_raised_instance();
    raise_class(self, pending);
    PyObject* raised = take_raised_instance();
    PyException_SetContext(raised, failure);
    raise_instance(raised);
}

// KeyboardInterrupt belongs to the main fiber: whichever fiber it hit, the program is meant. A main fiber that waits
// for the result of this one gets it so. The last thing a fiber does: Python code run after it would get the interrupt.
void forward_interrupt(ThreadHost& host, PyFiber* self) {
    if (self->exception == nullptr || host.result_for_main == self) return;
    if (!PyErr_GivenExceptionMatches(self->exception, PyExc_KeyboardInterrupt)) return;
    PyErr_SetInterrupt();
    host.scheduler->interrupt_main();
}

void record_failure(PyFiber* self);

void record_outcome(PyFiber* self, PyObject* result) {
    Py_CLEAR(self->value);
    Py_CLEAR(self->exception);
    if (result == nullptr) return record_failure(self);
    self->value = result;
}

// The exception that is set is the outcome.
void record_failure(PyFiber* self) {
    self->exception = take_raised_instance();
    if (is_silent_end(self->exception)) {
        self->outcome_taken = true;
        // Nobody asks where a fiber was that was told to end, and its frames would live as long as its object.
        if (self->told_to_exit) PyException_SetTraceback(self->exception, Py_None);
        return;
    }
    if (PyErr_GivenExceptionMatches(self->exception, PyExc_KeyboardInterrupt)) {
        self->outcome_taken = true;  // the main fiber gets it
        return;
    }
    self->outcome_taken = false;
    untaken().insert(self);
}

// threading._active and threading._DummyThread, once patch() has run.
PyObject* active_threads = nullptr;
PyObject* dummy_thread_type = nullptr;

// threading.current_thread() makes a dummy thread for a fiber that is no Thread: it goes with the fiber. Not in Python,
// where a signal's exception would be raised in the middle of it and be lost.
void forget_dummy_thread(PyFiber* self) {
    if (active_threads == nullptr || !runtime::interpose::was_asked_identity(*self->fiber)) return;
    PyObject* identity = PyLong_FromUnsignedLong(self->fiber->identity());
    PyObject* thread = identity == nullptr ? nullptr : PyDict_GetItemWithError(active_threads, identity);
    const bool is_dummy = thread != nullptr && Py_IS_TYPE(thread, reinterpret_cast<PyTypeObject*>(dummy_thread_type));
    if (is_dummy) PyDict_DelItem(active_threads, identity);
    Py_XDECREF(identity);
    if (PyErr_Occurred()) PyErr_WriteUnraisable(as_object(self));
}

// The function and its arguments stay in the object while they are in use: a reference held by a C frame of a parked
// fiber would be one that the garbage collector cannot account for.
PyObject* call_function(PyFiber* self) {
    if (self->arguments == nullptr) return PyObject_CallNoArgs(self->function);
    if (!self->has_keywords) return PyObject_CallObject(self->function, self->arguments);
    const Py_ssize_t positional = PyTuple_GET_SIZE(self->arguments) - 1;
    return PyObject_VectorcallDict(self->function, &PyTuple_GET_ITEM(self->arguments, 0),
                                   static_cast<std::size_t>(positional), PyTuple_GET_ITEM(self->arguments, positional));
}

// What was injected or requested before the first instruction ends the fiber without running its function.
PyObject* run_function(PyFiber* self) {
    if (self->exception != nullptr) {
        PyObject* exception = self->exception;
        self->exception = nullptr;
        raise_instance(exception);
        return nullptr;
    }
    if (self->fiber->cancel_requested()) return raise_cancelled(self);
    return call_function(self);
}

// Switches: the first thing on a fiber's stack, and the last. Runs Python.
void run_body(Fiber& fiber, void*) {
    ThreadHost& host = *thread_host;
    PyFiber* self = host_of(fiber);
    flush_drops(host);
    PyObject* result = run_function(self);
    interpreter::overflow_given_up(host.record, saved_state(host, fiber));
    raise_what_is_pending(host, self, result);
    if (host.forking == self) end_forked_child(result);
    record_outcome(self, result);
    Py_CLEAR(self->arguments);
    forget_dummy_thread(self);
    note_stack_at_end(host, self);
    interpreter::finish_running(host.record, saved_state(host, fiber));
    forward_interrupt(host, self);
    hold_scheduled(self);
    release_scheduled_later(host, self);
}

}  // namespace

PyObject* leave_at_exit(PyObject*, PyObject* fiber) {
    if (!is_fiber(fiber)) {
        PyErr_Format(PyExc_TypeError, "leave_at_exit() needs a Fiber, not %.100s", Py_TYPE(fiber)->tp_name);
        return nullptr;
    }
    as_fiber(fiber)->left_at_exit = true;
    Py_RETURN_NONE;
}

PyObject* know_dummy_threads(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count != 2 || !PyDict_Check(args[0]) || !PyType_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "know_dummy_threads() needs threading._active and threading._DummyThread");
        return nullptr;
    }
    Py_XSETREF(active_threads, Py_NewRef(args[0]));
    Py_XSETREF(dummy_thread_type, Py_NewRef(args[1]));
    Py_RETURN_NONE;
}

bool suspended(const PyFiber* self) noexcept {
    if (self->fiber == nullptr) return false;
    const Fiber& fiber = *self->fiber;
    if (fiber.is_main() || !fiber.stack()) return false;
    if (fiber.state() != FiberState::kReady && fiber.state() != FiberState::kParked) return false;
    return &fiber.scheduler().running() != &fiber;
}

namespace {

// Under strict overcommit fibers get other stacks than users of culm expect: say so, once. False with an exception set,
// where warnings are errors. Runs Python.
bool say_once_which_default() {
    static bool said = false;
    if (said || &default_stack_strategy() == stack_strategies()[kArenaIndex]) return true;
    said = true;
    return PyErr_WarnFormat(
               PyExc_RuntimeWarning, 1,
               "vm.overcommit_memory is 2, so every reserved byte of stack would be charged: fibers get "
               "'%s' stacks, which are charged as they are used; a system call may fail with EFAULT when it "
               "writes into such a stack where nothing has been yet, and vm.max_map_count bounds their "
               "number; strategy='arena' is charged in full (culm doctor explains)",
               default_stack_strategy().id()) == 0;
}

// An un-started fiber whose task lies in `room`. Null with an exception set.
PyFiber* make_unstarted(ThreadHost& host, const SpawnArguments& spawned, runtime::Task& room) {
    if (host.closing) {
        PyErr_SetString(PyExc_RuntimeError, "cannot make a fiber: this thread or the interpreter is ending");
        return nullptr;
    }
    if (spawned.strategy == nullptr && !say_once_which_default()) return nullptr;
    PyObject* arguments = nullptr;
    const bool has_keywords = spawned.keywords != nullptr;
    if (spawned.positional_count > 0 || has_keywords) {
        const Py_ssize_t count = spawned.positional_count;
        arguments = PyTuple_New(count + (has_keywords ? 1 : 0));
        if (arguments == nullptr) return nullptr;
        for (Py_ssize_t i = 0; i < count; ++i) PyTuple_SET_ITEM(arguments, i, Py_NewRef(spawned.positional[i]));
        if (has_keywords) PyTuple_SET_ITEM(arguments, count, Py_NewRef(spawned.keywords));
    }
    PyObject* context = nullptr;
    PyFiber* self = inherit_context(host, context) ? PyObject_GC_New(PyFiber, &PyFiber_Type) : nullptr;
    if (self == nullptr) {
        Py_XDECREF(arguments);
        Py_XDECREF(context);
        return nullptr;
    }
    room = runtime::Task{.body = run_body,
                         .argument = context,
                         .stack_class = spawned.size_class,
                         .strategy = spawned.strategy,
                         .id = runtime::new_fiber_id(),
                         .host = self,
                         .host_stack_bytes = host_stack_bytes()};
    self->weak_references = nullptr;
    self->fiber = nullptr;
    self->function = Py_NewRef(spawned.function);
    self->arguments = arguments;
    self->name = Py_XNewRef(spawned.name);
    self->task = &room;
    self->exception = nullptr;
    self->has_keywords = has_keywords;
    self->discarded = false;
    self->holds_scheduled = false;
    self->outcome_taken = true;
    self->lost_in_fork = false;
    self->told_to_exit = false;
    self->left_at_exit = false;
    PyObject_GC_Track(as_object(self));
    return self;
}

// Makes the task's fiber. False with an OSError set; nothing has changed then.
bool make_fiber_of_task(ThreadHost& host, PyFiber* self) {
    auto made = host.scheduler->new_fiber(*self->task);
    if (!made) {
        raise_error(made.error());
        return false;
    }
    self->fiber = made.value();
    self->value = nullptr;
    return true;
}

}  // namespace

PyFiber* new_fiber(ThreadHost& host, const SpawnArguments& arguments) {
    void* const room = PyMem_Malloc(sizeof(runtime::Task));
    if (room == nullptr) {
        PyErr_NoMemory();
        return nullptr;
    }
    PyFiber* self = make_unstarted(host, arguments, *new (room) runtime::Task());
    if (self == nullptr) PyMem_Free(room);
    return self;
}

PyFiber* spawn_fiber(ThreadHost& host, const SpawnArguments& arguments) {
    runtime::Task task;  // started before this returns: it needs no longer life
    PyFiber* self = make_unstarted(host, arguments, task);
    if (self == nullptr) return nullptr;
    if (make_fiber_of_task(host, self)) {
        start_promised_fiber(host, self);
        return self;
    }
    Py_XDECREF(static_cast<PyObject*>(task.argument));
    self->task = nullptr;
    self->discarded = true;
    Py_DECREF(as_object(self));
    return nullptr;
}

PyFiber* new_main_fiber(ThreadHost& host) {
    PyFiber* self = PyObject_GC_New(PyFiber, &PyFiber_Type);
    if (self == nullptr) return nullptr;
    self->weak_references = nullptr;
    self->fiber = &host.scheduler->main_fiber();
    self->function = nullptr;
    self->arguments = nullptr;
    self->name = PyUnicode_InternFromString("main");
    self->value = nullptr;
    self->exception = nullptr;
    self->has_keywords = false;
    self->discarded = false;
    self->holds_scheduled = true;
    self->outcome_taken = true;
    self->lost_in_fork = false;
    self->told_to_exit = false;
    self->left_at_exit = false;
    self->fiber->retain();
    self->fiber->host = self;
    PyObject_GC_Track(as_object(self));
    return self;
}

bool promise_fiber(ThreadHost& host, PyFiber* self) {
    runtime::Task* const task = self->task;
    if (!make_fiber_of_task(host, self)) return false;
    PyMem_Free(task);
    return true;
}

void start_promised_fiber(ThreadHost& host, PyFiber* self) {
    hold_scheduled(self);
    host.scheduler->start(*self->fiber);
}

void discard_unstarted_fiber(PyFiber* self) {
    self->discarded = true;
    raise_cancelled(self);
    self->exception = take_raised_instance();
    runtime::Scheduler::forget_task(self->task->id);
    Py_CLEAR(self->arguments);
    Py_XDECREF(static_cast<PyObject*>(std::exchange(self->task->argument, nullptr)));
}

namespace {

void inject_exit(PyFiber* self) {
    PyErr_SetNone(FiberExit);
    PyObject* before = self->exception;
    self->exception = take_raised_instance();
    Py_XDECREF(before);
    self->told_to_exit = true;
    hold_scheduled(self);
}

}  // namespace

void unwind_fiber(ThreadHost& host, PyFiber* self) {
    inject_exit(self);
    host.scheduler->run_now(*self->fiber);
    flush_drops(host);
}

void end_fiber_soon(PyFiber* self) {
    inject_exit(self);
    if (runtime::Scheduler::cancel(*self->fiber)) return;
    // Its thread has ended, and it stays where it is.
    self->holds_scheduled = false;
    Py_DECREF(as_object(self));
}

void give_up_fiber(ThreadHost& host, PyFiber* self, PyObject* failure) {
    host.scheduler->abandon(*self->fiber);
    interpreter::abandon(saved_state(host, *self->fiber));
    if (failure != nullptr) raise_instance(failure);
    record_outcome(self, nullptr);
    Py_CLEAR(self->arguments);
    forget_dummy_thread(self);
    if (!self->holds_scheduled) return;
    self->holds_scheduled = false;
    drop_later(*thread_host, as_object(self));
}

void report_untaken(PyFiber* self) {
    if (self->outcome_taken) return;
    self->outcome_taken = true;
    untaken().erase(self);
    PyObject* pending = PyErr_Occurred() ? take_raised_instance() : nullptr;
    raise_instance(Py_NewRef(self->exception));
    PyErr_WriteUnraisable(as_object(self));
    if (pending != nullptr) raise_instance(pending);
}

void report_all_untaken() {
    while (!untaken().empty()) {
        PyFiber* self = *untaken().begin();
        Py_INCREF(as_object(self));
        report_untaken(self);
        Py_DECREF(as_object(self));
    }
}

void forget_untaken(PyFiber* self) noexcept {
    if (!self->outcome_taken) untaken().erase(self);
}

}  // namespace culm::extension
