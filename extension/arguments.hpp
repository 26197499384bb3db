// Arguments of spawn() and Fiber(): the function, what it is called with, and the options of our own.
#pragma once

#include <Python.h>

#include "culm/stack.hpp"
#include "culm/stack_strategy.hpp"

namespace culm::extension {

struct SpawnArguments {
    PyObject* function = nullptr;           // borrowed
    PyObject* const* positional = nullptr;  // borrowed
    Py_ssize_t positional_count = 0;
    PyObject* keywords = nullptr;  // owned; null when there are none for the function
    PyObject* name = nullptr;      // borrowed; null when not given
    StackClass size_class = kDefaultStackClass;
    const StackStrategy* strategy = nullptr;  // null: the default
};

// From a vectorcall: fn, *args, name=, stack_limit=, strategy=, **kwargs. `caller` names the function in messages.
// False with TypeError, ValueError or OSError set.
bool parse_spawn_arguments(const char* caller, PyObject* const* args, Py_ssize_t count, PyObject* names,
                           SpawnArguments& parsed);

// An int of bytes, or None for the default. False with TypeError or ValueError set.
bool parse_stack_limit(PyObject* value, StackClass& size_class);

// One optional argument `timeout`, positional or by keyword. Null when not given. False with TypeError set.
bool parse_timeout_argument(const char* caller, PyObject* const* args, Py_ssize_t count, PyObject* names,
                            PyObject*& timeout);

}  // namespace culm::extension
