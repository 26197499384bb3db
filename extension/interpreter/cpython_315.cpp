// The interpreter state of a fiber on CPython 3.15.
//
// Particular to 3.15, beyond what 3.14 brought (addresses for the C stack, asyncio behind the public thread state,
// tagged references, current_executor): the chain of frames ends at the thread state's base_frame, which profilers that
// read from outside look for, and the JIT keeps the exit it is taking in the thread state. Invariant: a suspended fiber
// holds a strong reference to its current_executor until it has continued.
#include "interpreter/frame_chain.hpp"
#include "interpreter/runtime_layout.hpp"
#include "interpreter/saved_words.hpp"
#include "interpreter/signal_flag.hpp"
#include "interpreter/stack_protection.hpp"
#include "interpreter/tagged_frames.hpp"

namespace culm::interpreter {

namespace {

static_assert(offsetof(PyThreadState, what_event) == offsetof(PyThreadState, tracing) + sizeof(int));

struct LocalWords {  // of threading.local
    PyObject* key = nullptr;
    PyObject* sentinel = nullptr;
};
static_assert(offsetof(PyThreadState, threading_local_sentinel) == offsetof(PyThreadState, threading_local_key) + 8);

struct AsyncioWords {
    PyObject* running_loop = nullptr;
    PyObject* running_task = nullptr;
};
static_assert(offsetof(_PyThreadStateImpl, asyncio_running_task) ==
              offsetof(_PyThreadStateImpl, asyncio_running_loop) + 8);

struct Words : CommonWords {
    _PyInterpreterFrame* current_frame = nullptr;
    PyObject* current_exception = nullptr;
    LocalWords local;
    AsyncioWords asyncio;
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
    words.current_frame = tstate->current_frame;
    words.current_exception = tstate->current_exception;
    save_run(words.local, tstate->threading_local_key);
    words.current_executor = Py_XNewRef(tstate->current_executor);
    words.jit_exit = tstate->jit_exit;
    const _PyThreadStateImpl* shifted = shifted_thread_state(tstate);
    save_run(words.asyncio, shifted->asyncio_running_loop);
    save_stack_protection(words.stack_protection, shifted);
}

void load(const Words& words, PyThreadState* tstate) noexcept {
    load_common(words, tstate);
    tstate->py_recursion_remaining = tstate->py_recursion_limit - words.recursion_depth;
    tstate->current_frame = words.current_frame;
    tstate->last_profiled_frame = nullptr;  // a frame of the other fiber: a profiler must walk the whole chain
    tstate->current_exception = words.current_exception;
    load_run(words.local, tstate->threading_local_key);
    tstate->current_executor = words.current_executor;
    tstate->jit_exit = words.jit_exit;
    _PyThreadStateImpl* shifted = shifted_thread_state(tstate);
    load_run(words.asyncio, shifted->asyncio_running_loop);
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

void prepare(SavedState& state, const ThreadRecord& thread, void* chunk, std::size_t chunk_bytes,
             std::byte* c_stack_limit, std::byte* c_stack_base, unsigned long identity, PyObject* context) noexcept {
    Words& words = *new (state.bytes) Words{};
    prepare_common(words, chunk, chunk_bytes, identity, context);
    words.current_frame = thread.tstate->base_frame;
    words.tracing.event = -1;
    words.stack_protection = stack_protection_for(c_stack_limit, c_stack_base);
    words.defers_deallocation = static_cast<std::size_t>(c_stack_base - c_stack_limit) < deallocation_needs_bytes();
    words.overflow_raise.is_watched = words.defers_deallocation;  // only then does its window reach the yellow zone
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
    *thread.thread_id_slot = next.identity;
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
    forget_overflow(tstate, words.overflow_raise);
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
    clear_slot(words.asyncio.running_loop);
    clear_slot(words.asyncio.running_task);
    clear_slot(words.current_executor);
    clear_slot(words.local.key);
    clear_slot(words.local.sentinel);
}

int traverse(const SavedState& state, visitproc visit, void* arg) {
    const Words& words = words_of<Words>(state);
    Py_VISIT(words.current_exception);
    Py_VISIT(words.asyncio.running_loop);
    Py_VISIT(words.asyncio.running_task);
    Py_VISIT(words.current_executor);
    Py_VISIT(words.local.key);
    Py_VISIT(words.local.sentinel);
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

bool call_soon(const ThreadRecord& thread, int (*call)(void*), void* argument) noexcept {
    if (thread.is_main_thread) return Py_AddPendingCall(call, argument) == 0;
    return _PyEval_AddPendingCall(PyInterpreterState_Main(), call, argument, 0) == 0;
}

CallSite call_site(const ThreadRecord& thread) noexcept {
    const _PyInterpreterFrame* frame = thread.tstate->current_frame;
    return frame == nullptr ? CallSite{} : CallSite{frame, frame->stackpointer};
}

bool is_attached(const ThreadRecord& thread) noexcept { return PyThreadState_GetUnchecked() == thread.tstate; }

bool runs_other_interpreter(const ThreadRecord& thread) noexcept {
    const PyThreadState* attached = PyThreadState_GetUnchecked();
    return attached != nullptr && attached != thread.tstate;
}
bool may_run_python() noexcept { return !Py_IsFinalizing(); }
bool signal_tripped() noexcept { return tripped_ == nullptr || *tripped_ != 0; }
std::size_t c_recursion_budget(std::size_t) noexcept { return 0; }

}  // namespace culm::interpreter
