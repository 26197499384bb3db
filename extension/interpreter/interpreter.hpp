// The only door to CPython's internals: one file per minor version implements it, chosen by CMake.
//
// A fiber's interpreter state is a dozen words of the OS thread's PyThreadState, saved and loaded at each switch. The
// saved words (SavedState) and the fiber's first data-stack chunk (its Python frames) lie near the base of its stack,
// so that one page holds a whole parked fiber.
//
//   stack base | colour | SavedState | data-stack chunk | C stack grows down ...
//
// Limits: on 3.12, code on a suspended stack keeps the instrumentation that it had when a trace or monitoring function
// was set or removed, until its function is called again (Py_DEBUG builds assert on it). With the JIT of 3.14 turned
// on, which keeps its buffers on the stack, 64 KB are too little.
//
// Invariant: switch_state allocates nothing, raises nothing, runs no Python code and drops no reference.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>

namespace culm::interpreter {

inline constexpr std::size_t kSavedStateBytes = 256;

// Opaque outside the version file, which static_asserts that its layout fits.
struct alignas(16) SavedState {
    std::byte bytes[kSavedStateBytes];
};

// What is the same for all fibers of one OS thread.
struct ThreadRecord {
    PyThreadState* tstate = nullptr;
    unsigned long identity = 0;   // pthread_self() of the thread
    bool is_main_thread = false;  // it runs the signal handlers
    // Where switch_state writes the identity of the fiber that runs, once the interpreter sees an identity per fiber
    // (show_fiber_identities): _PyRuntime.main_thread, on the main thread, and the thread state's thread_id. Where
    // nothing is to be written, they point at dummy_slot.
    unsigned long* main_thread_slot = nullptr;
    unsigned long* thread_id_slot = nullptr;
    unsigned long dummy_slot = 0;
};

// The size of the data-stack chunk that fits best beside a parked fiber's C stack in one page.
std::size_t data_stack_chunk_bytes() noexcept;

// Once at import, with the GIL. Verifies that the running interpreter has the layout this module was compiled for
// (ImportError otherwise) and, where this version needs it, installs the caching wrapper around the arena allocator.
// False: a Python exception is set.
bool initialize();

// For the calling OS thread, with the GIL. Refuses a sub-interpreter (ImportError).
bool adopt_thread(ThreadRecord& thread);
// From now on the interpreter is told the identity of the running fiber instead of the thread's.
void show_fiber_identities(ThreadRecord& thread, unsigned long running_identity) noexcept;
// The thread's record is about to go: nothing is told any more.
void hide_fiber_identities(ThreadRecord& thread) noexcept;
// In the child of fork: the calling thread is now the main thread, and the interpreter has noted its identity.
void adopt_thread_after_fork(ThreadRecord& thread) noexcept;

// A new fiber that has not run: frames none, exception none, recursion depth 0, tracing as a new thread's, its own
// threading.local values. `context` is a contextvars context (stolen) or null. The C stack is [c_stack_limit,
// c_stack_base).
void prepare(SavedState& state, const ThreadRecord& thread, void* chunk, std::size_t chunk_bytes,
             std::byte* c_stack_limit, std::byte* c_stack_base, unsigned long identity, PyObject* context) noexcept;
// The thread's own flow of control; filled in by the first switch away from it.
void prepare_main(SavedState& state, const ThreadRecord& thread) noexcept;

// Saves the thread's per-fiber words into `from`, loads those of `to`. One call per switch: keep it lean.
void switch_state(ThreadRecord& thread, SavedState& from, SavedState& to) noexcept;
// First thing on the side that continues: drops what could not be dropped in switch_state (a JIT executor), and brings
// code up to date that was suspended while trace or monitoring functions changed.
void after_switch(ThreadRecord& thread, SavedState& now) noexcept;

// The running fiber is about to finish: clears its context, threading.local values and exception item. Runs Python.
void finish_running(ThreadRecord& thread, SavedState& state);
// Frees what a suspended fiber holds that will never run again (chunks, context, locals) without unwinding its frames.
void abandon(SavedState& state) noexcept;

// tp_traverse of a suspended fiber's state: frames, context, exception items, locals.
int traverse(const SavedState& state, visitproc visit, void* argument);

// The innermost Python frame of a suspended fiber (new reference), or null without an exception when it has none.
PyObject* suspended_frame(ThreadRecord& thread, SavedState& state);

// Makes `exception` (a class or instance, borrowed) be raised in the running fiber at the next check of the evaluation
// loop, and only in this fiber: if the fiber is switched away first, it travels with it. Null withdraws it.
void raise_soon(ThreadRecord& thread, SavedState& state, PyObject* exception) noexcept;
// Withdraws what raise_soon() has not delivered yet and returns it, a class to raise (new reference), or null.
PyObject* withdraw_raise_soon(ThreadRecord& thread, SavedState& state) noexcept;

// --- running out of stack (overflow_raise.hpp) ---

// Sets the exception class that is raised then. Its construction without arguments must call overflow_delivered(). Kept
// for good.
void set_overflow_exception(PyObject* exception_class) noexcept;
// In the fault handler, so async-signal-safe, with the GIL or without: the running fiber has used up its stack and goes
// on in the yellow zone, in its upper half or (`again`) deeper.
void overflow_soon(ThreadRecord& thread, SavedState& state, bool again) noexcept;
// The evaluation loop is constructing the exception that overflow_soon() has asked for. False: it was not asked for.
bool overflow_delivered(ThreadRecord& thread, SavedState& state) noexcept;
// A RecursionError of the interpreter's own is being constructed in the running fiber: does it stand for one that
// overflow_soon() wanted? If so, what made the interpreter raise it is undone.
bool overflow_replaced(ThreadRecord& thread, SavedState& state, bool has_overflown) noexcept;
// The evaluation loop has made a check since the exception was constructed: from here on another overflow raises anew,
// even before the stack has shrunk.
void overflow_raised(SavedState& state) noexcept;
bool overflow_pending(const ThreadRecord& thread, SavedState& state) noexcept;
// What is pending is taken along when the fiber is left, and put back when it continues.
void overflow_leaves(ThreadRecord& thread, SavedState& state) noexcept;
void overflow_returns(ThreadRecord& thread, SavedState& state) noexcept;
// The fiber's function has returned: it is raised no more.
void overflow_given_up(ThreadRecord& thread, SavedState& state) noexcept;
// Writes the running fiber's Python frames to stderr. Async-signal-safe.
void write_running_frames(const ThreadRecord& thread) noexcept;
// The running fiber's stack has shrunk again, and its zone is closed.
void overflow_ended(ThreadRecord& thread, SavedState& state) noexcept;

// The calling thread, whose record this is, holds the GIL with the thread state that its fibers share. About 1 ns.
bool is_attached(const ThreadRecord& thread) noexcept;
// It holds the GIL with another thread state: that of a sub-interpreter.
bool runs_other_interpreter(const ThreadRecord& thread) noexcept;

// Queues a pending call: the evaluation loop of that thread, or a wait of it for a lock, makes call(argument) soon. If
// that returns -1 with an exception set, the exception is raised there. From 3.12 on another thread may make the call
// instead, which the call has to find out. False: this version makes none on this thread, or the queue is full.
bool call_soon(const ThreadRecord& thread, int (*call)(void*), void* argument) noexcept;
// From 3.13 on, some interrupted waits for a lock make pending calls only on the main thread, which they tell by asking
// pthread_self(). For another thread: where the identity to answer them with lies. Null: the true answer will do.
const unsigned long* identity_that_makes_calls(const ThreadRecord& thread) noexcept;

// The call that the running fiber is making, as its innermost Python frame knows it: equal while it lasts, or when the
// same call is made again. Before 3.14 frames do not record it: all are equal.
struct CallSite {
    const void* frame = nullptr;
    const void* stack_pointer = nullptr;
    friend bool operator==(const CallSite&, const CallSite&) = default;
};
CallSite call_site(const ThreadRecord& thread) noexcept;

// The running fiber has a contextvars context to inherit.
bool has_context(const ThreadRecord& thread) noexcept;

// The interpreter is not finalizing: Python code may still be run.
bool may_run_python() noexcept;

// A signal has been tripped and waits for its Python handler.
bool signal_tripped() noexcept;

// How deep C recursion may go: what was set for the running fiber, in units of this version (0 where there is none).
std::size_t c_recursion_budget(std::size_t stack_bytes) noexcept;

// The cache of 16 KB data-stack chunks in front of the object arena allocator.
struct ChunkCacheStatistics {
    std::size_t hits = 0;    // chunk requests answered from the cache
    std::size_t misses = 0;  // chunk requests handed on
    std::size_t cached = 0;  // blocks in the cache
    bool installed = false;  // false where the interpreter keeps a chunk itself
};
ChunkCacheStatistics chunk_cache_statistics() noexcept;

}  // namespace culm::interpreter
