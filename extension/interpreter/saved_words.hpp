// The per-fiber words that every supported version has under the same name, and what is done with them.
//
// Each version file derives its own Words from CommonWords, adds what is particular to it, and keeps the whole in the
// SavedState at the base of the fiber's stack. While a fiber runs, the thread state holds the references and the copies
// here are stale; while it is suspended, the references are here.
// Invariant: save_common and load_common only copy words: no calls, no reference counting.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>

#include "interpreter/data_stack.hpp"
#include "interpreter/interpreter.hpp"
#include "interpreter/overflow_raise.hpp"
#include "interpreter/pending_raise.hpp"

namespace culm::interpreter {

// Neighbours in the thread state are neighbours here and copied together: what a switch costs is the number of stores.
struct HandlingWords {
    _PyErr_StackItem* exc_info = nullptr;
    PyObject* dict = nullptr;  // PyThreadState_GetDict(): ctypes' errno, repr's guard, threading.local up to 3.12
};
struct TracingWords {
    int tracing = 0;
    int event = 0;  // what a trace function of this fiber is being told of
};
struct AsyncGenWords {
    std::intptr_t coroutine_origin_tracking_depth = 0;  // an int and what follows it
    PyObject* firstiter = nullptr;
    PyObject* finalizer = nullptr;
};
static_assert(offsetof(PyThreadState, dict) == offsetof(PyThreadState, exc_info) + 8);
static_assert(offsetof(PyThreadState, async_gen_firstiter) ==
              offsetof(PyThreadState, coroutine_origin_tracking_depth) + 8);
static_assert(offsetof(PyThreadState, async_gen_finalizer) == offsetof(PyThreadState, async_gen_firstiter) + 8);

struct CommonWords {
    _PyStackChunk* datastack_chunk = nullptr;
    PyObject** datastack_top = nullptr;
    PyObject** datastack_limit = nullptr;
    PyObject* context = nullptr;
    HandlingWords handling;
    AsyncGenWords async_gen;
    TracingWords tracing;
    int recursion_depth = 0;  // limit - remaining, so that sys.setrecursionlimit holds for suspended fibers too
    unsigned long identity = 0;
    PendingRaise pending_raise;
    OverflowRaise overflow_raise;
    _PyErr_StackItem exc_item{};  // bottom of the chain that exc_info starts; the main flow uses the thread's own
    _PyStackChunk* root_chunk = nullptr;  // in the fiber's stack; null for the main flow
};

// Copies a run of neighbours. `first` is the first field of the run in the thread state.
template <class Run, class Field>
[[gnu::always_inline]] inline void save_run(Run& run, const Field& first) noexcept {
    static_assert(std::is_trivially_copyable_v<Run>);
    std::memcpy(&run, reinterpret_cast<const char*>(&first), sizeof(Run));
}
template <class Run, class Field>
[[gnu::always_inline]] inline void load_run(const Run& run, Field& first) noexcept {
    std::memcpy(reinterpret_cast<char*>(&first), &run, sizeof(Run));
}

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
    words.handling.exc_info = &words.exc_item;
    words.identity = identity;
    words.context = context;
}

[[gnu::always_inline]] inline void save_common(CommonWords& words, PyThreadState* tstate) noexcept {
    words.datastack_chunk = tstate->datastack_chunk;
    words.datastack_top = tstate->datastack_top;
    words.datastack_limit = tstate->datastack_limit;
    words.context = tstate->context;
    save_run(words.handling, tstate->exc_info);
    save_run(words.async_gen, tstate->coroutine_origin_tracking_depth);
    save_run(words.tracing, tstate->tracing);
    take_pending_raise(tstate, words.pending_raise);
}

// After save_common of the fiber that is left.
[[gnu::always_inline]] inline void load_common(const CommonWords& words, PyThreadState* tstate) noexcept {
    tstate->datastack_chunk = words.datastack_chunk;
    tstate->datastack_top = words.datastack_top;
    tstate->datastack_limit = words.datastack_limit;
    if (tstate->context != words.context) {
        tstate->context = words.context;
        ++tstate->context_ver;  // values cached in ContextVars are the other fiber's
    }
    load_run(words.handling, tstate->exc_info);
    load_run(words.async_gen, tstate->coroutine_origin_tracking_depth);
    load_run(words.tracing, tstate->tracing);
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

// For the running fiber, whose function has returned: nothing of it stays in the thread state. clear_more() does one
// round for the words that are particular to a version, as clear_running_common() does. Runs Python.
template <class ClearMore>
void finish_common(PyThreadState* tstate, CommonWords& words, ClearMore clear_more) {
    assert(tstate->exc_info == &words.exc_item);
    set_pending_raise(tstate, words.pending_raise, nullptr);
    forget_overflow(tstate, words.overflow_raise);
    for (int round = 0; round < kClearRoundsMax; ++round) {
        bool cleared = clear_running_common(tstate);
        cleared |= clear_more();
        if (!cleared) break;
    }
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
    clear_slot(words.async_gen.firstiter);
    clear_slot(words.async_gen.finalizer);
    clear_slot(words.context);
    clear_slot(words.handling.dict);
}

inline int visit_common(const CommonWords& words, visitproc visit, void* arg) {
    Py_VISIT(words.exc_item.exc_value);  // the items above it belong to generators, which visit their own
    Py_VISIT(words.async_gen.firstiter);
    Py_VISIT(words.async_gen.finalizer);
    Py_VISIT(words.context);
    Py_VISIT(words.handling.dict);
    return visit_pending_raise(words.pending_raise, visit, arg);
}

template <class Words>
void prepare_main_words(SavedState& state, const ThreadRecord& thread) noexcept {
    Words& words = *new (state.bytes) Words{};
    words.identity = thread.identity;
}

// Leaves one fiber and enters another, by the save() and load() of the version.
template <class Words>
[[gnu::always_inline]] inline void exchange_words(ThreadRecord& thread, SavedState& from, SavedState& to) noexcept {
    const Words& next = words_of<Words>(to);
    save(words_of<Words>(from), thread.tstate);
    load(next, thread.tstate);
    *thread.main_thread_slot = next.identity;
    *thread.thread_id_slot = next.identity;
}

// The frame object of a suspended fiber, made while `slot` of the thread state, where its innermost frame is looked
// for, holds what the fiber left there. New reference, or null with an exception.
template <class Slot>
PyObject* frame_object(PyThreadState* tstate, Slot*& slot, Slot* suspended) {
    Slot* running = slot;
    const int collects = PyGC_Disable();  // making a frame object must not run finalizers with the wrong frame in place
    slot = suspended;
    PyFrameObject* frame = PyThreadState_GetFrame(tstate);
    slot = running;
    if (collects) PyGC_Enable();
    return reinterpret_cast<PyObject*>(frame);
}

}  // namespace culm::interpreter
