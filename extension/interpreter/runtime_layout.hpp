// What is verified, at import, about the memory layout of the interpreter that is running.
//
// The members of PyThreadState keep their offsets within a minor version, the rest of the interpreter's structs need
// not. Everything this folder reads or writes is compared with what a public function says before it is used.
// Invariant: a function that returns false has set an ImportError that names what does not match.
#pragma once

#include <initializer_list>

#include "interpreter/cpython_headers.hpp"

namespace culm::interpreter {

struct FieldCheck {
    const char* field;
    bool matches;
};

// The running interpreter has the minor version that this module was compiled for, and no free threading.
bool check_version();

// The common fields of the calling thread's state hold what the public API says. `recursion_limit` and
// `innermost_frame` (the innermost complete frame's object, borrowed) are read by the version file.
bool check_thread_state(PyThreadState* tstate, int recursion_limit, PyFrameObject* innermost_frame);
bool check_fields(std::initializer_list<FieldCheck> checks);

// Locates _PyRuntime.main_thread and verifies that it holds the main thread's identity.
bool find_main_thread_slot();
unsigned long* main_thread_slot() noexcept;

// The handler that Python code sees for `signal_number` (new reference), to compare with the runtime's table.
PyObject* python_signal_handler(int signal_number);

}  // namespace culm::interpreter
