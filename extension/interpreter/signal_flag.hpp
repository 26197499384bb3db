// 3.12 and later: _PyRuntime.signals.is_tripped, the word that says that some signal waits for its Python handler.
//
// Verified by its neighbours: the table of handlers in the same struct must hold what signal.getsignal() returns. If it
// does not, the flag is not used.
#pragma once

#include <csignal>

#include "interpreter/cpython_headers.hpp"
#include "interpreter/runtime_layout.hpp"

namespace culm::interpreter {

// `handler_at(number)` reads the handler out of the runtime's table (borrowed). The flag's address, or null.
template <class HandlerAt>
const volatile int* find_tripped_flag(const volatile int* flag, HandlerAt handler_at) {
    for (const int number : {SIGINT, SIGPIPE, SIGTERM}) {
        PyObject* expected = python_signal_handler(number);
        if (expected == nullptr) {
            PyErr_Clear();
            return nullptr;
        }
        const PyObject* found = handler_at(number);
        const bool same = found == expected || (found == nullptr && expected == Py_None);
        Py_DECREF(expected);
        if (!same) return nullptr;
    }
    return flag;
}

}  // namespace culm::interpreter
