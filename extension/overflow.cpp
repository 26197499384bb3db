// culm.StackOverflowError: the RecursionError of a fiber that has run into its yellow zone.
//
// The fault handler arms the bare class; the evaluation loop constructs it, which is when the message is made. From
// then on the zone is to be closed as soon as the stack has shrunk: when the exception goes, which is usually soon
// after it was caught; at a pending call, which the evaluation loop makes while the stack is being unwound, for
// exceptions that are kept; and wherever the runtime calls settle_overflow(). Invariant: what the fault handler calls
// touches no reference count and runs no Python.
#include "overflow.hpp"

#include "culm/overflow.hpp"
#include "culm/runtime/yellow_zone.hpp"
#include "errors.hpp"
#include "fiber_type.hpp"
#include "undertaker.hpp"

namespace culm::extension {

using runtime::Fiber;

namespace {

PyObject* overflow_type = nullptr;
// RecursionError, and what it did before add_stack_overflow().
PyTypeObject* base_type = nullptr;
initproc base_initialize = nullptr;
destructor base_deallocate = nullptr;

// --- in the fault handler ---

bool overflown(Fiber& fiber, bool again) {
    ThreadHost* host = thread_host;
    if (host == nullptr || fiber.is_main()) return false;
    interpreter::overflow_soon(host->record, saved_state(*host, fiber), again);
    return true;
}

// --- at a switch ---

bool pending(Fiber& fiber) {
    ThreadHost& host = *thread_host;
    return interpreter::overflow_pending(host.record, saved_state(host, fiber));
}

void leaves(Fiber& fiber) {
    ThreadHost& host = *thread_host;
    interpreter::overflow_leaves(host.record, saved_state(host, fiber));
}

void returns(Fiber& fiber) {
    ThreadHost& host = *thread_host;
    interpreter::overflow_returns(host.record, saved_state(host, fiber));
}

void ended(Fiber& fiber) {
    ThreadHost& host = *thread_host;
    interpreter::overflow_ended(host.record, saved_state(host, fiber));
}

// --- the exception ---

// How often settle_again() may find that the stack has not shrunk, from the construction of an exception on. A program
// that never lets its stack shrink must not be slowed down for good.
constexpr int kTriesMax = 10'000;
thread_local int tries_left = 0;

// A pending call: closes the zone of the running fiber if its stack has shrunk, else asks to be called again. The
// evaluation loop of whichever thread comes first makes it; on a thread without fibers there is nothing to do.
int settle_again(void*) {
    ThreadHost* host = thread_host;
    if (host == nullptr) return 0;
    Fiber& fiber = host->scheduler->running();
    interpreter::overflow_raised(saved_state(*host, fiber));
    runtime::settle_overflow(fiber);
    if (!runtime::has_overflown(fiber) || --tries_left <= 0) return 0;
    (void)interpreter::call_soon(host->record, settle_again, nullptr);
    return 0;
}

void settle_soon(ThreadHost& host) {
    tries_left = kTriesMax;
    (void)interpreter::call_soon(host.record, settle_again, nullptr);
}

PyObject* message_for(PyFiber* self) {
    PyObject* label = fiber_label(self);
    if (label == nullptr) return nullptr;
    const std::size_t limit_bytes = stack_limit_bytes(self->fiber->stack_class());
    PyObject* message = PyUnicode_FromFormat(
        "fiber %U ran out of stack: limit %zu bytes; spawn it with a larger stack_limit=, or recurse less", label,
        limit_bytes);
    Py_DECREF(label);
    return message;
}

// StackOverflowError() without arguments, in a fiber that has just overflown, is the exception of that overflow: it
// gets the message of one. Any other is constructed as every exception is.
PyObject* construct(PyTypeObject* type, PyObject* arguments, PyObject* keywords) {
    ThreadHost* host = thread_host;
    const bool is_bare = PyTuple_GET_SIZE(arguments) == 0 && keywords == nullptr;
    PyFiber* self = is_bare && host != nullptr ? running_fiber(*host) : nullptr;
    if (self == nullptr || !interpreter::overflow_delivered(host->record, saved_state(*host, *self->fiber))) {
        return base_type->tp_new(type, arguments, keywords);
    }
    settle_soon(*host);
    PyObject* message = message_for(self);
    PyObject* with_message = message == nullptr ? nullptr : PyTuple_Pack(1, message);
    Py_XDECREF(message);
    if (with_message == nullptr) return nullptr;
    PyObject* made = base_type->tp_new(type, with_message, nullptr);
    Py_DECREF(with_message);
    return made;
}

// construct() has put the message into `args`. To initialize with no arguments would take it out again.
int initialize(PyObject* self, PyObject* arguments, PyObject* keywords) {
    if (PyTuple_GET_SIZE(arguments) == 0 && keywords == nullptr) return 0;
    return base_initialize(self, arguments, keywords);
}

void settle() noexcept {
    if (thread_host != nullptr) runtime::settle_overflow(thread_host->scheduler->running());
}

// An exception has gone.
void settle_after_one() noexcept {
    ThreadHost* host = thread_host;
    if (host == nullptr) return;
    interpreter::overflow_raised(saved_state(*host, host->scheduler->running()));
    settle();
}

void deallocate(PyObject* self) {
    PyTypeObject* type = Py_TYPE(self);
    base_deallocate(self);
    Py_DECREF(type);
    settle_after_one();
}

// --- RecursionError itself ---

// A RecursionError that the interpreter raises by itself may stand for an overflow: then it gets the message of one.
int initialize_recursion_error(PyObject* self, PyObject* arguments, PyObject* keywords) {
    ThreadHost* host = thread_host;
    PyFiber* fiber = host != nullptr && Py_IS_TYPE(self, base_type) ? running_fiber(*host) : nullptr;
    if (fiber == nullptr || fiber->fiber->is_main()) return base_initialize(self, arguments, keywords);
    interpreter::SavedState& state = saved_state(*host, *fiber->fiber);
    // First what takes more stack: if the yellow zone begins in there, this exception still stands for that overflow.
    settle_soon(*host);
    const bool stands_for_one =
        interpreter::overflow_replaced(host->record, state, runtime::has_overflown(*fiber->fiber));
    if (!stands_for_one) return base_initialize(self, arguments, keywords);
    settle();
    PyObject* message = message_for(fiber);
    PyObject* with_message = message == nullptr ? nullptr : PyTuple_Pack(1, message);
    Py_XDECREF(message);
    if (with_message == nullptr) return -1;
    const int result = base_initialize(self, with_message, keywords);
    Py_DECREF(with_message);
    return result;
}

void deallocate_recursion_error(PyObject* self) {
    base_deallocate(self);
    settle_after_one();
}

constexpr const char* kDocumentation =
    "Raised in a fiber that has used up its stack, at the next check of the evaluation loop.\n\n"
    "A RecursionError. The fiber may go on: its stack is whole again once the exception has been handled.";

PyType_Slot slots[] = {{Py_tp_new, reinterpret_cast<void*>(construct)},
                       {Py_tp_init, reinterpret_cast<void*>(initialize)},
                       {Py_tp_dealloc, reinterpret_cast<void*>(deallocate)},
                       {Py_tp_doc, const_cast<char*>(kDocumentation)},
                       {0, nullptr}};
PyType_Spec spec = {.name = "culm.StackOverflowError",
                    .basicsize = 0,  // the base's
                    .itemsize = 0,
                    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                    .slots = slots};

}  // namespace

bool add_stack_overflow(PyObject* module) {
    base_type = reinterpret_cast<PyTypeObject*>(PyExc_RecursionError);
    base_initialize = base_type->tp_init;
    base_deallocate = base_type->tp_dealloc;
    PyObject* type = PyType_FromSpecWithBases(&spec, PyExc_RecursionError);
    if (type == nullptr) return false;
    base_type->tp_vectorcall = nullptr;  // of 3.14, which leaves tp_init out
    base_type->tp_init = initialize_recursion_error;
    base_type->tp_dealloc = deallocate_recursion_error;
    interpreter::set_overflow_exception(type);
    overflow_type = type;
    return PyModule_AddObjectRef(module, "StackOverflowError", type) == 0;  // this reference is kept, too
}

void trace_overflown(const Fiber&) {
    if (thread_host != nullptr) interpreter::write_running_frames(thread_host->record);
}

PyObject* make_stack_overflow(PyFiber* self) {
    PyObject* message = message_for(self);
    PyObject* made = message == nullptr ? nullptr : PyObject_CallOneArg(overflow_type, message);
    Py_XDECREF(message);
    return made;
}

PyObject* remove_fault_handler(PyObject*, PyObject*) { return PyBool_FromLong(remove_overflow_handler()); }

PyObject* install_fault_handler(PyObject*, PyObject*) {
    if (const Result<void> installed = install_overflow_handler(StackOwner{}); !installed) {
        return raise_error(installed.error());
    }
    Py_RETURN_NONE;
}

runtime::Overflows overflow_roles() noexcept {
    return {.begins = overflown,
            .is_pending = pending,
            .leaves = leaves,
            .returns = returns,
            .ended = ended,
            .make_undertaker = make_undertaker,
            .let_undertaker_go = let_undertaker_go,
            .bury = bury};
}

}  // namespace culm::extension
