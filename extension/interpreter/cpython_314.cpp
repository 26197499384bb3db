// The interpreter state of a fiber on CPython 3.14.
//
// Particular to 3.14: the chain of frames ends in nothing; whether a chunk of the data stack is cached per thread
// differs between patch releases.
#include "interpreter/runtime_layout.hpp"
#include "interpreter/signal_flag.hpp"
#include "interpreter/tagged_words.hpp"

namespace culm::interpreter {

namespace {

struct Words : TaggedWords {};

const volatile int* tripped_ = nullptr;

void save(Words& words, PyThreadState* tstate) noexcept { save_tagged(words, tstate); }
void load(const Words& words, PyThreadState* tstate) noexcept { load_tagged(words, tstate); }

// 3.14.4 and later append a cached chunk to the thread state.
bool caches_chunk() {
    constexpr std::size_t kWithout =
        offsetof(PyThreadState, remote_debugger_support) + sizeof(_PyRemoteDebuggerSupport);
    return _PyRuntime.debug_offsets.thread_state.size >= kWithout + sizeof(void*);
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
    if (!caches_chunk()) install_chunk_cache();
    return true;
}

void prepare(SavedState& state, const ThreadRecord&, void* chunk, std::size_t chunk_bytes, std::byte* c_stack_limit,
             std::byte* c_stack_base, unsigned long identity, PyObject* context) noexcept {
    prepare_tagged(*new (state.bytes) Words{}, chunk, chunk_bytes, c_stack_limit, c_stack_base, identity, context);
}

void prepare_main(SavedState& state, const ThreadRecord& thread) noexcept { prepare_main_words<Words>(state, thread); }

void switch_state(ThreadRecord& thread, SavedState& from, SavedState& to) noexcept {
    exchange_words<Words>(thread, from, to);
}

void after_switch(ThreadRecord& thread, SavedState& now) noexcept {
    resume_tagged(thread.tstate, words_of<Words>(now));
}

void finish_running(ThreadRecord& thread, SavedState& state) {
    assert(thread.tstate->current_frame == nullptr);
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
