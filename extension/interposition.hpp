// culm.patch(): libc's blocking calls park the fiber, and the interpreter sees a thread identity per fiber.
#pragma once

#include <Python.h>

namespace culm::extension {

PyObject* interpose(PyObject* module, PyObject* unused);
PyObject* interposition_statistics(PyObject* module, PyObject* unused);
bool interposed() noexcept;

}  // namespace culm::extension
