// The interpreter exports no function that instruments a code object. Turning the tracing of opcodes on or off for a
// frame does so as a side effect, by public attributes; a frame made for this purpose leaves the program's alone.
#include "interpreter/instrumentation.hpp"

#include <frameobject.h>
#include <internal/pycore_instruments.h>

namespace culm::interpreter {

namespace {

std::uint32_t version_of(const PyCodeObject* code) noexcept {
    return static_cast<std::uint32_t>(code->_co_instrumentation_version >> _PY_EVAL_EVENTS_BITS);
}

bool traces_opcodes(const PyCodeObject* code) noexcept {
    const _PyCoMonitoringData* data = code->_co_monitoring;
    if (data == nullptr) return false;
    return ((data->local_monitors.tools[PY_MONITORING_EVENT_INSTRUCTION] >> PY_MONITORING_SYS_TRACE_ID) & 1) != 0;
}

// False: an exception is set.
bool rewrite(PyThreadState* tstate, PyCodeObject* code, PyObject* globals) noexcept {
    auto* frame = reinterpret_cast<PyObject*>(PyFrame_New(tstate, code, globals, nullptr));
    if (frame == nullptr) return false;
    PyObject* now = traces_opcodes(code) ? Py_True : Py_False;
    PyObject* otherwise = now == Py_True ? Py_False : Py_True;
    // Opcodes are traced only in a frame that has a trace function; this one is never called.
    const bool rewritten = PyObject_SetAttrString(frame, "f_trace", Py_True) == 0 &&
                           PyObject_SetAttrString(frame, "f_trace_opcodes", otherwise) == 0 &&
                           PyObject_SetAttrString(frame, "f_trace_opcodes", now) == 0;
    Py_DECREF(frame);
    return rewritten;
}

}  // namespace

void rewrite_stale_code(PyThreadState* tstate) noexcept {
    PyObject* pending = PyErr_GetRaisedException();
    PyObject* globals = PyDict_New();
    bool has_memory = globals != nullptr;
    for (_PyInterpreterFrame* frame = tstate->current_frame; has_memory && frame != nullptr; frame = frame->previous) {
        if (frame->owner != FRAME_OWNED_BY_THREAD && frame->owner != FRAME_OWNED_BY_GENERATOR) continue;
        PyCodeObject* code = _PyFrame_GetCode(frame);
        if (version_of(code) == instrumentation_version(tstate)) continue;
        has_memory = rewrite(tstate, code, globals);
    }
    Py_XDECREF(globals);
    PyErr_SetRaisedException(pending);  // in place of our own
}

}  // namespace culm::interpreter
