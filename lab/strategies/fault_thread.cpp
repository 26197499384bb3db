// The same reservations, opened by a helper thread: the handler writes the address into a pipe and waits for the
// answer.
//
// This is how the fault is handled when one holds that mprotect must not be called in a signal handler. It costs two
// switches of threads a fault. Invariant: a request is answered before its asker goes on; it lies on the asker's stack.
#include <atomic>
#include <mutex>

#include "culm/fault_resolver.hpp"
#include "culm/overflow.hpp"
#include "strategies/growth.hpp"
#include "strategies/strategies.hpp"
#include "strategy/faulted_slots.hpp"
#include "strategy/strategy.hpp"

namespace culm::lab::strategies {

namespace {

constexpr StrategyTraits kTraits{
    .grows = true,
    .shrinks = true,
    .guard = GuardMeans::kMprotect,
    .catches_small_overflow = true,
    .catches_large_overflow = true,
    .neighbour_safe = true,
    .kernel_may_write = KernelWrites::kThroughFunction,
    .mappings_per_stack = 2,
    .strict_overcommit = StrictOvercommit::kWorks,
    .survives_fork = false,  // the helper thread is the parent's
    .guard_survives_fork = true,
};

enum Answer : int { kNone, kOpened, kRefused };

struct Request {
    void* address;
    std::atomic<int>* answer;
};

constinit StackStrategy* resolver_of = nullptr;

bool resolve(void* address) { return resolver_of->commit_on_fault(address); }

class FaultThread final : public StackStrategy {
public:
    const char* id() const noexcept override { return "fault-thread"; }
    const char* name() const noexcept override { return "PROT_NONE + SIGSEGV + helper thread"; }
    const char* summary() const noexcept override {
        return "As fault-handler, but the handler has a helper thread open the stack, which it tells through a pipe: "
               "several times dearer per fault, and a child of fork has no helper.";
    }
    const StrategyTraits& traits() const noexcept override { return kTraits; }

    void destroy(std::span<const StrategyStack> stacks) noexcept override { slots_.destroy(stacks); }
    std::size_t shrink(std::span<const SuspendedStrategyStack> stacks) noexcept override {
        return slots_.shrink(stacks);
    }
    Result<void> prepare_thread() noexcept override { return ensure_thread_signal_stack(); }

    bool commit_on_fault(void* address) noexcept override {
        if (!slots_.holds(address)) return false;
        const int pipe = write_end_.load(std::memory_order_acquire);
        if (pipe < 0) return false;
        std::atomic<int> answer{kNone};
        const Request request{address, &answer};
        if (!write_whole(pipe, &request, sizeof(request))) return false;
        wait_while_equal(answer, kNone);
        return answer.load(std::memory_order_acquire) == kOpened;
    }
    const std::byte* committed_limit(const StrategyStack& stack) const noexcept override {
        return slots_.open_from(stack);
    }
    std::uint64_t faults_handled() const noexcept override { return slots_.faults(); }

private:
    Result<void> create_rounded(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept override {
        if (Result<void> started = start_helper(); !started) return started;
        return slots_.create(limit_bytes, stacks);
    }

    Result<void> start_helper() noexcept {
        const std::lock_guard lock(mutex_);
        if (write_end_.load(std::memory_order_relaxed) >= 0) return {};
        resolver_of = this;
        static const int hooked =
            os::at_fork(nullptr, nullptr, [] { static_cast<FaultThread*>(resolver_of)->forget_helper(); });
        if (hooked != 0) return refused(hooked);
        if (Result<void> added = add_fault_resolver(&resolve); !added) return added;
        int ends[2];
        if (const int error = open_pipe(ends)) return refused(error);
        read_end_ = ends[0];
        if (const int error = start_thread(&FaultThread::help, this)) {
            close_descriptor(ends[0]);
            close_descriptor(ends[1]);
            return refused(error);
        }
        write_end_.store(ends[1], std::memory_order_release);
        return {};
    }

    static Error refused(int error) noexcept {
        return {error, "start the thread that grows stacks", "free memory, threads or file descriptors"};
    }

    // The thread. It lives as long as the process.
    static void* help(void* self) noexcept {
        auto* strategy = static_cast<FaultThread*>(self);
        const int requests = strategy->read_end_;
        Request request{};
        while (read_whole(requests, &request, sizeof(request))) {
            const bool opened = strategy->slots_.open(request.address);
            request.answer->store(opened ? kOpened : kRefused, std::memory_order_release);
            wake_waiters(*request.answer);
        }
        return nullptr;
    }

    // In the child of a fork: the pipe leads to the parent's helper.
    void forget_helper() noexcept {
        const int inherited = write_end_.exchange(-1);
        if (inherited < 0) return;
        close_descriptor(inherited);
        close_descriptor(read_end_);
    }

    strategy::FaultedSlots slots_;
    std::mutex mutex_;  // guards starting the helper
    int read_end_ = -1;
    std::atomic<int> write_end_{-1};  // -1: there is no helper in this process
};

}  // namespace

StackStrategy& fault_thread() noexcept {
    static FaultThread only;
    return only;
}

}  // namespace culm::lab::strategies
