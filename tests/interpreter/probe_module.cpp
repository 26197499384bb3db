// The Python side of the probe: its type and a few functions that look at what the interpreter layer did.
#include "interpreter/overflow_raise.hpp"
#include "probe.hpp"

#include <chrono>

namespace culm::probe {

namespace {

PyProbe* as_probe(PyObject* object) { return reinterpret_cast<PyProbe*>(object); }

PyObject* probe_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
    static const char* names[] = {"function", "stack_bytes", "context", "identity", nullptr};
    PyObject *function, *context = nullptr;
    Py_ssize_t stack_bytes = 256 << 10;
    unsigned long identity = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|nOk", const_cast<char**>(names), &function, &stack_bytes,
                                     &context, &identity)) {
        return nullptr;
    }
    const Result<StackClass> size_class = stack_class_for(static_cast<std::size_t>(stack_bytes));
    if (!size_class) return PyErr_Format(PyExc_ValueError, "no stack class for %zd bytes", stack_bytes);
    Host* current = host();
    if (current == nullptr) return nullptr;
    auto* self = as_probe(type->tp_alloc(type, 0));
    if (self == nullptr) return nullptr;
    new (&self->context) Context;
    self->stack = Stack{};
    self->function = Py_NewRef(function);
    self->inherited = Py_XNewRef(context);
    self->identity = identity != 0 ? identity : current->record.identity;
    self->size_class = const_cast<Result<StackClass>&>(size_class).value();
    self->phase = Phase::kFresh;
    return reinterpret_cast<PyObject*>(self);
}

int traverse(PyObject* object, visitproc visit, void* arg) {
    PyProbe* self = as_probe(object);
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->function);
    Py_VISIT(self->inherited);
    Py_VISIT(self->transferred);
    Py_VISIT(self->exception);
    return self->phase == Phase::kSuspended ? interpreter::traverse(*self->state, visit, arg) : 0;
}

int clear(PyObject* object) {
    PyProbe* self = as_probe(object);
    Py_CLEAR(self->function);
    Py_CLEAR(self->inherited);
    Py_CLEAR(self->transferred);
    Py_CLEAR(self->exception);
    return 0;
}

// Unwinds a parked probe that nothing refers to any more.
void finalize(PyObject* object) {
    PyProbe* self = as_probe(object);
    if (self->phase != Phase::kSuspended || self->waits_for_resumed || !interpreter::may_run_python()) return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject* exit = PyObject_CallNoArgs(ProbeExit);
    PyObject* result = exit == nullptr ? nullptr : throw_into(self, exit);
    if (result == nullptr && !PyErr_ExceptionMatches(ProbeExit)) PyErr_WriteUnraisable(object);
    PyErr_Clear();
    Py_XDECREF(exit);
    Py_XDECREF(result);
    PyErr_Restore(type, value, traceback);
}

void dealloc(PyObject* object) {
    if (PyObject_CallFinalizerFromDealloc(object) != 0) return;
    PyObject_GC_UnTrack(object);
    if (as_probe(object)->phase == Phase::kSuspended) Py_XDECREF(abandon(as_probe(object)));
    clear(object);
    PyTypeObject* type = Py_TYPE(object);
    type->tp_free(object);
    Py_DECREF(type);
}

PyObject* method_resume(PyObject* self, PyObject* args) {
    PyObject* value = Py_None;
    return PyArg_ParseTuple(args, "|O", &value) ? resume(as_probe(self), value) : nullptr;
}
PyObject* method_throw(PyObject* self, PyObject* exception) { return throw_into(as_probe(self), exception); }
PyObject* method_abandon(PyObject* self, PyObject*) { return abandon(as_probe(self)); }

PyObject* method_frame(PyObject* object, PyObject*) {
    PyProbe* self = as_probe(object);
    if (self->phase != Phase::kSuspended) Py_RETURN_NONE;
    PyObject* frame = interpreter::suspended_frame(host()->record, *self->state);
    if (frame == nullptr && PyErr_Occurred() == nullptr) Py_RETURN_NONE;
    return frame;
}

PyObject* get_phase(PyObject* self, void*) {
    static const char* const names[] = {"fresh", "suspended", "running", "finished", "abandoned"};
    return PyUnicode_FromString(names[static_cast<int>(as_probe(self)->phase)]);
}

PyObject* function_park(PyObject*, PyObject* args) {
    PyObject* value = Py_None;
    return PyArg_ParseTuple(args, "|O", &value) ? park(value) : nullptr;
}

PyObject* function_raise_soon(PyObject*, PyObject* exception) {
    Host* current = host();
    if (current == nullptr) return nullptr;
    interpreter::SavedState& state = current->running ? *current->running->state : current->main_state;
    interpreter::raise_soon(current->record, state, exception == Py_None ? nullptr : exception);
    Py_RETURN_NONE;
}

PyObject* main_thread_identity(PyObject*, PyObject*) {
    return PyLong_FromUnsignedLong(*host()->record.main_thread_slot);
}
PyObject* signal_tripped(PyObject*, PyObject*) { return PyBool_FromLong(interpreter::signal_tripped()); }
PyObject* budget(PyObject*, PyObject* bytes) {
    return PyLong_FromSize_t(interpreter::c_recursion_budget(PyLong_AsSize_t(bytes)));
}
PyObject* chunk_cache_statistics(PyObject*, PyObject*) {
    const interpreter::ChunkCacheStatistics statistics = interpreter::chunk_cache_statistics();
    return Py_BuildValue("{sNsnsnsn}", "installed", PyBool_FromLong(statistics.installed), "hits", statistics.hits,
                         "misses", statistics.misses, "cached", statistics.cached);
}

