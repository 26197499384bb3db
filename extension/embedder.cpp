// The roles of the embedding language, each a few functions: at a switch, in a fiber's life, when nothing can run, when
// a signal waits, in an interposed call. Those for overflows are in overflow.cpp, those for fork in fork.cpp.
//
// Invariant: given_stack, exchange and becomes_runnable allocate nothing, run no Python code and drop no reference.
#include "embedder.hpp"

#include <cerrno>
#include <cstdio>
#include <new>

#include "culm/runtime/interpose.hpp"
#include "deadline.hpp"
#include "errors.hpp"
#include "fiber_type.hpp"
#include "fork.hpp"
#include "overflow.hpp"

namespace culm::extension {

using runtime::Consent;
using runtime::Fiber;
using runtime::Scheduler;

namespace {

std::uint32_t chunk_bytes() noexcept {
    static const auto bytes = static_cast<std::uint32_t>(interpreter::data_stack_chunk_bytes());
    return bytes;
}

void given_stack(Fiber& fiber) {
    ThreadHost& host = *thread_host;
    std::byte* chunk = fiber.host_area();
    interpreter::prepare(saved_state(host, fiber), host.record, chunk, chunk_bytes(), fiber.stack().limit(), chunk,
                         fiber.identity(), static_cast<PyObject*>(fiber.take_argument()));
}

void exchange(Fiber& from, Fiber& to) {
    ThreadHost& host = *thread_host;
    interpreter::switch_state(host.record, saved_state(host, from), saved_state(host, to));
}

void arrived(Fiber& now) {
    ThreadHost& host = *thread_host;
    interpreter::after_switch(host.record, saved_state(host, now));
    flush_drops(host);
}

void becomes_runnable(Fiber& fiber) {
    if (fiber.host != nullptr && !fiber.is_main()) hold_scheduled(host_of(fiber));
}

// An idle poll lets other threads run. The tstate keeps the state of the fiber that polls.
void idling_begins(Fiber&) { PyEval_SaveThread(); }
void idling_ends(Fiber&) { PyEval_RestoreThread(thread_host->record.tstate); }

// Only the thread state that the fibers share may be switched: not that of a sub-interpreter that is running here.
Consent may_park(Fiber&) {
    if (thread_host == nullptr || interpreter::runs_other_interpreter(thread_host->record)) return Consent::kNo;
    return interpreter::is_attached(thread_host->record) ? Consent::kUnlessMutexHeld : Consent::kYes;
}

bool enter_call(Fiber&) {
    if (interpreter::is_attached(thread_host->record)) return false;
    PyEval_RestoreThread(thread_host->record.tstate);
    return true;
}

void leave_call(Fiber&, bool taken) {
    if (taken) PyEval_SaveThread();
}

// The call fails with ECANCELED. If that becomes an OSError, Cancelled takes its place; if C code makes something else
// of it, Cancelled is raised soon after.
void cancelled_in_call(Fiber& fiber) {
    ThreadHost& host = *thread_host;
    PyFiber* self = host_of(fiber);
    PyObject* exception = self->exception != nullptr ? self->exception : Cancelled;
    // An instance needs a class of its own to be delivered, which is dear when a million fibers are told to end.
    if (self->told_to_exit && PyErr_GivenExceptionMatches(exception, FiberExit)) exception = FiberExit;
    interpreter::raise_soon(host.record, saved_state(host, fiber), exception);
    Py_CLEAR(self->exception);
}

// Cancels the fiber once more, unless the cancellation of its lock's wait has been dealt with. On its own thread.
void cancel_again(PyFiber* self) {
    if (finished(self) || !runtime::interpose::is_lock_cancelled(*self->fiber)) return;
    runtime::interpose::settle_lock_cancelled(*self->fiber);
    Scheduler::cancel(*self->fiber);
}

void cancel_again_on_owner(Scheduler&, void* argument) {
    auto* self = static_cast<PyFiber*>(argument);
    cancel_again(self);
    drop_later(*thread_host, as_object(self));  // not here: the scheduler is at work, and the object's end may switch
}

struct LockCancelled {
    PyFiber* fiber;  // strong
    interpreter::CallSite call;
};

// A lock's wait fails with EINTR, upon which the interpreter makes pending calls. This is one, and raises Cancelled. It
// must be made by the fiber's own thread, within the call that waits. If another thread or another call of the fiber
// comes to it first, nothing is raised and the fiber is cancelled once more, so that its next wait is; raised after the
// wait, Cancelled would leave the lock locked for good.
int raise_in_lock(void* argument) {
    auto* request = static_cast<LockCancelled*>(argument);
    const auto [self, call] = *request;
    delete request;
    ThreadHost* host = thread_host;
    runtime::Scheduler& owner = self->fiber->scheduler();
    if (host == nullptr || host->scheduler != &owner) {
        if (owner.post(cancel_again_on_owner, self)) return 0;
        Scheduler::cancel(*self->fiber);  // no memory for the call: without asking, which needs none
        Py_DECREF(as_object(self));
        return 0;
    }
    int result = 0;
    if (!runtime::interpose::is_lock_cancelled(*self->fiber)) {
        // The lock was got after all: the cancellation has been put off to the next wait.
    } else if (running_fiber(*host) == self && interpreter::call_site(host->record) == call) {
        runtime::interpose::settle_lock_cancelled(*self->fiber);
        bool again = false;
        result = settle_wake(*host, runtime::Wake::kCancelled, again) ? 0 : -1;
    } else {
        cancel_again(self);
    }
    drop_later(*host, as_object(self));
    return result;
}

// Has the wait for the lock raise Cancelled itself. False where that cannot be: 3.11 makes no pending calls on other
// threads than the main one, and the queue may be full. It must not be raised soon after the wait instead: then the
// fiber would have got the lock, and nobody would unlock it.
bool cancelled_in_lock(Fiber& fiber) {
    ThreadHost& host = *thread_host;
    PyFiber* self = host_of(fiber);
    auto* request = new (std::nothrow) LockCancelled{self, interpreter::call_site(host.record)};
    if (request == nullptr) return false;
    Py_INCREF(as_object(self));
    if (interpreter::call_soon(host.record, raise_in_lock, request)) {
        runtime::interpose::answer_identity_once(interpreter::identity_that_makes_calls(host.record));
        return true;
    }
    Py_DECREF(as_object(self));
    delete request;
    return false;
}

// Only the main OS thread runs signal handlers.
bool signals_are_handled_by(const Scheduler&) { return thread_host != nullptr && thread_host->record.is_main_thread; }
bool signals_are_pending(const Scheduler& scheduler) {
    return signals_are_handled_by(scheduler) && interpreter::signal_tripped();
}

// Async-signal-safe: reads what is there, calls nothing of CPython.
std::size_t describe(const Fiber& fiber, char* buffer, std::size_t buffer_bytes) {
    const auto* self = static_cast<const PyFiber*>(fiber.host);
    const char* name = fiber.name();
    if (name == nullptr && self != nullptr && self->name != nullptr && PyUnicode_IS_COMPACT_ASCII(self->name)) {
        name = static_cast<const char*>(PyUnicode_DATA(self->name));
    }
    std::size_t length = 0;
    for (; name != nullptr && name[length] != '\0' && length < buffer_bytes; ++length) buffer[length] = name[length];
    return length;
}

}  // namespace

bool raise_instead_of_os_error(long error) {
    ThreadHost* host = thread_host;
    if (error != ECANCELED || host == nullptr || !interpreter::is_attached(host->record)) return true;
    PyFiber* self = running_fiber(*host);
    PyObject* exception = interpreter::withdraw_raise_soon(host->record, saved_state(*host, *self->fiber));
    if (exception == nullptr) return true;
    raise_class(self, exception);
    return false;
}

std::uint16_t host_stack_bytes() noexcept {
    static_assert(sizeof(interpreter::SavedState) % 16 == 0);
    return static_cast<std::uint16_t>(sizeof(interpreter::SavedState) + chunk_bytes());
}

bool inherit_context(ThreadHost& host, PyObject*& context) {
    context = nullptr;
    if (!interpreter::has_context(host.record)) return true;
    context = PyContext_CopyCurrent();
    return context != nullptr;
}

void install_embedder() noexcept {
    runtime::Embedder embedder;
    embedder.switching = {.exchange = exchange, .arrived = arrived};
    embedder.lives = {.given_stack = given_stack,
                      .becomes_runnable = becomes_runnable,
                      .lost_in_fork = lose_in_fork,
                      .forked = go_on_after_fork};
    embedder.idling = {.begins = idling_begins, .ends = idling_ends};
    embedder.signals = {.are_handled_by = signals_are_handled_by, .are_pending = signals_are_pending};
    embedder.calls = {.may_park = may_park,
                      .enter = enter_call,
                      .leave = leave_call,
                      .cancelled = cancelled_in_call,
                      .cancelled_in_lock = cancelled_in_lock};
    embedder.overflows = overflow_roles();
    embedder.unwinding = unwinding_roles();
    embedder.reports = {.describe = describe, .trace = trace_overflown};
    runtime::set_embedder(embedder);
}

}  // namespace culm::extension
