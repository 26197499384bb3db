// The interpreter state of a fiber on CPython 3.11.
//
// Particular to 3.11: Python frames hang off a _PyCFrame, the innermost of which also says whether the evaluation loop
// traces; one counter limits Python and C recursion together; a pending exception is three words; asyncio keeps its
// running loop in the thread state's dict and caches it under the thread state's id, so the id is per fiber too.
// Invariant: the _PyCFrame of a fiber's first frame is in its SavedState and outlives all others of that fiber.
#include "interpreter/frame_chain.hpp"
#include "interpreter/plain_frames.hpp"
#include "interpreter/runtime_layout.hpp"
#include "interpreter/saved_words.hpp"

namespace culm::interpreter {

namespace {

static_assert(offsetof(PyThreadState, tracing_what) == offsetof(PyThreadState, tracing) + sizeof(int));

struct Words : CommonWords {
    _PyCFrame* cframe = nullptr;
    _PyCFrame first_cframe{};
    PyObject* curexc_type = nullptr;
    PyObject* curexc_value = nullptr;
    PyObject* curexc_traceback = nullptr;
    std::uint64_t id = 0;
    int trash_delete_nesting = 0;
};

struct Fields {
    static PyObject* function(_PyInterpreterFrame* frame) { return reinterpret_cast<PyObject*>(frame->f_func); }
    static PyCodeObject* code(_PyInterpreterFrame* frame) { return frame->f_code; }
};
using Frames = PlainFrames<Fields>;

// Ids of fibers, far from those that the interpreter counts up from 1. Only caches compare them.
std::uint64_t next_id_ = std::uint64_t{1} << 62;

const volatile int* signals_pending_ = nullptr;

void save(Words& words, PyThreadState* tstate) noexcept {
    save_common(words, tstate);
    words.recursion_depth = tstate->recursion_limit - tstate->recursion_remaining;
    words.cframe = tstate->cframe;
    words.curexc_type = tstate->curexc_type;
    words.curexc_value = tstate->curexc_value;
    words.curexc_traceback = tstate->curexc_traceback;
    words.id = tstate->id;
    words.trash_delete_nesting = tstate->trash_delete_nesting;
}

void load(const Words& words, PyThreadState* tstate) noexcept {
    load_common(words, tstate);
    tstate->recursion_remaining = tstate->recursion_limit - words.recursion_depth;
    tstate->cframe = words.cframe;
    tstate->curexc_type = words.curexc_type;
    tstate->curexc_value = words.curexc_value;
    tstate->curexc_traceback = words.curexc_traceback;
    tstate->id = words.id;
    tstate->trash_delete_nesting = words.trash_delete_nesting;
    // A trace function may have been set or removed while the fiber was suspended.
    const bool traces =
        (tstate->c_tracefunc != nullptr || tstate->c_profilefunc != nullptr) && words.tracing.tracing == 0;
    words.cframe->use_tracing = traces ? 255 : 0;
}

PyFrameObject* innermost_frame(PyThreadState* tstate) {
    _PyInterpreterFrame* frame = tstate->cframe->current_frame;
    while (frame != nullptr && _PyFrame_IsIncomplete(frame)) frame = frame->previous;
    return frame == nullptr ? nullptr : frame->frame_obj;
}

// The flag lies beside the GIL, which the caller holds. Not verified: signal_tripped() then always says yes.
void find_signal_flag(PyThreadState* tstate) {
    const auto& ceval = _PyRuntime.ceval;
    if (ceval.gil.last_holder._value != reinterpret_cast<std::uintptr_t>(tstate)) return;
    if (ceval.gil.locked._value != 1) return;
    signals_pending_ = &ceval.signals_pending._value;
}

}  // namespace

std::size_t data_stack_chunk_bytes() noexcept { return 1536; }

bool initialize() {
    if (!check_version()) return false;
    PyThreadState* tstate = PyThreadState_GetUnchecked();
    PyEval_GetFrame();  // makes the frame object that is compared
    if (!check_thread_state(tstate, tstate->recursion_limit, innermost_frame(tstate))) return false;
    if (!find_main_thread_slot()) return false;
    find_signal_flag(tstate);
    install_chunk_cache();
    return true;
}

void prepare(SavedState& state, const ThreadRecord& thread, void* chunk, std::size_t chunk_bytes, std::byte*,
             std::byte*, unsigned long identity, PyObject* context) noexcept {
    Words& words = *new (state.bytes) Words{};
    prepare_common(words, chunk, chunk_bytes, identity, context);
    words.first_cframe.previous = &thread.tstate->root_cframe;
    words.cframe = &words.first_cframe;
    words.id = next_id_++;
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
    clear_slot(words.curexc_type);
    clear_slot(words.curexc_value);
    clear_slot(words.curexc_traceback);
}

int traverse(const SavedState& state, visitproc visit, void* arg) {
    const Words& words = words_of<Words>(state);
    Py_VISIT(words.curexc_type);
    Py_VISIT(words.curexc_value);
    Py_VISIT(words.curexc_traceback);
    if (const int result = visit_common(words, visit, arg)) return result;
    return visit_frames<Frames>(words.cframe->current_frame, visit, arg);
}

PyObject* suspended_frame(ThreadRecord& thread, SavedState& state) {
    return frame_object(thread.tstate, thread.tstate->cframe, words_of<Words>(state).cframe);
}

// 3.11 makes pending calls on the main thread only.
bool call_soon(const ThreadRecord& thread, int (*call)(void*), void* argument) noexcept {
    return thread.is_main_thread && Py_AddPendingCall(call, argument) == 0;
}

const unsigned long* identity_that_makes_calls(const ThreadRecord&) noexcept { return nullptr; }

CallSite call_site(const ThreadRecord&) noexcept { return {}; }

// 3.11 knows only who holds the GIL, in the whole process.
bool is_attached(const ThreadRecord& thread) noexcept { return PyThreadState_GetUnchecked() == thread.tstate; }

// Another holder may be another thread. With a second interpreter in the process that cannot be told apart from a
// sub-interpreter that runs here: then it counts as one.
bool runs_other_interpreter(const ThreadRecord& thread) noexcept {
    return PyInterpreterState_Head() != PyInterpreterState_Main() && !is_attached(thread);
}
bool may_run_python() noexcept { return !Py_IsFinalizing(); }
bool signal_tripped() noexcept { return signals_pending_ == nullptr || *signals_pending_ != 0; }
std::size_t c_recursion_budget(std::size_t) noexcept { return 0; }

}  // namespace culm::interpreter
