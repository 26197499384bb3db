// fork(): in the child only the forking fiber goes on, unless keep_fibers_after_fork(True).
#pragma once

#include <Python.h>

#include "culm/runtime/fiber.hpp"

namespace culm::extension {

// Registers with os.register_at_fork. False: an exception is set.
bool register_fork_hooks(PyObject* module);

PyObject* keep_fibers_after_fork(PyObject* module, PyObject* keep);
PyObject* after_fork_in_child(PyObject* module, PyObject* unused);

// Lives::lost_in_fork and Lives::forked.
void lose_in_fork(runtime::Fiber& fiber);
void go_on_after_fork(runtime::Fiber& survivor);

// The fiber that forked has ended in a child whose main fiber stayed in the parent: the child's work is done. Flushes
// the standard streams and exits, with the status that `result` (null: the exception that is set) asks for.
[[noreturn]] void end_forked_child(PyObject* result);

}  // namespace culm::extension
