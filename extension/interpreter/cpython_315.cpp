// The interpreter state of a fiber on CPython 3.15.
//
// Particular to 3.15: the chain of frames ends at the thread state's base_frame, which profilers that read from outside
// look for; the JIT keeps the exit it is taking in the thread state.
#include "interpreter/runtime_layout.hpp"
#include "interpreter/signal_flag.hpp"
#include "interpreter/tagged_words.hpp"

namespace culm::interpreter {

namespace {

struct Words : TaggedWords {
    struct _PyExitData* jit_exit = nullptr;
};

const volatile int* tripped_ = nullptr;

void save(Words& words, PyThreadState* tstate) noexcept {
    save_tagged(words, tstate);
    words.jit_exit = tstate->jit_exit;
}

void load(const Words& words, PyThreadState* tstate) noexcept {
    load_tagged(words, tstate);
    tstate->last_profiled_frame = nullptr;  // a frame of the other fiber: a profiler must walk the whole chain
    tstate->jit_exit = words.jit_exit;
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
    prepare_tagged(words, chunk, chunk_bytes, c_stack_limit, c_stack_base, identity, context);
    words.current_frame = thread.tstate->base_frame;
}

void prepare_main(SavedState& state, const ThreadRecord& thread) noexcept { prepare_main_words<Words>(state, thread); }

void switch_state(ThreadRecord& thread, SavedState& from, SavedState& to) noexcept {
    exchange_words<Words>(thread, from, to);
}

void after_switch(ThreadRecord& thread, SavedState& now) noexcept {
    resume_tagged(thread.tstate, words_of<Words>(now));
}

void finish_running(ThreadRecord& thread, SavedState& state) {
    assert(thread.tstate->current_frame == thread.tstate->base_frame);
    finish_tagged(thread.tstate, words_of<Words>(state));
}

void abandon(SavedState& state) noexcept { abandon_tagged(words_of<Words>(state)); }

int traverse(const SavedState& state, visitproc visit, void* arg) {
    return visit_tagged(words_of<Words>(state), visit, arg);
}

PyObject* suspended_frame(ThreadRecord& thread, SavedState& state) {
    return frame_object(thread.tstate, thread.tstate->current_frame, words_of<Words>(state).current_frame);
}

CallSite call_site(const ThreadRecord& thread) noexcept { return recorded_call_site(thread.tstate); }

bool signal_tripped() noexcept { return tripped_ == nullptr || *tripped_ != 0; }
std::size_t c_recursion_budget(std::size_t) noexcept { return 0; }

}  // namespace culm::interpreter
