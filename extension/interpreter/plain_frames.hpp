// What a frame owns on 3.11 to 3.13, where its slots are plain object pointers.
//
// The depth of the evaluation stack is not recorded while a frame is in a call, so only local variables are visited:
// reporting too few references is safe, it only keeps cycles through the evaluation stack alive.
// `Fields` names what was renamed between the versions: function(frame) and code(frame).
#pragma once

#include <cstddef>
#include <cstring>

#include "interpreter/frame_chain.hpp"

namespace culm::interpreter {

template <class Fields>
struct PlainFrames {
    static int visit_slots(_PyInterpreterFrame* frame, visitproc visit, void* arg) {
        PyCodeObject* code = Fields::code(frame);
        Py_VISIT(Fields::function(frame));
        Py_VISIT(code);
        for (int i = 0; i < code->co_nlocalsplus; ++i) Py_VISIT(frame->localsplus[i]);
        return 0;
    }

    static void copy_slots(_PyInterpreterFrame* to, _PyInterpreterFrame* frame) {
        const int locals = Fields::code(frame)->co_nlocalsplus;
        std::memcpy(static_cast<void*>(to), frame,
                    offsetof(_PyInterpreterFrame, localsplus) + static_cast<std::size_t>(locals) * sizeof(PyObject*));
        to->stacktop = locals;
    }
};

}  // namespace culm::interpreter
