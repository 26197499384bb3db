// CPython's internal headers, made fit for C++. Included by the files of this folder only.
//
// Py_BUILD_CORE is defined here and nowhere else. Struct layouts and inline functions are used from these headers, and
// one exported function, _PyEval_AddPendingCall: pending calls for other threads than the main one have no public name.
#pragma once

#define Py_BUILD_CORE 1
#include <Python.h>

#ifdef Py_GIL_DISABLED
#error "culm does not support free-threaded builds of CPython yet: build it for the default build of this version"
#endif
#if PY_VERSION_HEX >= 0x030E0000 && PY_VERSION_HEX < 0x030E0100
#error "culm needs CPython 3.14.1 or later: 3.14.0 cannot be told the limits of a fiber's stack"
#endif

// 3.11 and 3.12 take C11 <stdatomic.h> when it exists, which is not C++; their own atomics have the same layout.
#if PY_VERSION_HEX < 0x030D0000
#undef HAVE_STD_ATOMIC
#endif

#include <internal/pycore_ceval.h>
#include <internal/pycore_frame.h>
#include <internal/pycore_runtime.h>
#if PY_VERSION_HEX >= 0x030D0000
#include <internal/pycore_tstate.h>
#endif
#if PY_VERSION_HEX >= 0x030E0000
#include <internal/pycore_interpframe.h>
#endif

// Public names since 3.13, of what went by others before.
#if PY_VERSION_HEX < 0x030D0000
inline PyThreadState* PyThreadState_GetUnchecked() noexcept { return _PyThreadState_UncheckedGet(); }
inline int Py_IsFinalizing() noexcept { return _Py_IsFinalizing(); }
#endif
