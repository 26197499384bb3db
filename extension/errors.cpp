// Exceptions of the module. Cancelled and FiberExit are BaseExceptions, so that `except Exception` lets them pass.
#include "errors.hpp"

#include <cstring>

#include "fiber_type.hpp"

namespace culm::extension {

PyObject* Cancelled = nullptr;
PyObject* FiberExit = nullptr;

bool add_exceptions(PyObject* module) {
    Cancelled = PyErr_NewExceptionWithDoc(
        "culm.Cancelled",
        "Raised in a fiber, at the blocking call it is in or comes to next, after Fiber.cancel().\n\n"
        "Fiber.result() raises it for a fiber that ended so. Let it pass, or re-raise it after cleaning up.",
        PyExc_BaseException, nullptr);
    FiberExit = PyErr_NewExceptionWithDoc(
        "culm.FiberExit",
        "Raised in a parked fiber that nobody can wake any more, or whose thread or interpreter ends, so that its\n"
        "finally blocks run. It ends the fiber silently.",
        PyExc_BaseException, nullptr);
    if (Cancelled == nullptr || FiberExit == nullptr) return false;
    return PyModule_AddObjectRef(module, "Cancelled", Cancelled) == 0 &&
           PyModule_AddObjectRef(module, "FiberExit", FiberExit) == 0;
}

PyObject* raise_error(const Error& error) {
    PyObject* message =
        PyUnicode_FromFormat("could not %s: %s; %s", error.operation, std::strerror(error.code), error.advice);
    if (message == nullptr) return nullptr;
    PyObject* arguments = Py_BuildValue("(iN)", error.code, message);
    if (arguments == nullptr) return nullptr;
    PyErr_SetObject(PyExc_OSError, arguments);
    Py_DECREF(arguments);
    return nullptr;
}

PyObject* raise_cancelled(PyFiber* self) {
    PyObject* label = fiber_label(self);
    if (label == nullptr) return nullptr;
    PyErr_Format(Cancelled, "fiber %U was cancelled", label);
    Py_DECREF(label);
    return nullptr;
}

void raise_class(PyFiber* self, PyObject* exception) {
    if (exception == Cancelled) {
        raise_cancelled(self);
    } else {
        PyErr_SetNone(exception);
    }
    Py_DECREF(exception);
}

void raise_instance(PyObject* exception) {
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception)), exception);
    Py_DECREF(exception);
}

PyObject* take_raised_instance() {
    PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != nullptr) PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

}  // namespace culm::extension
