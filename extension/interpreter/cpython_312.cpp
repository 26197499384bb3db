// The interpreter state of a fiber on CPython 3.12.
//
// Particular to 3.12: Python frames hang off a _PyCFrame; C recursion has a counter of its own; frames on the C stack
// mark where C entered the evaluation loop; asyncio keeps its running loop in the thread state's dict and caches it
// under the thread state's id, so the id is per fiber too.
// Invariant: the _PyCFrame of a fiber's first frame is in its SavedState and outlives all others of that fiber.
#include "interpreter/c_recursion.hpp"
#include "interpreter/frame_chain.hpp"
#include "interpreter/plain_frames.hpp"
#include "interpreter/runtime_layout.hpp"
#include "interpreter/saved_words.hpp"
#include "interpreter/signal_flag.hpp"

namespace culm::interpreter {

namespace {

static_assert(offsetof(PyThreadState, what_event) == offsetof(PyThreadState, tracing) + sizeof(int));

struct Words : CommonWords {
    _PyCFrame* cframe = nullptr;
    _PyCFrame first_cframe{};
    PyObject* current_exception = nullptr;
    std::uint64_t id = 0;
    int c_recursion_remaining = 0;
    int trash_delete_nesting = 0;
};

struct Fields {
    static PyObject* function(_PyInterpreterFrame* frame) { return frame->f_funcobj; }
    static PyCodeObject* code(_PyInterpreterFrame* frame) { return frame->f_code; }
};
using Frames = PlainFrames<Fields>;

// Ids of fibers, far from those that the interpreter counts up from 1. Only caches compare them.
std::uint64_t next_id_ = std::uint64_t{1} << 62;

const volatile int* tripped_ = nullptr;

void save(Words& words, PyThreadState* tstate) noexcept {
    save_common(words, tstate);
    words.recursion_depth = tstate->py_recursion_limit - tstate->py_recursion_remaining;
    words.c_recursion_remaining = tstate->c_recursion_remaining;
    words.cframe = tstate->cframe;
    words.current_exception = tstate->current_exception;
    words.id = tstate->id;
    words.trash_delete_nesting = tstate->trash.delete_nesting;
}

void load(const Words& words, PyThreadState* tstate) noexcept {
    load_common(words, tstate);
    tstate->py_recursion_remaining = tstate->py_recursion_limit - words.recursion_depth;
    tstate->c_recursion_remaining = words.c_recursion_remaining;
    tstate->cframe = words.cframe;
    tstate->current_exception = words.current_exception;
    tstate->id = words.id;
    tstate->trash.delete_nesting = words.trash_delete_nesting;
}

PyFrameObject* innermost_frame(PyThreadState* tstate) {
    const _PyInterpreterFrame* frame = _PyFrame_GetFirstComplete(tstate->cframe->current_frame);
    return frame == nullptr ? nullptr : frame->frame_obj;
}

PyObject* handler_at(int number) {
    return reinterpret_cast<PyObject*>(_PyRuntime.signals.handlers[number].func._value);
}

}  // namespace

std::size_t data_stack_chunk_bytes() noexcept { return 1536; }

bool initialize() {
    if (!check_version()) return false;
    PyThreadState* tstate = PyThreadState_GetUnchecked();
    PyEval_GetFrame();  // makes the frame object that is compared
    if (!check_thread_state(tstate, tstate->py_recursion_limit, innermost_frame(tstate))) return false;
    if (!find_main_thread_slot()) return false;
    if (!read_c_recursion_limit()) return false;
    tripped_ = find_tripped_flag(&_PyRuntime.signals.is_tripped._value, handler_at);
    install_chunk_cache();
    return true;
}

void prepare(SavedState& state, const ThreadRecord& thread, void* chunk, std::size_t chunk_bytes,
             std::byte* c_stack_limit, std::byte* c_stack_base, unsigned long identity, PyObject* context) noexcept {
    Words& words = *new (state.bytes) Words{};
    prepare_common(words, chunk, chunk_bytes, identity, context);
    words.first_cframe.previous = &thread.tstate->root_cframe;
    words.cframe = &words.first_cframe;
    words.id = next_id_++;
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
    resume_pending_raise(thread.tstate, words_of<Words>(now).pending_raise);
}

void finish_running(ThreadRecord& thread, SavedState& state) {
    Words& words = words_of<Words>(state);
    assert(thread.tstate->cframe == &words.first_cframe);
    finish_common(thread.tstate, words, [] { return false; });
}

void abandon(SavedState& state) noexcept {
    Words& words = words_of<Words>(state);
    let_go_frames<Frames>(words.cframe->current_frame);
    abandon_common(words);
    clear_slot(words.current_exception);
}

int traverse(const SavedState& state, visitproc visit, void* arg) {
    const Words& words = words_of<Words>(state);
    Py_VISIT(words.current_exception);
    if (const int result = visit_common(words, visit, arg)) return result;
    return visit_frames<Frames>(words.cframe->current_frame, visit, arg);
}

PyObject* suspended_frame(ThreadRecord& thread, SavedState& state) {
    return frame_object(thread.tstate, thread.tstate->cframe, words_of<Words>(state).cframe);
}

CallSite call_site(const ThreadRecord&) noexcept { return {}; }

bool signal_tripped() noexcept { return tripped_ == nullptr || *tripped_ != 0; }
std::size_t c_recursion_budget(std::size_t stack_bytes) noexcept { return c_recursion_units(stack_bytes); }

}  // namespace culm::interpreter
