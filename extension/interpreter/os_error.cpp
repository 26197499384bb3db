// Replaces tp_new of OSError and of those derived from it that share it. See os_error.hpp.
//
// Every type that has OSError's function gets ours: X.__new__ refuses a type whose tp_new differs from X's own. Types
// made later inherit it. Invariant: once installed, no type has the original function and some type has ours.
#include "interpreter/os_error.hpp"

namespace culm::interpreter {

namespace {

OsErrorFilter filter_ = nullptr;
newfunc original_ = nullptr;

PyObject* filtered_new(PyTypeObject* type, PyObject* arguments, PyObject* keywords) {
    PyObject* error = PyTuple_GET_SIZE(arguments) >= 2 ? PyTuple_GET_ITEM(arguments, 0) : nullptr;
    if (error != nullptr && PyLong_CheckExact(error)) {
        int overflow = 0;
        if (!filter_(PyLong_AsLongAndOverflow(error, &overflow))) return nullptr;
    }
    return original_(type, arguments, keywords);
}

bool replace_in(PyTypeObject* type) {
    if (type->tp_new != original_) return true;
    type->tp_new = filtered_new;
    // Called through `type`, because a metaclass may override it.
    PyObject* derived = PyObject_CallMethod(reinterpret_cast<PyObject*>(&PyType_Type), "__subclasses__", "O", type);
    if (derived == nullptr) return false;
    bool good = true;
    for (Py_ssize_t i = 0; good && i < PyList_GET_SIZE(derived); ++i) {
        good = replace_in(reinterpret_cast<PyTypeObject*>(PyList_GET_ITEM(derived, i)));
    }
    Py_DECREF(derived);
    return good;
}

}  // namespace

bool install_os_error_filter(OsErrorFilter filter) {
    if (filter_ != nullptr) return true;
    filter_ = filter;
    auto* os_error = reinterpret_cast<PyTypeObject*>(PyExc_OSError);
    original_ = os_error->tp_new;
    return replace_in(os_error);
}

}  // namespace culm::interpreter
