// The type object of culm.Fiber: construction, attributes, garbage collection, finalization.
//
// Invariant: frames of a fiber are traversed only while they are saved (suspended()), never while live in a thread
// state.
#include "fiber_type.hpp"

#include "arguments.hpp"
#include "errors.hpp"

namespace culm::extension {

using runtime::Fiber;
using runtime::FiberState;

namespace {

PyObject* fiber_vectorcall(PyObject*, PyObject* const* args, size_t flags_and_count, PyObject* names) {
    ThreadHost* host = ensure_thread_host();
    if (host == nullptr) return nullptr;
    SpawnArguments parsed;
    if (!parse_spawn_arguments("Fiber", args, PyVectorcall_NARGS(flags_and_count), names, parsed)) return nullptr;
    PyFiber* self = new_fiber(*host, parsed);
    Py_XDECREF(parsed.keywords);
    return reinterpret_cast<PyObject*>(self);
}

int traverse(PyObject* object, visitproc visit, void* arg) {
    PyFiber* self = as_fiber(object);
    Py_VISIT(self->function);
    Py_VISIT(self->arguments);
    Py_VISIT(start_context(self));
    Py_VISIT(self->exception);
    if (self->fiber == nullptr) return 0;
    Py_VISIT(self->value);
    Py_VISIT(static_cast<PyObject*>(self->fiber->value_sent()));
    Py_VISIT(static_cast<PyObject*>(self->fiber->value_of_permit()));
    if (!suspended(self)) return 0;
    return interpreter::traverse(saved_state(*self->fiber), visit, arg);
}

// Only what the object itself holds: the frames of a suspended fiber are released by unwinding it.
int clear(PyObject* object) {
    PyFiber* self = as_fiber(object);
    Py_CLEAR(self->function);
    Py_CLEAR(self->arguments);
    Py_CLEAR(self->exception);
    if (self->fiber == nullptr) {
        if (self->task != nullptr) Py_XDECREF(static_cast<PyObject*>(std::exchange(self->task->argument, nullptr)));
    } else {
        Py_CLEAR(self->value);
    }
    return 0;
}

// Suspended in park() or switch(), which an exception ends at once.
bool is_waiting_for_unpark(const PyFiber* self) noexcept {
    return self->fiber->state() == FiberState::kParked && self->fiber->wait_kind() == runtime::WaitKind::kPermit;
}

// Nobody refers to the suspended fiber any more. It is unwound at once if this is its thread and a switch is possible.
// Otherwise its own thread unwinds it when it comes to it, and until then the fiber keeps itself alive.
void unwind_unreachable(PyFiber* self) {
    const runtime::Scheduler& owner = self->fiber->scheduler();
    const bool is_here = thread_host != nullptr && thread_host->scheduler == &owner;
    if (!is_here && self->told_to_exit) return;  // it is cleaning up, and must not be interrupted in that
    if (!is_here || owner.at_work() || !is_waiting_for_unpark(self)) return end_fiber_soon(self);
    unwind_fiber(*thread_host, self);
}

void finalize(PyObject* object) {
    PyFiber* self = as_fiber(object);
    PyObject* pending = PyErr_Occurred() ? take_raised_instance() : nullptr;
    if (!self->outcome_taken) report_untaken(self);
    if (suspended(self) && !self->lost_in_fork && interpreter::may_run_python()) unwind_unreachable(self);
    if (pending != nullptr) raise_instance(pending);
}

void deallocate(PyObject* object) {
    PyFiber* self = as_fiber(object);
    if (PyObject_CallFinalizerFromDealloc(object) < 0) return;
    PyObject_GC_UnTrack(object);
    if (self->weak_references != nullptr) PyObject_ClearWeakRefs(object);
    forget_untaken(self);
    Fiber* fiber = self->fiber;
    if (suspended(self)) interpreter::abandon(saved_state(*fiber));
    if (fiber != nullptr && fiber->state() == FiberState::kNew) {
        Py_XDECREF(static_cast<PyObject*>(fiber->take_argument()));
        fiber->scheduler().discard(*fiber);
    }
    clear(object);
    Py_CLEAR(self->name);
    if (fiber != nullptr) {
        Py_XDECREF(static_cast<PyObject*>(fiber->take_value_sent()));
        Py_XDECREF(static_cast<PyObject*>(fiber->take_value_of_permit()));
        fiber->host = nullptr;
        fiber->release();
    } else {
        PyMem_Free(self->task);
    }
    PyObject_GC_Del(object);
}

PyObject* represent(PyObject* object) {
    PyFiber* self = as_fiber(object);
    PyObject* label = fiber_label(self);
    if (label == nullptr) return nullptr;
    PyObject* state = PyObject_GetAttrString(object, "state");
    PyObject* text = state == nullptr ? nullptr
                                      : PyUnicode_FromFormat("<culm.Fiber %U id=%llu %U>", label,
                                                             static_cast<unsigned long long>(fiber_id(self)), state);
    Py_DECREF(label);
    Py_XDECREF(state);
    return text;
}

PyObject* get_name(PyObject* object, void*) {
    PyFiber* self = as_fiber(object);
    if (self->name != nullptr) return Py_NewRef(self->name);
    PyObject* name = self->function == nullptr ? nullptr : PyObject_GetAttrString(self->function, "__qualname__");
    if (name != nullptr && PyUnicode_Check(name)) return name;
    Py_XDECREF(name);
    PyErr_Clear();
    return PyUnicode_FromFormat("fiber-%llu", static_cast<unsigned long long>(fiber_id(self)));
}

int set_name(PyObject* object, PyObject* value, void*) {
    if (value == nullptr || !PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "name must be a str, not %.100s", value ? Py_TYPE(value)->tp_name : "deleted");
        return -1;
    }
    Py_XSETREF(as_fiber(object)->name, Py_NewRef(value));
    return 0;
}

PyObject* get_id(PyObject* object, void*) { return PyLong_FromUnsignedLongLong(fiber_id(as_fiber(object))); }

PyObject* get_ident(PyObject* object, void*) {
    const Fiber* fiber = as_fiber(object)->fiber;
    if (fiber == nullptr) Py_RETURN_NONE;
    return PyLong_FromUnsignedLong(fiber->identity());
}

PyObject* get_strategy(PyObject* object, void*) {
    const PyFiber* self = as_fiber(object);
    if (self->fiber != nullptr) return PyUnicode_FromString(stack_strategies()[self->fiber->stack_strategy()]->id());
    return PyUnicode_FromString((self->task->strategy ? *self->task->strategy : default_stack_strategy()).id());
}

PyObject* get_is_main(PyObject* object, void*) {
    const Fiber* fiber = as_fiber(object)->fiber;
    return PyBool_FromLong(fiber != nullptr && fiber->is_main());
}

PyObject* get_state(PyObject* object, void*) {
    static const char* const kNames[] = {"new", "ready", "running", "parked", "finished"};
    const PyFiber* self = as_fiber(object);
    const FiberState state = finished(self)           ? FiberState::kFinished
                             : self->fiber == nullptr ? FiberState::kNew
                                                      : self->fiber->state();
    return PyUnicode_InternFromString(kNames[static_cast<int>(state)]);
}

PyObject* get_waiting_for(PyObject* object, void*) {
    const PyFiber* self = as_fiber(object);
    if (finished(self) || self->fiber == nullptr || self->fiber->state() != FiberState::kParked) Py_RETURN_NONE;
    static const char* const kKinds[] = {"nothing", "unpark", "join", "sleep", "fd", "lock", "queue", "operation"};
    const char* kind = kKinds[static_cast<int>(self->fiber->wait_kind())];
    if (self->fiber->wait_kind() != runtime::WaitKind::kFd) return PyUnicode_FromString(kind);
    return PyUnicode_FromFormat("fd %zd", static_cast<Py_ssize_t>(self->fiber->wait_object()));
}

PyObject* get_frame(PyObject* object, void*) {
    PyFiber* self = as_fiber(object);
    if (finished(self) || self->fiber == nullptr || self->fiber->state() == FiberState::kNew) Py_RETURN_NONE;
    PyObject* frame = nullptr;
    ThreadHost* host = thread_host;
    const bool mine = host != nullptr && host->scheduler == &self->fiber->scheduler();
    if (mine && &host->scheduler->running() == self->fiber) {
        frame = reinterpret_cast<PyObject*>(PyThreadState_GetFrame(host->record.tstate));
    } else if (self->fiber->is_main() && mine) {
        frame = interpreter::suspended_frame(host->record, host->main_state);
    } else if (suspended(self) && host != nullptr) {
        frame = interpreter::suspended_frame(host->record, saved_state(*host, *self->fiber));
    }
    if (frame != nullptr || PyErr_Occurred()) return frame;
    Py_RETURN_NONE;
}

PyObject* traceback(PyObject* object, PyObject*) {
    PyObject* frame = get_frame(object, nullptr);
    if (frame == nullptr) return nullptr;
    PyObject* module = PyImport_ImportModule("culm._traceback");
    PyObject* summary = module == nullptr ? nullptr : PyObject_CallMethod(module, "summarize", "O", frame);
    Py_XDECREF(module);
    Py_DECREF(frame);
    return summary;
}

PyObject* class_getitem(PyObject* type, PyObject*) { return Py_NewRef(type); }

PyObject* start(PyObject* object, PyObject*) {
    PyFiber* self = as_fiber(object);
    ThreadHost* host = ensure_thread_host();
    if (host == nullptr) return nullptr;
    if (!is_unstarted(self)) {
        PyErr_Format(PyExc_RuntimeError, "%R has already been started; a fiber runs once", object);
        return nullptr;
    }
    if (!promise_fiber(*host, self)) return nullptr;
    start_promised_fiber(*host, self);
    Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"start", start, METH_NOARGS,
     "start($self, /)\n--\n\nPuts an un-started fiber at the end of the calling thread's run queue; from then on it "
     "belongs to that thread. Does not park.\n\n"
     "Raises RuntimeError if it was started before, and OSError when address space or mappings run out."},
    {"join", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(fiber_join)), METH_FASTCALL | METH_KEYWORDS,
     "join($self, /, timeout=None)\n--\n\nParks until the fiber has finished, at most timeout seconds.\n\n"
     "Returns True when it has finished, False after the timeout. Does not raise the fiber's exception.\n"
     "Raises RuntimeError for the running fiber itself, ValueError for a negative timeout, Cancelled."},
    {"result", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(fiber_result)), METH_FASTCALL | METH_KEYWORDS,
     "result($self, /, timeout=None)\n--\n\nParks until the fiber has finished and returns what its function "
     "returned.\n\n"
     "Raises what the function raised, Cancelled if it was cancelled, TimeoutError after timeout seconds."},
    {"exception", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(fiber_exception)),
     METH_FASTCALL | METH_KEYWORDS,
     "exception($self, /, timeout=None)\n--\n\nParks until the fiber has finished and returns its exception, or "
     "None.\n\n"
     "Raises TimeoutError after timeout seconds."},
    {"cancel", fiber_cancel, METH_NOARGS,
     "cancel($self, /)\n--\n\nRaises Cancelled in the fiber at the blocking call it is in or comes to next.\n\n"
     "Returns False if it had already finished. Does not park and may be called from any OS thread."},
    {"traceback", traceback, METH_NOARGS,
     "traceback($self, /)\n--\n\nWhere the fiber is: a traceback.StackSummary, outermost call first. Does not park.\n\n"
     "Empty for a fiber that has not started or has finished."},
    {"__class_getitem__", class_getitem, METH_O | METH_CLASS, "Fiber[int] is Fiber: for annotations."},
    {nullptr, nullptr, 0, nullptr}};

