// The module's exceptions, and the environment's errors as OSError.
#pragma once

#include <Python.h>

#include "culm/result.hpp"

namespace culm::extension {

struct PyFiber;

extern PyObject* Cancelled;  // culm.Cancelled(BaseException): the fiber was cancelled
extern PyObject* FiberExit;  // culm.FiberExit(BaseException): unwinds a fiber nobody can wake any more

bool add_exceptions(PyObject* module);

// OSError(errno, "operation: reason; advice"). Returns null.
PyObject* raise_error(const Error& error);
// Cancelled("fiber 'x' was cancelled"). Returns null.
PyObject* raise_cancelled(PyFiber* self);
// Raises an exception class (stolen) in the running fiber; Cancelled with its message.
void raise_class(PyFiber* self, PyObject* exception);
// Raises an exception instance (stolen).
void raise_instance(PyObject* exception);
// The exception that is set, as an instance with its traceback; clears the indicator. New reference.
PyObject* take_raised_instance();

}  // namespace culm::extension