// Nanoseconds of one switch_state, from the main flow's words to a parked probe's and back.
PyObject* time_switch_state(PyObject*, PyObject* args) {
    PyObject* object;
    Py_ssize_t rounds;
    if (!PyArg_ParseTuple(args, "On", &object, &rounds)) return nullptr;
    Host& current = *host();
    interpreter::SavedState& parked = *as_probe(object)->state;
    const auto start = std::chrono::steady_clock::now();
    for (Py_ssize_t i = 0; i < rounds; ++i) {
        interpreter::switch_state(current.record, current.main_state, parked);
        interpreter::switch_state(current.record, parked, current.main_state);
    }
    const std::chrono::duration<double, std::nano> passed = std::chrono::steady_clock::now() - start;
    return PyFloat_FromDouble(passed.count() / static_cast<double>(2 * rounds));
}

PyMethodDef methods[] = {{"resume", method_resume, METH_VARARGS, "Continue until it parks or ends."},
                         {"throw", method_throw, METH_O, "Raise an exception in it."},
                         {"abandon", method_abandon, METH_NOARGS, "Drop it without unwinding."},
                         {"frame", method_frame, METH_NOARGS, "Its innermost frame while suspended."},
                         {}};
PyGetSetDef properties[] = {{"phase", get_phase, nullptr, "What it is doing.", nullptr}, {}};
PyType_Slot slots[] = {{Py_tp_new, reinterpret_cast<void*>(probe_new)},
                       {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                       {Py_tp_clear, reinterpret_cast<void*>(clear)},
                       {Py_tp_finalize, reinterpret_cast<void*>(finalize)},
                       {Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
                       {Py_tp_methods, methods},
                       {Py_tp_getset, properties},
                       {}};
PyType_Spec spec = {"_interpreter_probe.Fiber", sizeof(PyProbe), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots};

// recursion_taken([step, ...]): applies the steps to the C recursion that is left and returns what is left then, less
// what was left before; None where it is not counted. Steps: "take", "give", or a number to count by, or ("overwrite",
// number) for a count that was in the making when it was taken.
PyObject* recursion_taken(PyObject*, PyObject* steps) {
    PyThreadState* tstate = PyThreadState_Get();
    int* left = interpreter::c_recursion_left(tstate);
    if (left == nullptr) Py_RETURN_NONE;
    const int before = *left;
    interpreter::OverflowRaise raise;
    raise.units_at_bottom = before + 10;  // as if ten levels above the bottom
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(steps); ++i) {
        PyObject* step = PyList_GET_ITEM(steps, i);
        if (PyLong_Check(step)) {
            *left += static_cast<int>(PyLong_AsLong(step));
        } else if (PyTuple_Check(step)) {
            *left = before + static_cast<int>(PyLong_AsLong(PyTuple_GET_ITEM(step, 1)));
        } else if (PyUnicode_CompareWithASCIIString(step, "take") == 0) {
            interpreter::take_recursion(tstate, raise);
        } else {
            interpreter::give_back_recursion(tstate, raise);
        }
    }
    const int difference = *left - before;
    *left = before;
    return PyLong_FromLong(difference);
}

PyMethodDef functions[] = {
    {"park", function_park, METH_VARARGS, "Suspend the running fiber."},
    {"raise_soon", function_raise_soon, METH_O, "Exception for the running fiber, or None."},
    {"main_thread_identity", main_thread_identity, METH_NOARGS, "What the runtime believes."},
    {"signal_tripped", signal_tripped, METH_NOARGS, "A signal waits for its handler."},
    {"c_recursion_budget", budget, METH_O, "Units for a stack of so many bytes."},
    {"recursion_taken", recursion_taken, METH_O, "What steps of taking and giving leave."},
    {"chunk_cache_statistics", chunk_cache_statistics, METH_NOARGS, "The cache of data-stack chunks."},
    {"time_switch_state", time_switch_state, METH_VARARGS, "Nanoseconds of a switch_state."},
    {}};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_interpreter_probe", nullptr, -1, functions, nullptr, nullptr, nullptr, nullptr};

}  // namespace

}  // namespace culm::probe

PyMODINIT_FUNC PyInit__interpreter_probe() {
    using namespace culm::probe;
    if (!culm::interpreter::initialize()) return nullptr;
    PyObject* module = PyModule_Create(&definition);
    if (module == nullptr) return nullptr;
    ProbeExit = PyErr_NewException("_interpreter_probe.ProbeExit", PyExc_BaseException, nullptr);
    PyObject* type = PyType_FromSpec(&spec);
    if (ProbeExit == nullptr || type == nullptr || PyModule_AddObjectRef(module, "ProbeExit", ProbeExit) < 0 ||
        PyModule_AddObjectRef(module, "Fiber", type) < 0) {
        Py_DECREF(module);
        return nullptr;
    }
    return module;
}
