// culm.StackOverflowError, and what a fiber's overflow means for the interpreter.
#pragma once

#include <Python.h>

#include "culm/runtime/switch_hook.hpp"

namespace culm::extension {

bool add_stack_overflow(PyObject* module);

// Fills in the members that deal with overflows.
void set_overflow_hooks(runtime::SwitchHook& hook) noexcept;

}  // namespace culm::extension
