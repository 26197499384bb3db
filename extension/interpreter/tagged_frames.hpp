// What a frame owns from 3.14 on, where its slots are tagged references.
//
// A slot may be null, a tagged small integer, a reference that owns a count, or one that borrows from elsewhere. The
// stack pointer is written back before every call that may escape, so a suspended frame's evaluation stack is exact.
// Invariant: only references that own a count are reported to the collector.
#pragma once

#include <cstddef>

#include "interpreter/frame_chain.hpp"

namespace culm::interpreter {

struct TaggedFrames {
    static bool owns_count(_PyStackRef reference) noexcept {
        return !PyStackRef_IsNullOrInt(reference) && PyStackRef_RefcountOnObject(reference);
    }

    static int visit_slot(_PyStackRef reference, visitproc visit, void* arg) {
        return owns_count(reference) ? visit(PyStackRef_AsPyObjectBorrow(reference), arg) : 0;
    }

    static _PyStackRef* slots_end(_PyInterpreterFrame* frame) noexcept {
        if (frame->stackpointer != nullptr) return frame->stackpointer;
        return frame->localsplus + _PyFrame_GetCode(frame)->co_nlocalsplus;
    }

    static int visit_slots(_PyInterpreterFrame* frame, visitproc visit, void* arg) {
        if (const int result = visit_slot(frame->f_funcobj, visit, arg)) return result;
        if (const int result = visit_slot(frame->f_executable, visit, arg)) return result;
        for (_PyStackRef* slot = frame->localsplus; slot < slots_end(frame); ++slot) {
            if (const int result = visit_slot(*slot, visit, arg)) return result;
        }
        return 0;
    }

    // The evaluation stack is left behind: a frame object does not need it.
    static void copy_slots(_PyInterpreterFrame* to, _PyInterpreterFrame* frame) {
        const int locals = _PyFrame_GetCode(frame)->co_nlocalsplus;
        std::memcpy(static_cast<void*>(to), frame, offsetof(_PyInterpreterFrame, localsplus));
        to->f_executable = PyStackRef_MakeHeapSafe(frame->f_executable);
        to->f_funcobj = PyStackRef_MakeHeapSafe(frame->f_funcobj);
        for (int i = 0; i < locals; ++i) to->localsplus[i] = PyStackRef_MakeHeapSafe(frame->localsplus[i]);
        to->stackpointer = to->localsplus + locals;
    }
};

}  // namespace culm::interpreter
