// The per-fiber words that every supported version has under the same name, and what is done with them.
//
// Each version file derives its own Words from CommonWords, adds what is particular to it, and keeps the whole in the
// SavedState at the base of the fiber's stack. While a fiber runs, the thread state holds the references and the copies
// here are stale; while it is suspended, the references are here.
// Invariant: save_common and load_common only copy words: no calls, no reference counting.
#pragma once

#include <cassert>
#include <new>
#include <type_traits>

#include "interpreter/data_stack.hpp"
#include "interpreter/interpreter.hpp"
#include "interpreter/pending_raise.hpp"

namespace culm::interpreter {

struct CommonWords {
    _PyStackChunk* datastack_chunk = nullptr;
    PyObject** datastack_top = nullptr;
    PyObject** datastack_limit = nullptr;
    _PyErr_StackItem* exc_info = nullptr;
    PyObject* dict = nullptr;  // PyThreadState_GetDict(): ctypes' errno, repr's guard, threading.local up to 3.12
    PyObject* async_gen_firstiter = nullptr;
    PyObject* async_gen_finalizer = nullptr;
    PyObject* context = nullptr;
    int coroutine_origin_tracking_depth = 0;
    int recursion_depth = 0;  // limit - remaining, so that sys.setrecursionlimit holds for suspended fibers too
    int tracing = 0;
    int event = 0;  // the event that a trace function of this fiber is being told of
    unsigned long identity = 0;
    PendingRaise pending_raise;
    _PyErr_StackItem exc_item{};          // bottom of the chain that exc_info starts; the main flow uses the thread's own
    _PyStackChunk* root_chunk = nullptr;  // in the fiber's stack; null for the main flow
};

template <class Words>
Words& words_of(SavedState& state) noexcept {
    static_assert(std::is_trivially_copyable_v<Words>);
    static_assert(std::is_trivially_destructible_v<Words>);
    static_assert(sizeof(Words) <= kSavedStateBytes);
    static_assert(alignof(Words) <= alignof(SavedState));
    return *std::launder(reinterpret_cast<Words*>(state.bytes));
}
template <class Words>
const Words& words_of(const SavedState& state) noexcept {
    return words_of<Words>(const_cast<SavedState&>(state));
}

inline void prepare_common(CommonWords& words, void* chunk, std::size_t chunk_bytes, unsigned long identity,
                           PyObject* context) noexcept {
    words.root_chunk = make_root_chunk(chunk, chunk_bytes);
    words.datastack_chunk = words.root_chunk;
    // The first word stays unused: a frame that starts at data[0] would make the interpreter free the chunk with it.
    words.datastack_top = &words.root_chunk->data[1];
    words.datastack_limit = reinterpret_cast<PyObject**>(static_cast<std::byte*>(chunk) + chunk_bytes);
    words.exc_info = &words.exc_item;
    words.identity = identity;
    words.context = context;
}

[[gnu::always_inline]] inline void save_common(CommonWords& words, PyThreadState* tstate) noexcept {
    words.datastack_chunk = tstate->datastack_chunk;
    words.datastack_top = tstate->datastack_top;
    words.datastack_limit = tstate->datastack_limit;
    words.exc_info = tstate->exc_info;
    words.dict = tstate->dict;
    words.async_gen_firstiter = tstate->async_gen_firstiter;
    words.async_gen_finalizer = tstate->async_gen_finalizer;
    words.context = tstate->context;
    words.coroutine_origin_tracking_depth = tstate->coroutine_origin_tracking_depth;
    words.tracing = tstate->tracing;
    take_pending_raise(tstate, words.pending_raise);
}

// After save_common of the fiber that is left.
[[gnu::always_inline]] inline void load_common(const CommonWords& words, PyThreadState* tstate) noexcept {
    tstate->datastack_chunk = words.datastack_chunk;
    tstate->datastack_top = words.datastack_top;
    tstate->datastack_limit = words.datastack_limit;
    tstate->exc_info = words.exc_info;
    tstate->dict = words.dict;
    tstate->async_gen_firstiter = words.async_gen_firstiter;
    tstate->async_gen_finalizer = words.async_gen_finalizer;
    if (tstate->context != words.context) {
        tstate->context = words.context;
        ++tstate->context_ver;  // values cached in ContextVars are the other fiber's
    }
    tstate->coroutine_origin_tracking_depth = words.coroutine_origin_tracking_depth;
    tstate->tracing = words.tracing;
}

// Takes the reference out of the slot before it is dropped, because dropping may run Python that looks at the slot.
inline bool clear_slot(PyObject*& slot) {
    PyObject* object = slot;
    slot = nullptr;
    Py_XDECREF(object);
    return object != nullptr;
}

// Destructors that run here may fill a slot again.
inline constexpr int kClearRoundsMax = 4;

// One round for the running fiber's words in the thread state. True: something was there. Runs Python.
inline bool clear_running_common(PyThreadState* tstate) {
    bool cleared = clear_slot(tstate->exc_info->exc_value);
    cleared |= clear_slot(tstate->async_gen_firstiter);
    cleared |= clear_slot(tstate->async_gen_finalizer);
    if (clear_slot(tstate->context)) {
        ++tstate->context_ver;
        cleared = true;
    }
    cleared |= clear_slot(tstate->dict);
    return cleared;
}

// For a suspended fiber that will never run again, after its frames were let go. Runs Python.
inline void abandon_common(CommonWords& words) {
    if (words.root_chunk != nullptr) {
        _PyStackChunk* innermost = words.datastack_chunk;
        words.datastack_chunk = words.root_chunk;
        release_chunks_above(words.root_chunk, innermost);
    }
    drop_pending_raise(words.pending_raise);
    clear_slot(words.exc_item.exc_value);
    clear_slot(words.async_gen_firstiter);
    clear_slot(words.async_gen_finalizer);
    clear_slot(words.context);
    clear_slot(words.dict);
}

inline int visit_common(const CommonWords& words, visitproc visit, void* arg) {
    Py_VISIT(words.exc_item.exc_value);  // the items above it belong to generators, which visit their own
    Py_VISIT(words.async_gen_firstiter);
    Py_VISIT(words.async_gen_finalizer);
    Py_VISIT(words.context);
    Py_VISIT(words.dict);
    return visit_pending_raise(words.pending_raise, visit, arg);
}

}  // namespace culm::interpreter
