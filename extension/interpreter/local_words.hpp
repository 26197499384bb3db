// What 3.13 and later have alike: threading.local's words in the thread state, the innermost frame in the thread state
// itself, the handlers of signals as plain pointers.
#pragma once

#include "interpreter/saved_words.hpp"

namespace culm::interpreter {

static_assert(offsetof(PyThreadState, what_event) == offsetof(PyThreadState, tracing) + sizeof(int));

struct LocalWords {  // of threading.local
    PyObject* key = nullptr;
    PyObject* sentinel = nullptr;
};
static_assert(offsetof(PyThreadState, threading_local_sentinel) == offsetof(PyThreadState, threading_local_key) + 8);

inline bool clear_running_local(PyThreadState* tstate) {
    const bool cleared = clear_slot(tstate->threading_local_key);
    return clear_slot(tstate->threading_local_sentinel) || cleared;
}

inline PyFrameObject* innermost_frame(PyThreadState* tstate) {
    const _PyInterpreterFrame* frame = _PyFrame_GetFirstComplete(tstate->current_frame);
    return frame == nullptr ? nullptr : frame->frame_obj;
}

inline PyObject* handler_at(int number) { return _PyRuntime.signals.handlers[number].func; }

}  // namespace culm::interpreter
