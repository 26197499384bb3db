// What thread state the calling thread is attached to, and pending calls for it: the same from 3.12 on.
#include "interpreter/cpython_headers.hpp"

#include "interpreter/interpreter.hpp"
#include "interpreter/runtime_layout.hpp"

namespace culm::interpreter {

bool call_soon(const ThreadRecord& thread, int (*call)(void*), void* argument) noexcept {
    if (thread.is_main_thread) return Py_AddPendingCall(call, argument) == 0;
    return _PyEval_AddPendingCall(PyInterpreterState_Main(), call, argument, 0) == 0;
}

const unsigned long* identity_that_makes_calls(const ThreadRecord& thread) noexcept {
    const bool asks = PY_VERSION_HEX >= 0x030D0000 && !thread.is_main_thread;
    return asks ? main_thread_slot() : nullptr;
}

bool is_attached(const ThreadRecord& thread) noexcept { return PyThreadState_GetUnchecked() == thread.tstate; }

bool runs_other_interpreter(const ThreadRecord& thread) noexcept {
    const PyThreadState* attached = PyThreadState_GetUnchecked();
    return attached != nullptr && attached != thread.tstate;
}

bool may_run_python() noexcept { return !Py_IsFinalizing(); }

}  // namespace culm::interpreter
