// The interpreter state of a fiber on CPython 3.13.
//
// Particular to 3.13: the innermost frame is in the thread state itself; threading.local has two words of its own;
// asyncio's running loop follows right after the public thread state, whose size differs between patch releases, as
// does whether a chunk of the data stack is cached per thread.
// Invariant: nothing behind the public thread state is touched before its size was read from the running interpreter.
#include "interpreter/c_recursion.hpp"
#include "interpreter/frame_chain.hpp"
#include "interpreter/instrumentation.hpp"
#include "interpreter/local_words.hpp"
#include "interpreter/plain_frames.hpp"
#include "interpreter/runtime_layout.hpp"
#include "interpreter/saved_words.hpp"
#include "interpreter/signal_flag.hpp"

namespace culm::interpreter {

namespace {

struct Words : CommonWords {
    _PyInterpreterFrame* current_frame = nullptr;
    PyObject* current_exception = nullptr;
    LocalWords local;
    PyObject* asyncio_running_loop = nullptr;
    PyObject* previous_executor = nullptr;  // owned by whoever is entering or leaving optimized code on this stack
    std::uint32_t instrumentation_version = 0;
    int c_recursion_remaining = 0;
};

struct Fields {
    static PyObject* function(_PyInterpreterFrame* frame) { return frame->f_funcobj; }
    static PyCodeObject* code(_PyInterpreterFrame* frame) { return _PyFrame_GetCode(frame); }
};
using Frames = PlainFrames<Fields>;

// What follows the public thread state. Found at import.
std::ptrdiff_t running_loop_offset_ = 0;

PyObject*& running_loop(PyThreadState* tstate) noexcept {
    return *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(tstate) + running_loop_offset_);
}

const volatile int* tripped_ = nullptr;

void save(Words& words, PyThreadState* tstate) noexcept {
    save_common(words, tstate);
    words.recursion_depth = tstate->py_recursion_limit - tstate->py_recursion_remaining;
    words.c_recursion_remaining = tstate->c_recursion_remaining;
    words.current_frame = tstate->current_frame;
    words.instrumentation_version = instrumentation_version(tstate);
    words.current_exception = tstate->current_exception;
    save_run(words.local, tstate->threading_local_key);
    words.previous_executor = tstate->previous_executor;
    words.asyncio_running_loop = running_loop(tstate);
}

void load(const Words& words, PyThreadState* tstate) noexcept {
    load_common(words, tstate);
    tstate->py_recursion_remaining = tstate->py_recursion_limit - words.recursion_depth;
    tstate->c_recursion_remaining = words.c_recursion_remaining;
    tstate->current_frame = words.current_frame;
    tstate->current_exception = words.current_exception;
    load_run(words.local, tstate->threading_local_key);
    tstate->previous_executor = words.previous_executor;
    running_loop(tstate) = words.asyncio_running_loop;
}

// A queue that is always empty in builds with a GIL follows the loop and a pointer: it points to itself.
bool find_running_loop(PyThreadState* tstate) {
    running_loop_offset_ = static_cast<std::ptrdiff_t>(_PyRuntime.debug_offsets.thread_state.size);
    constexpr std::ptrdiff_t kToQueue =
        offsetof(_PyThreadStateImpl, mem_free_queue) - offsetof(_PyThreadStateImpl, asyncio_running_loop);
    const bool plausible =
        running_loop_offset_ >= static_cast<std::ptrdiff_t>(sizeof(PyThreadState) - sizeof(void*)) &&
        running_loop_offset_ <= static_cast<std::ptrdiff_t>(sizeof(PyThreadState) + 4 * sizeof(void*));
    if (!plausible) return check_fields({{"asyncio's running loop", false}});
    auto* queue = reinterpret_cast<llist_node*>(reinterpret_cast<char*>(tstate) + running_loop_offset_ + kToQueue);
    return check_fields({{"asyncio's running loop", queue->next == queue && queue->prev == queue}});
}

// 3.13.13 and later append a cached chunk to the thread state.
bool caches_chunk() {
    constexpr std::size_t kWithout = offsetof(PyThreadState, threading_local_sentinel) + sizeof(PyObject*);
    return _PyRuntime.debug_offsets.thread_state.size > kWithout;
}

}  // namespace

std::size_t data_stack_chunk_bytes() noexcept { return 1536; }

bool initialize() {
    if (!check_version()) return false;
    PyThreadState* tstate = PyThreadState_GetUnchecked();
    PyEval_GetFrame();  // makes the frame object that is compared
    if (!check_thread_state(tstate, tstate->py_recursion_limit, innermost_frame(tstate))) return false;
    if (!find_main_thread_slot()) return false;
    if (!find_running_loop(tstate)) return false;
    if (!read_c_recursion_limit()) return false;
    tripped_ = find_tripped_flag(&_PyRuntime.signals.is_tripped, handler_at);
    if (!caches_chunk()) install_chunk_cache();
    return true;
}

void prepare(SavedState& state, const ThreadRecord&, void* chunk, std::size_t chunk_bytes, std::byte* c_stack_limit,
             std::byte* c_stack_base, unsigned long identity, PyObject* context) noexcept {
    Words& words = *new (state.bytes) Words{};
    prepare_common(words, chunk, chunk_bytes, identity, context);
    words.tracing.event = -1;
    words.c_recursion_remaining =
        static_cast<int>(c_recursion_units(static_cast<std::size_t>(c_stack_base - c_stack_limit)));
    words.overflow_raise.units_at_bottom = words.c_recursion_remaining;
}

void prepare_main(SavedState& state, const ThreadRecord& thread) noexcept { prepare_main_words<Words>(state, thread); }

void switch_state(ThreadRecord& thread, SavedState& from, SavedState& to) noexcept {
    exchange_words<Words>(thread, from, to);
}

void after_switch(ThreadRecord& thread, SavedState& now) noexcept {
    Words& words = words_of<Words>(now);
    resume_instrumentation(thread.tstate, words.instrumentation_version);
    resume_pending_raise(thread.tstate, words.pending_raise);
}

void finish_running(ThreadRecord& thread, SavedState& state) {
    PyThreadState* tstate = thread.tstate;
    assert(tstate->current_frame == nullptr);
    finish_common(tstate, words_of<Words>(state), [&] {
        const bool cleared = clear_slot(running_loop(tstate));
        return clear_running_local(tstate) || cleared;
    });
}

void abandon(SavedState& state) noexcept {
    Words& words = words_of<Words>(state);
    let_go_frames<Frames>(words.current_frame);
    abandon_common(words);
    clear_slot(words.current_exception);
    clear_slot(words.asyncio_running_loop);
    clear_slot(words.local.key);
    clear_slot(words.local.sentinel);
}

int traverse(const SavedState& state, visitproc visit, void* arg) {
    const Words& words = words_of<Words>(state);
    Py_VISIT(words.current_exception);
    Py_VISIT(words.asyncio_running_loop);
    Py_VISIT(words.local.key);
    Py_VISIT(words.local.sentinel);
    if (const int result = visit_common(words, visit, arg)) return result;
    return visit_frames<Frames>(words.current_frame, visit, arg);
}

PyObject* suspended_frame(ThreadRecord& thread, SavedState& state) {
    return frame_object(thread.tstate, thread.tstate->current_frame, words_of<Words>(state).current_frame);
}

CallSite call_site(const ThreadRecord&) noexcept { return {}; }

bool signal_tripped() noexcept { return tripped_ == nullptr || *tripped_ != 0; }
std::size_t c_recursion_budget(std::size_t stack_bytes) noexcept { return c_recursion_units(stack_bytes); }

}  // namespace culm::interpreter
