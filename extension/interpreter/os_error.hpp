// A say in what the interpreter raises when a C call has failed: OSError's constructor asks before it makes an OSError.
//
// C code raises by PyErr_SetFromErrno, and that calls the constructor. An exception that the constructor raises instead
// is what the call raises, in its place: before any finally block, which an exception raised soon after could
// interrupt.
#pragma once

#include <Python.h>

namespace culm::interpreter {

// Asked with the error number whenever an OSError or an exception derived from it is about to be made of one. False:
// another exception is set, which is raised instead.
using OsErrorFilter = bool (*)(long error);

// From now on, for the whole process. Later calls change nothing. False: a Python exception is set.
bool install_os_error_filter(OsErrorFilter filter);

}  // namespace culm::interpreter
