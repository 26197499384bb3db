// The interpreter state of a fiber on CPython 3.15.
//
// Particular to 3.15, beyond what 3.14 brought (addresses for the C stack, asyncio behind the public thread state, tagged
// references, current_executor): the chain of frames ends at the thread state's base_frame, which profilers that read
// from outside look for, and the JIT keeps the exit it is taking in the thread state.
// Invariant: a suspended fiber holds a strong reference to its current_executor until it has continued.
#include "interpreter/frame_chain.hpp"
#include "interpreter/runtime_layout.hpp"
#include "interpreter/saved_words.hpp"
#include "interpreter/signal_flag.hpp"
#include "interpreter/stack_protection.hpp"
#include "interpreter/tagged_frames.hpp"

namespace culm::interpreter {

namespace {

struct Words : CommonWords {
    _PyInterpreterFrame* current_frame = nullptr;
    PyObject* current_exception = nullptr;
    PyObject* threading_local_key = nullptr;
    PyObject* threading_local_sentinel = nullptr;
    PyObject* asyncio_running_loop = nullptr;
    PyObject* asyncio_running_task = nullptr;
    PyObject* current_executor = nullptr;  // strong while suspended
    struct _PyExitData* jit_exit = nullptr;
    StackProtection stack_protection;
    bool defers_deallocation = false;  // the stack is too small for the interpreter to catch up with what it deferred
};

using Frames = TaggedFrames;

const volatile int* tripped_ = nullptr;

void save(Words& words, PyThreadState* tstate) noexcept {
    save_common(words, tstate);
    words.recursion_depth = tstate->py_recursion_limit - tstate->py_recursion_remaining;
    words.event = tstate->what_event;
    words.current_frame = tstate->current_frame;
    words.current_exception = tstate->current_exception;
    words.threading_local_key = tstate->threading_local_key;
    words.threading_local_sentinel = tstate->threading_local_sentinel;
    words.current_executor = Py_XNewRef(tstate->current_executor);
    words.jit_exit = tstate->jit_exit;
    const _PyThreadStateImpl* shifted = shifted_thread_state(tstate);
    words.asyncio_running_loop = shifted->asyncio_running_loop;
    words.asyncio_running_task = shifted->asyncio_running_task;
    save_stack_protection(words.stack_protection, shifted);
}

void load(const Words& words, PyThreadState* tstate) noexcept {
    load_common(words, tstate);
    tstate->py_recursion_remaining = tstate->py_recursion_limit - words.recursion_depth;
    tstate->what_event = words.event;
    tstate->current_frame = words.current_frame;
    tstate->last_profiled_frame = nullptr;  // a frame of the other fiber: a profiler must walk the whole chain
    tstate->current_exception = words.current_exception;
    tstate->threading_local_key = words.threading_local_key;
    tstate->threading_local_sentinel = words.threading_local_sentinel;
    tstate->current_executor = words.current_executor;
    tstate->jit_exit = words.jit_exit;
    _PyThreadStateImpl* shifted = shifted_thread_state(tstate);
    shifted->asyncio_running_loop = words.asyncio_running_loop;
    shifted->asyncio_running_task = words.asyncio_running_task;
    load_stack_protection(words.stack_protection, shifted);
}

PyFrameObject* innermost_frame(PyThreadState* tstate) {
    const _PyInterpreterFrame* frame = _PyFrame_GetFirstComplete(tstate->current_frame);
    return frame == nullptr ? nullptr : frame->frame_obj;
}

PyObject* handler_at(int number) { return _PyRuntime.signals.handlers[number].func; }

// Runs Python.
void catch_up_with_deallocation(PyThreadState* tstate) {
    if (tstate->delete_later != nullptr) _PyTrash_thread_destroy_chain(tstate);
}

}  // namespace

std::size_t data_stack_chunk_bytes() noexcept { return 1024; }

bool initialize() {
    if (!check_version()) return false;
    PyThreadState* tstate = PyThreadState_GetUnchecked();
    PyEval_GetFrame();  // makes the frame object that is compared
    if (!check_thread_state(tstate, tstate->py_recursion_limit, innermost_frame(tstate))) return false;
    if (!find_main_thread_slot()) return false;
    if (!calibrate_stack_protection(tstate)) return false;
    tripped_ = find_tripped_flag(&_PyRuntime.signals.is_tripped, handler_at);
    return true;
}

void prepare(SavedState& state, const ThreadRecord& thread, void* chunk, std::size_t chunk_bytes, std::byte* c_stack_limit,
             std::byte* c_stack_base, unsigned long identity, PyObject* context) noexcept {
    Words& words = *new (state.bytes) Words{};
    prepare_common(words, chunk, chunk_bytes, identity, context);
    words.current_frame = thread.tstate->base_frame;
    words.event = -1;
    words.stack_protection = stack_protection_for(c_stack_limit, c_stack_base);
    words.defers_deallocation = static_cast<std::size_t>(c_stack_base - c_stack_limit) < deallocation_needs_bytes();
}

void prepare_main(SavedState& state, const ThreadRecord& thread) noexcept {
    Words& words = *new (state.bytes) Words{};
    words.identity = thread.identity;
}

void switch_state(ThreadRecord& thread, SavedState& from, SavedState& to) noexcept {
    const Words& next = words_of<Words>(to);
    save(words_of<Words>(from), thread.tstate);
    load(next, thread.tstate);
    *thread.main_thread_slot = next.identity;
}

void after_switch(ThreadRecord& thread, SavedState& now) noexcept {
    Words& words = words_of<Words>(now);
    clear_slot(words.current_executor);  // the thread state keeps it alive again
    resume_pending_raise(thread.tstate, words.pending_raise);
    if (words.defers_deallocation) catch_up_with_deallocation(thread.tstate);
}

void finish_running(ThreadRecord& thread, SavedState& state) {
    Words& words = words_of<Words>(state);
    PyThreadState* tstate = thread.tstate;
    _PyThreadStateImpl* shifted = shifted_thread_state(tstate);
    assert(tstate->exc_info == &words.exc_item);
    assert(tstate->current_frame == tstate->base_frame);
    set_pending_raise(tstate, words.pending_raise, nullptr);
    for (int round = 0; round < kClearRoundsMax; ++round) {
        bool cleared = clear_running_common(tstate);
        cleared |= clear_slot(shifted->asyncio_running_loop);
        cleared |= clear_slot(shifted->asyncio_running_task);
        cleared |= clear_slot(tstate->threading_local_key);
        cleared |= clear_slot(tstate->threading_local_sentinel);
        if (!cleared) break;
    }
    if (words.defers_deallocation) catch_up_with_deallocation(tstate);
}

void abandon(SavedState& state) noexcept {
    Words& words = words_of<Words>(state);
    let_go_frames<Frames>(words.current_frame);
    abandon_common(words);
    clear_slot(words.current_exception);
    clear_slot(words.asyncio_running_loop);
    clear_slot(words.asyncio_running_task);
    clear_slot(words.current_executor);
    clear_slot(words.threading_local_key);
    clear_slot(words.threading_local_sentinel);
}

int traverse(const SavedState& state, visitproc visit, void* arg) {
    const Words& words = words_of<Words>(state);
    Py_VISIT(words.current_exception);
    Py_VISIT(words.asyncio_running_loop);
    Py_VISIT(words.asyncio_running_task);
    Py_VISIT(words.current_executor);
    Py_VISIT(words.threading_local_key);
    Py_VISIT(words.threading_local_sentinel);
    if (const int result = visit_common(words, visit, arg)) return result;
    return visit_frames<Frames>(words.current_frame, visit, arg);
}

PyObject* suspended_frame(ThreadRecord& thread, SavedState& state) {
    PyThreadState* tstate = thread.tstate;
    _PyInterpreterFrame* running = tstate->current_frame;
    const int collects = PyGC_Disable();  // making a frame object must not run finalizers with the wrong frame in place
    tstate->current_frame = words_of<Words>(state).current_frame;
    PyFrameObject* frame = PyThreadState_GetFrame(tstate);
    tstate->current_frame = running;
    if (collects) PyGC_Enable();
    return reinterpret_cast<PyObject*>(frame);
}

void raise_soon(ThreadRecord& thread, SavedState& state, PyObject* exception) noexcept {
    set_pending_raise(thread.tstate, words_of<Words>(state).pending_raise, exception);
}

PyThreadState* attached_thread_state() noexcept { return PyThreadState_GetUnchecked(); }
bool may_run_python() noexcept { return !Py_IsFinalizing(); }
bool signal_tripped() noexcept { return tripped_ == nullptr || *tripped_ != 0; }
std::size_t c_recursion_budget(std::size_t) noexcept { return 0; }

}  // namespace culm::interpreter
