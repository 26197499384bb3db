// A fiber from creation to its end: made, started, run, unwound, its outcome recorded and, if nobody asks, reported.
//
// Invariant: when a fiber's body returns to the runtime, its interpreter state owns nothing and its outcome is
// recorded.
#include <unordered_set>

#include "culm/strategy_pool.hpp"
#include "errors.hpp"
#include "fiber_type.hpp"
#include "fork.hpp"
#include "stack_sites.hpp"
#include "switch_hooks.hpp"

namespace culm::extension {

using runtime::Fiber;
using runtime::FiberState;

namespace {

// Finished with an exception nobody has asked for. Weak: forget_untaken() when the object goes.
std::unordered_set<PyFiber*>& untaken() {
    static auto* set = new std::unordered_set<PyFiber*>;  // outlives static destruction: objects may die late
    return *set;
}

bool is_silent_end(PyObject* exception) {
    return PyErr_GivenExceptionMatches(exception, Cancelled) || PyErr_GivenExceptionMatches(exception, FiberExit) ||
           PyErr_GivenExceptionMatches(exception, PyExc_SystemExit);
}

// What C code made of ECANCELED ended the fiber before the evaluation loop could raise Cancelled: it was cancelled all
// the same.
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

void record_outcome(PyFiber* self, PyObject* result) {
    Py_CLEAR(self->value);
    Py_CLEAR(self->exception);
    if (result != nullptr) {
        self->value = result;
        return;
    }
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
    if (active_threads == nullptr || !self->fiber->identity_asked) return;
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
    release_remote_waiters(self);
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
    if (said || strategy_index(default_stack_strategy()) == kArenaIndex) return true;
    said = true;
    return PyErr_WarnFormat(
               PyExc_RuntimeWarning, 1,
               "vm.overcommit_memory is 2, so every reserved byte of stack would be charged: fibers get "
               "'%s' stacks, which are charged as they are used; a system call may fail with EFAULT when it "
               "writes into such a stack where nothing has been yet, and vm.max_map_count bounds their "
               "number; strategy='arena' is charged in full (culm doctor explains)",
               default_stack_strategy().id()) == 0;
}

}  // namespace

PyFiber* new_fiber(ThreadHost& host, PyObject* function, PyObject* const* positional, Py_ssize_t positional_count,
                   PyObject* keywords, PyObject* name, StackClass size_class, const StackStrategy* strategy) {
    if (host.closing) {
        PyErr_SetString(PyExc_RuntimeError, "cannot make a fiber: this thread or the interpreter is ending");
        return nullptr;
    }
    if (strategy == nullptr && !say_once_which_default()) return nullptr;
    PyObject* arguments = nullptr;
    const bool has_keywords = keywords != nullptr;
    if (positional_count > 0 || has_keywords) {
        arguments = PyTuple_New(positional_count + (has_keywords ? 1 : 0));
        if (arguments == nullptr) return nullptr;
        for (Py_ssize_t i = 0; i < positional_count; ++i) PyTuple_SET_ITEM(arguments, i, Py_NewRef(positional[i]));
        if (has_keywords) PyTuple_SET_ITEM(arguments, positional_count, Py_NewRef(keywords));
    }
    PyObject* context = nullptr;
    if (!inherit_context(host, context)) {
        Py_XDECREF(arguments);
        return nullptr;
    }
    auto fiber = host.scheduler->new_fiber(run_body, context, size_class, strategy);
    if (!fiber) {
        Py_XDECREF(arguments);
        Py_XDECREF(context);
        raise_error(fiber.error());
        return nullptr;
    }
    PyFiber* self = PyObject_GC_New(PyFiber, &PyFiber_Type);
    if (self == nullptr) {
        Py_XDECREF(arguments);
        Py_XDECREF(context);
        host.scheduler->discard(*fiber.value());
        fiber.value()->release();
        return nullptr;
    }
    self->weak_references = nullptr;
    self->fiber = fiber.value();
    self->function = Py_NewRef(function);
    self->arguments = arguments;
    self->name = Py_XNewRef(name);
    self->value = nullptr;
    self->exception = nullptr;
    self->has_keywords = has_keywords;
    self->holds_scheduled = false;
    self->outcome_taken = true;
    self->lost_in_fork = false;
    self->told_to_exit = false;
    self->left_at_exit = false;
    self->fiber->host = self;
    self->fiber->host_stack_bytes = host_stack_bytes();
    PyObject_GC_Track(as_object(self));
    return self;
}

PyFiber* new_main_fiber(ThreadHost& host) {
    PyFiber* self = PyObject_GC_New(PyFiber, &PyFiber_Type);
    if (self == nullptr) return nullptr;
    *reinterpret_cast<PyFiber*>(self) = PyFiber{.ob_base = self->ob_base,
                                                .weak_references = nullptr,
                                                .fiber = &host.scheduler->main_fiber(),
                                                .function = nullptr,
                                                .arguments = nullptr,
                                                .name = PyUnicode_InternFromString("main"),
                                                .value = nullptr,
                                                .exception = nullptr,
                                                .has_keywords = false,
                                                .holds_scheduled = true,
                                                .outcome_taken = true,
                                                .lost_in_fork = false,
                                                .told_to_exit = false,
                                                .left_at_exit = false};
    self->fiber->retain();
    self->fiber->host = self;
    PyObject_GC_Track(as_object(self));
    return self;
}

void start_fiber(ThreadHost& host, PyFiber* self) {
    hold_scheduled(self);
    host.scheduler->start(*self->fiber);
}

void discard_new_fiber(ThreadHost& host, PyFiber* self) {
    host.scheduler->discard(*self->fiber);
    raise_cancelled(self);
    self->exception = take_raised_instance();
    Py_CLEAR(self->value);
    Py_CLEAR(self->arguments);
    Py_XDECREF(take_start_context(self));
    release_remote_waiters(self);
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

void end_fiber_soon(ThreadHost& host, PyFiber* self) {
    inject_exit(self);
    host.scheduler->cancel(*self->fiber);
}

void give_up_fiber(ThreadHost& host, PyFiber* self, PyObject* failure) {
    host.scheduler->abandon(*self->fiber);
    interpreter::abandon(saved_state(host, *self->fiber));
    if (failure != nullptr) raise_instance(failure);
    record_outcome(self, nullptr);
    Py_CLEAR(self->arguments);
    release_remote_waiters(self);
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
