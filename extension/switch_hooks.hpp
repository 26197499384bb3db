// What the runtime's switches do for CPython: the SwitchHook of this module.
#pragma once

#include <Python.h>

#include <cstdint>

#include "thread_host.hpp"

namespace culm::extension {

void install_switch_hooks() noexcept;

// SavedState plus the first data-stack chunk, near the base of each stack.
std::uint32_t host_stack_bytes() noexcept;

// A copy of the running fiber's contextvars context for a new fiber; null where there is none to inherit.
// False: an exception is set.
bool inherit_context(ThreadHost& host, PyObject*& context);

}  // namespace culm::extension
