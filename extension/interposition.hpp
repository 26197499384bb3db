// culm.patch(): libc's blocking calls park the fiber, and the interpreter sees a thread identity per fiber.
#pragma once

#include <Python.h>

#include "thread_host.hpp"

namespace culm::extension {

PyObject* interpose(PyObject* module, PyObject* unused);
PyObject* interposition_statistics(PyObject* module, PyObject* unused);
bool interposed() noexcept;
// Tells the interpreter from now on which fiber of this thread runs. Only while interposed.
void show_identities(ThreadHost& host) noexcept;

}  // namespace culm::extension