PyGetSetDef attributes[] = {
    {"name", get_name, set_name, "The name given to spawn(), else the function's qualified name.", nullptr},
    {"id", get_id, nullptr, "A number that no other fiber of this process has had.", nullptr},
    {"ident", get_ident, nullptr,
     "What threading.get_ident() returns in this fiber after patch(); may be reused after its end. None until it is "
     "started.",
     nullptr},
    {"is_main", get_is_main, nullptr, "True for the OS thread's own flow of control.", nullptr},
    {"state", get_state, nullptr, "'new', 'ready', 'running', 'parked' or 'finished'.", nullptr},
    {"waiting_for", get_waiting_for, nullptr,
     "What a parked fiber waits for: 'unpark', 'join', 'sleep', 'lock', 'queue' or 'fd N'; None if it is not parked.",
     nullptr},
    {"frame", get_frame, nullptr, "The innermost Python frame of the fiber, or None if it has none.", nullptr},
    {"strategy", get_strategy, nullptr, "How its stack is allocated: the name that spawn(strategy=) takes.", nullptr},
    {"stack", fiber_stack, nullptr,
     "StackUse(limit, used, resident, peak) in bytes; used, resident and peak are 0 without a stack.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

}  // namespace

PyObject* fiber_label(PyFiber* self) {
    PyObject* name = get_name(as_object(self), nullptr);
    if (name == nullptr) return nullptr;
    PyObject* label = PyUnicode_FromFormat("%R", name);
    Py_DECREF(name);
    return label;
}

PyTypeObject PyFiber_Type = {PyVarObject_HEAD_INIT(nullptr, 0)};

bool ready_fiber_type(PyObject* module) {
    PyTypeObject& type = PyFiber_Type;
    type.tp_name = "culm.Fiber";
    type.tp_doc =
        "Fiber(fn, *args, name=None, stack_limit=None, strategy=None, **kwargs)\n--\n\n"
        "A green thread on a C stack of its own. Calling the type makes an un-started one, which any OS thread may "
        "start; spawn() makes and starts it.\n\n"
        "stack_limit: bytes its stack may grow to, rounded up to a size class; None is 10 MB.\n"
        "strategy: how its stack is allocated: 'arena', 'mmap', 'fault-handler' or 'malloc'; None is 'arena', or "
        "'fault-handler' under strict overcommit.\n"
        "Raises TypeError and ValueError. Does not park.";
    type.tp_basicsize = sizeof(PyFiber);
    type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC;
    type.tp_weaklistoffset = offsetof(PyFiber, weak_references);
    type.tp_dealloc = deallocate;
    type.tp_finalize = finalize;
    type.tp_traverse = traverse;
    type.tp_clear = clear;
    type.tp_repr = represent;
    type.tp_methods = methods;
    type.tp_getset = attributes;
    type.tp_vectorcall = fiber_vectorcall;
    type.tp_new = nullptr;
    if (PyType_Ready(&type) < 0) return false;
    return PyModule_AddObjectRef(module, "Fiber", reinterpret_cast<PyObject*>(&type)) == 0;
}

}  // namespace culm::extension
