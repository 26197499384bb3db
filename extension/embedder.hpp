// What the runtime asks of CPython: the roles of an embedding language (culm/runtime/embedder.hpp).
#pragma once

#include <Python.h>

#include <cstdint>

#include "thread_host.hpp"

namespace culm::extension {

void install_embedder() noexcept;

// For install_os_error_filter(): a call of the running fiber that failed because of cancel() raises Cancelled.
bool raise_instead_of_os_error(long error);

// SavedState plus the first data-stack chunk, near the base of each stack.
std::uint16_t host_stack_bytes() noexcept;

// A copy of the running fiber's contextvars context for a new fiber; null where there is none to inherit.
// False: an exception is set.
bool inherit_context(ThreadHost& host, PyObject*& context);

}  // namespace culm::extension
