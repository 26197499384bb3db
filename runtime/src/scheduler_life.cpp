// The life of a scheduler: made for an OS thread, closed by it or by its end, split by fork.
// Invariant: current() is the scheduler of the calling thread from create() until close_current() or the thread's end.
#include <cxxabi.h>
#include <pthread.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>

#include "culm/overflow.hpp"
#include "embedder.hpp"
#include "fiber_moves.hpp"
#include "scheduler_inside.hpp"
#include "scheduler_parts.hpp"
#include "scheduler_registry.hpp"
#include "yellow_zone_keeper.hpp"

namespace culm::runtime {

// Closes the scheduler of a thread that ends without having done so. Fibers that are left never run again. The stacks
// of those without a host go with the thread, as its own stack does; a host keeps the stack of a fiber that would not
// end, because its language still refers into it.
struct ThreadExit {
    void touch() noexcept {}
    ~ThreadExit() {
        Scheduler* scheduler = Scheduler::current();
        if (!scheduler) return;
        if (scheduler->running_->is_main()) scheduler->inside().give_up_all();
        if (Scheduler::close_current()) return;
        // The thread ends on the stack of a fiber: nothing can be given back. Nobody will answer requests.
        scheduler->parts_->inbox.close();
        scheduler->parts_->closings->release();
        scheduler->parts_->shrinker.forget_kept();
    }
};

namespace {

thread_local ThreadExit thread_exit;

// Rounds of delivering late calls before close gives up.
constexpr int kCloseRoundsMax = 1000;

std::size_t append(char* buffer, std::size_t used, std::size_t buffer_bytes, const char* text, std::size_t bytes) {
    const std::size_t room = buffer_bytes - used;
    const std::size_t taken = bytes < room ? bytes : room;
    std::memcpy(buffer + used, text, taken);
    return used + taken;
}

// Inside the signal handler: formats by hand.
std::size_t describe_stack_owner(const Stack& stack, char* buffer, std::size_t buffer_bytes) {
    const Fiber* fiber = Scheduler::fiber_of_stack(stack);
    if (!fiber) return 0;
    if (detail::embedder.reports.describe) return detail::embedder.reports.describe(*fiber, buffer, buffer_bytes);
    char digits[20];
    std::size_t first = sizeof digits;
    for (std::uint64_t id = fiber->id(); id > 0; id /= 10) digits[--first] = static_cast<char>('0' + id % 10);
    std::size_t used = append(buffer, 0, buffer_bytes, "fiber ", 6);
    used = append(buffer, used, buffer_bytes, digits + first, sizeof digits - first);
    if (!fiber->name()) return used;
    used = append(buffer, used, buffer_bytes, " '", 2);
    used = append(buffer, used, buffer_bytes, fiber->name(), std::strlen(fiber->name()));
    return append(buffer, used, buffer_bytes, "'", 1);
}

void trace_stack_owner(const Stack& stack) {
    const Fiber* fiber = Scheduler::fiber_of_stack(stack);
    if (!fiber || fiber != &Scheduler::current()->running()) return;
    if (detail::embedder.reports.trace) detail::embedder.reports.trace(*fiber);
}

constexpr Error kNoMemory{ENOMEM, "make a scheduler", "raise the memory limit of the process"};

}  // namespace

Scheduler::Scheduler() noexcept = default;
Scheduler::~Scheduler() = default;

Result<Scheduler*> Scheduler::ensure() noexcept {
    if (current_) return current_;
    return create({});
}

Result<Scheduler*> Scheduler::create(SchedulerOptions options) noexcept {
    if (current_) return Error{EEXIST, "make a scheduler", "close_current() first: a thread has one scheduler"};
    if (auto installed =
            install_overflow_handler({&describe_stack_owner, &YellowZoneKeeper::may_open, &trace_stack_owner});
        !installed)
        return installed.error();
    std::unique_ptr<Inside> scheduler(new (std::nothrow) Inside());
    if (!scheduler) return kNoMemory;
    if (auto opened = scheduler->open(std::move(options)); !opened) return opened.error();
    thread_exit.touch();
    current_ = scheduler.release();
    return current_;
}

Result<void> Scheduler::Inside::open(SchedulerOptions&& options) noexcept {
    parts_.reset(new (std::nothrow) Parts());
    if (!parts_) return kNoMemory;
    parts_->stacks.reset(new (std::nothrow) StackPool());
    if (!parts_->stacks) return kNoMemory;
    parts_->thread_identity = pthread_self();
    parts_->run_queue.set_seed(options.seed);

    clock_ = options.clock ? std::move(options.clock) : make_monotonic_clock();
    clock_jumps_ = clock_->skip_to(clock_->now_ns());  // to where it is already: only asks whether it would
    if (!parts_->shrinker.open(*parts_->stacks, parts_->strategy_stacks, clock_jumps_)) return kNoMemory;
    epoch_ = parts_->shrinker.keep_time(clock_->now_ns());
    reactor_ = std::move(options.reactor);
    if (!reactor_) {
        auto made = make_epoll_reactor();
        if (!made) return made.error();
        reactor_ = std::move(made).value();
    }
    if (auto ensured = ensure_thread_signal_stack(); !ensured) return ensured.error();

    if (!SchedulerRegistry::get().enrol(*this)) return kNoMemory;
    main_ = running_ = new_main_fiber();
    if (main_) parts_->closings = ClosingNotices::claim(*this);
    if (!parts_->closings) {
        if (main_) FiberSlab::give_back(*main_);
        SchedulerRegistry::get().withdraw(*this);
        return kNoMemory;
    }
    errno_ = &errno;
    exceptions_ = __cxxabiv1::__cxa_get_globals();
    parts_->inbox.open(*reactor_);
    return {};
}

namespace {

constexpr Error kBusy{EBUSY, "close a scheduler", "let all fibers finish, then close it from the main fiber"};

}  // namespace

Result<void> Scheduler::close_current() noexcept {
    Scheduler* self = current_;
    if (!self) return {};
    Parts& parts = *self->parts_;
    for (int round = 0; round < kCloseRoundsMax; ++round) {
        if (!self->running_->is_main_ || self->at_work_) return kBusy;
        if (parts.fibers > 0 || parts.unstarted > 0) return kBusy;
        if (parts.inbox.close_if_empty()) {
            self->inside().shut();
            release_thread_signal_stack();
            return {};
        }
        self->inside().catch_up();
    }
    return kBusy;
}

// Gives everything back but what holders of references may still look at; the registry destroys that later.
void Scheduler::Inside::shut() noexcept {
    Parts& parts = *parts_;
    if (parts.stacks_abandoned > 0) {
        parts.stacks->trim();
        SchedulerRegistry::get().keep(std::move(parts.stacks));
    }
    parts.stacks.reset();
    parts.closings->release();
    reactor_.reset();
    current_ = nullptr;
    FiberSlab::set_owned(nullptr);
    main_->move_to(FiberState::kFinished);
    main_->release();
    SchedulerRegistry::get().retire(*this);
}

StackPool& Scheduler::stack_pool() noexcept { return *parts_->stacks; }

bool Scheduler::exact_peaks() const noexcept { return parts_->shrinker.exact_peaks(); }

unsigned long Scheduler::thread_identity() const noexcept { return parts_->thread_identity; }

std::int64_t Scheduler::deadline_of(const Fiber& fiber) const noexcept { return parts_->timers.deadline_of(fiber); }

SchedulerStatistics Scheduler::statistics() const noexcept {
    const Parts& parts = *parts_;
    SchedulerStatistics result;
    result.switches = switches_;
    result.spawned = parts.spawned;
    result.finished = parts.finished;
    result.polls = parts.polls;
    result.idle_polls = parts.idle_polls;
    result.remote_calls = parts.remote_calls;
    result.fibers = parts.fibers;
    result.ready = parts.run_queue.size();
    result.timers = parts.timers.size();
    result.fd_waits = reactor_->waiting();
    result.shrink = parts.shrinker.statistics();
    return result;
}

void Scheduler::Inside::give_up_all() noexcept {
    parts_->shrinker.for_each([&](Fiber& fiber) {
        give_up(fiber, fiber.host == nullptr);
        return true;
    });
}

}  // namespace culm::runtime
