// Walks the chain of Python frames of a suspended fiber, from the innermost outwards.
//
// `Frames` is the version's knowledge of what a frame owns (plain_frames.hpp, tagged_frames.hpp):
//   code(frame)                     its code object
//   visit_slots(frame, visit, arg)  function, code, local variables and, where its depth is known, the evaluation stack
//   copy_slots(to, frame)           moves the contents to memory owned by a frame object
// Only frames owned by the thread are ours to visit: a generator's frame belongs to the generator, which visits it, and
// the frames by which C enters the evaluation loop own nothing.
#pragma once

#include <cstring>

#include "interpreter/cpython_headers.hpp"

namespace culm::interpreter {

template <class Frames>
int visit_frames(_PyInterpreterFrame* innermost, visitproc visit, void* arg) {
    for (_PyInterpreterFrame* frame = innermost; frame != nullptr; frame = frame->previous) {
        if (frame->owner != FRAME_OWNED_BY_THREAD) continue;
        Py_VISIT(frame->frame_obj);
        Py_VISIT(frame->f_locals);
        if (const int result = Frames::visit_slots(frame, visit, arg)) return result;
    }
    return 0;
}

// Moves the contents of `frame` into its frame object, which outlives the fiber's memory, and drops the frame's
// reference to it. The caller's frame object is made first, to be linked to. Runs Python.
template <class Frames>
void hand_over_frame(_PyInterpreterFrame* frame) {
    PyFrameObject* object = frame->frame_obj;
    PyFrameObject* back = PyFrame_GetBack(object);
    if (object->f_back == nullptr) {
        object->f_back = back;
    } else {
        Py_XDECREF(reinterpret_cast<PyObject*>(back));
    }
    auto* copy = reinterpret_cast<_PyInterpreterFrame*>(object->_f_frame_data);
    Frames::copy_slots(copy, frame);
    copy->frame_obj = nullptr;
    copy->owner = FRAME_OWNED_BY_FRAME_OBJECT;
    copy->previous = nullptr;
    object->f_frame = copy;
    if (!PyObject_GC_IsTracked(reinterpret_cast<PyObject*>(object))) PyObject_GC_Track(object);
    Py_DECREF(object);
}

// Unlinks the frames of a fiber that will never run again from everything that outlives its memory: frame objects
// (tracebacks hold them) and generators. What frames without a frame object refer to is leaked on purpose: only
// unwinding could tell which references of the evaluation stack are owned. Runs Python.
template <class Frames>
void let_go_frames(_PyInterpreterFrame*& innermost) {
    while (_PyInterpreterFrame* frame = innermost) {
        innermost = frame->previous;  // first: what runs below may traverse this fiber, which no longer owns the frame
        if (frame->owner == FRAME_OWNED_BY_GENERATOR) frame->previous = nullptr;
        if (frame->owner == FRAME_OWNED_BY_THREAD && frame->frame_obj != nullptr) hand_over_frame<Frames>(frame);
    }
}

}  // namespace culm::interpreter
