// Who am I: in the interpreter, pthread_self() names the running fiber, so that its locks and threading.local values
// tell fibers apart; calls that act on a thread translate a fiber's name back to that of its OS thread.
//
// A fiber can be named only on its own OS thread: for the identity of a fiber elsewhere, or of one that has ended, the
// calls fail with ESRCH. What would change the thread for all of its fibers (its name) or end it (join, detach) is not
// done on behalf of a fiber.
#include <cerrno>
#include <cstring>
#include <utility>

#include "culm/runtime/fiber.hpp"
#include "culm/runtime/interpose.hpp"
#include "culm/runtime/scheduler.hpp"
#include "fiber_notes.hpp"
#include "fiber_slab.hpp"
#include "hooks.hpp"

namespace culm::runtime::interpose {

namespace {

constinit thread_local const unsigned long* single_answer = nullptr;

struct Search {
    unsigned long identity;
    bool found;
};

// A fiber of the calling thread other than its main one.
bool names_fiber(pthread_t thread) noexcept {
    Scheduler* scheduler = Scheduler::current();
    if (!scheduler || thread == scheduler->thread_identity()) return false;
    if (thread == scheduler->running().identity()) return true;
    Search search{thread, false};
    scheduler->for_each_fiber(
        [](Fiber& fiber, void* context) {
            auto& wanted = *static_cast<Search*>(context);
            wanted.found = wanted.found || fiber.identity() == wanted.identity;
        },
        &search);
    return search.found;
}

// Makes the call for the OS thread that `thread` means: its own if it names a fiber of the calling thread.
template <class Call>
int on_thread_of(pthread_t thread, Call call) noexcept {
    if (names_fiber(thread)) return call(Scheduler::current()->thread_identity());
    if (FiberSlab::holds(thread)) return ESRCH;  // libc would take it for the address of a thread's record
    return call(thread);
}

}  // namespace

void answer_identity_once(const unsigned long* answer) noexcept { single_answer = answer; }

bool is_lock_cancelled(Fiber& running) noexcept { return FiberNotes(running).is_lock_cancelled(); }
void settle_lock_cancelled(Fiber& running) noexcept { FiberNotes(running).set_lock_cancelled(false); }
bool was_asked_identity(Fiber& running) noexcept { return FiberNotes(running).was_asked_identity(); }

namespace hooks {

pthread_t pthread_self() noexcept {
    Scheduler* scheduler = Scheduler::current();
    if (!scheduler) return real.pthread_self();
    Fiber& running = scheduler->running();
    FiberNotes notes(running);
    notes.note_identity_asked();
    if (notes.is_lock_cancelled() && single_answer) [[unlikely]]
        return *std::exchange(single_answer, nullptr);
    return running.identity();
}

int pthread_kill(pthread_t thread, int signal) noexcept {
    return on_thread_of(thread, [&](pthread_t target) noexcept { return real.pthread_kill(target, signal); });
}
int pthread_sigqueue(pthread_t thread, int signal, const union sigval value) noexcept {
    return on_thread_of(thread,
                        [&](pthread_t target) noexcept { return real.pthread_sigqueue(target, signal, value); });
}
int pthread_getcpuclockid(pthread_t thread, clockid_t* clock) noexcept {
    return on_thread_of(thread, [&](pthread_t target) noexcept { return real.pthread_getcpuclockid(target, clock); });
}
// The attributes are those of the OS thread: its stack, not the fiber's.
int pthread_getattr_np(pthread_t thread, pthread_attr_t* attributes) noexcept {
    return on_thread_of(thread, [&](pthread_t target) noexcept { return real.pthread_getattr_np(target, attributes); });
}
int pthread_getschedparam(pthread_t thread, int* policy, sched_param* parameters) noexcept {
    return on_thread_of(
        thread, [&](pthread_t target) noexcept { return real.pthread_getschedparam(target, policy, parameters); });
}
int pthread_setschedparam(pthread_t thread, int policy, const sched_param* parameters) noexcept {
    return on_thread_of(
        thread, [&](pthread_t target) noexcept { return real.pthread_setschedparam(target, policy, parameters); });
}
int pthread_getaffinity_np(pthread_t thread, std::size_t bytes, cpu_set_t* cpus) noexcept {
    return on_thread_of(thread,
                        [&](pthread_t target) noexcept { return real.pthread_getaffinity_np(target, bytes, cpus); });
}
int pthread_setaffinity_np(pthread_t thread, std::size_t bytes, const cpu_set_t* cpus) noexcept {
    return on_thread_of(thread,
                        [&](pthread_t target) noexcept { return real.pthread_setaffinity_np(target, bytes, cpus); });
}
int pthread_getname_np(pthread_t thread, char* name, std::size_t room) noexcept {
    return on_thread_of(thread, [&](pthread_t target) noexcept { return real.pthread_getname_np(target, name, room); });
}

int pthread_setname_np(pthread_t thread, const char* name) noexcept {
    if (names_fiber(thread) || FiberSlab::holds(thread)) return 0;
    return real.pthread_setname_np(thread, name);
}

int pthread_detach(pthread_t thread) noexcept {
    if (names_fiber(thread) || FiberSlab::holds(thread)) return 0;
    return real.pthread_detach(thread);
}

// A fiber is joined by Scheduler::join: there is no exit value of a pthread to be had.
int pthread_join(pthread_t thread, void** result) noexcept {
    if (names_fiber(thread) || FiberSlab::holds(thread)) return EINVAL;
    return real.pthread_join(thread, result);
}

}  // namespace hooks

}  // namespace culm::runtime::interpose
