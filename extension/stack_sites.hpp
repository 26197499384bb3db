// How much stack the fibers of each function have used: the function given to spawn() is the site.
//
// Of a fiber that has ended its peak counts if somebody had looked at it: the shrinker, a reader of Fiber.stack, or
// always with exact peaks. Spawning costs nothing for it; the table has one entry per function and a bound.
#pragma once

#include <Python.h>

#include "fiber_type.hpp"

namespace culm::extension {

// The running fiber's function has returned: the last moment at which its stack can be looked at.
void note_stack_at_end(ThreadHost& host, PyFiber* self);

// A list of tuples, see the module's docstring for it.
PyObject* stack_sites(PyObject* module, PyObject* unused);

}  // namespace culm::extension
