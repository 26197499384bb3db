// The per-fiber words that 3.14 and later have alike, beyond those of every version, and what is done with them.
//
// The interpreter knows where the C stack lies, by addresses; asyncio keeps its running loop and task behind the public
// thread state; with the JIT, the thread state's current_executor keeps the running machine code alive, and nobody
// looks for it in suspended fibers. Invariant: a suspended fiber holds a strong reference to its current_executor until
// it has continued.
#pragma once

#include "interpreter/frame_chain.hpp"
#include "interpreter/instrumentation.hpp"
#include "interpreter/local_words.hpp"
#include "interpreter/saved_words.hpp"
#include "interpreter/stack_protection.hpp"
#include "interpreter/tagged_frames.hpp"

namespace culm::interpreter {

struct AsyncioWords {
    PyObject* running_loop = nullptr;
    PyObject* running_task = nullptr;
};
static_assert(offsetof(_PyThreadStateImpl, asyncio_running_task) ==
              offsetof(_PyThreadStateImpl, asyncio_running_loop) + 8);

struct TaggedWords : CommonWords {
    _PyInterpreterFrame* current_frame = nullptr;
    PyObject* current_exception = nullptr;
    LocalWords local;
    AsyncioWords asyncio;
    PyObject* current_executor = nullptr;  // strong while suspended
    StackProtection stack_protection;
    std::uint32_t instrumentation_version = 0;
    bool defers_deallocation = false;  // the stack is too small for the interpreter to catch up with what it deferred
};

inline void prepare_tagged(TaggedWords& words, void* chunk, std::size_t chunk_bytes, std::byte* c_stack_limit,
                           std::byte* c_stack_base, unsigned long identity, PyObject* context) noexcept {
    prepare_common(words, chunk, chunk_bytes, identity, context);
    words.tracing.event = -1;
    words.stack_protection = stack_protection_for(c_stack_limit, c_stack_base);
    words.defers_deallocation = static_cast<std::size_t>(c_stack_base - c_stack_limit) < deallocation_needs_bytes();
    words.overflow_raise.is_watched = words.defers_deallocation;  // only then does its window reach the yellow zone
}

[[gnu::always_inline]] inline void save_tagged(TaggedWords& words, PyThreadState* tstate) noexcept {
    save_common(words, tstate);
    words.recursion_depth = tstate->py_recursion_limit - tstate->py_recursion_remaining;
    words.current_frame = tstate->current_frame;
    words.instrumentation_version = instrumentation_version(tstate);
    words.current_exception = tstate->current_exception;
    save_run(words.local, tstate->threading_local_key);
    words.current_executor = Py_XNewRef(tstate->current_executor);
    const _PyThreadStateImpl* shifted = shifted_thread_state(tstate);
    save_run(words.asyncio, shifted->asyncio_running_loop);
    save_stack_protection(words.stack_protection, shifted);
}

[[gnu::always_inline]] inline void load_tagged(const TaggedWords& words, PyThreadState* tstate) noexcept {
    load_common(words, tstate);
    tstate->py_recursion_remaining = tstate->py_recursion_limit - words.recursion_depth;
    tstate->current_frame = words.current_frame;
    tstate->current_exception = words.current_exception;
    load_run(words.local, tstate->threading_local_key);
    tstate->current_executor = words.current_executor;
    _PyThreadStateImpl* shifted = shifted_thread_state(tstate);
    load_run(words.asyncio, shifted->asyncio_running_loop);
    load_stack_protection(words.stack_protection, shifted);
}

// Runs Python.
inline void catch_up_with_deallocation(PyThreadState* tstate, const TaggedWords& words) {
    if (words.defers_deallocation && tstate->delete_later != nullptr) _PyTrash_thread_destroy_chain(tstate);
}

inline void resume_tagged(PyThreadState* tstate, TaggedWords& words) noexcept {
    clear_slot(words.current_executor);  // the thread state keeps it alive again
    resume_instrumentation(tstate, words.instrumentation_version);
    resume_pending_raise(tstate, words.pending_raise);
    catch_up_with_deallocation(tstate, words);
}

inline void finish_tagged(PyThreadState* tstate, TaggedWords& words) {
    _PyThreadStateImpl* shifted = shifted_thread_state(tstate);
    finish_common(tstate, words, [&] {
        bool cleared = clear_slot(shifted->asyncio_running_loop);
        cleared |= clear_slot(shifted->asyncio_running_task);
        return clear_running_local(tstate) || cleared;
    });
    catch_up_with_deallocation(tstate, words);
}

inline void abandon_tagged(TaggedWords& words) noexcept {
    let_go_frames<TaggedFrames>(words.current_frame);
    abandon_common(words);
    clear_slot(words.current_exception);
    clear_slot(words.asyncio.running_loop);
    clear_slot(words.asyncio.running_task);
    clear_slot(words.current_executor);
    clear_slot(words.local.key);
    clear_slot(words.local.sentinel);
}

inline int visit_tagged(const TaggedWords& words, visitproc visit, void* arg) {
    Py_VISIT(words.current_exception);
    Py_VISIT(words.asyncio.running_loop);
    Py_VISIT(words.asyncio.running_task);
    Py_VISIT(words.current_executor);
    Py_VISIT(words.local.key);
    Py_VISIT(words.local.sentinel);
    if (const int result = visit_common(words, visit, arg)) return result;
    return visit_frames<TaggedFrames>(words.current_frame, visit, arg);
}

inline CallSite recorded_call_site(const PyThreadState* tstate) noexcept {
    const _PyInterpreterFrame* frame = tstate->current_frame;
    return frame == nullptr ? CallSite{} : CallSite{frame, frame->stackpointer};
}

}  // namespace culm::interpreter
