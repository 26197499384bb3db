// Copying stacks: all run in one place, and what a suspended one uses is copied out to the heap and in again, as
// greenlet and the JVM do.
//
// Memory is what is used, to the byte; a switch costs what is used, and a pointer into a suspended stack points into
// somebody else's frames. One place per limit, so two stacks of one limit never run at the same time.
// Invariant: the record of a suspended stack holds the bytes from its stack pointer to its base.
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#include "culm/stack_arena.hpp"
#include "strategies/strategies.hpp"
#include "strategy/strategy.hpp"

namespace culm::lab::strategies {

namespace {

constexpr StrategyTraits kTraits{
    .grows = true,
    .shrinks = true,
    .guard = GuardMeans::kKernelMarker,  // of the one place they run in, which comes from the arena
    .catches_small_overflow = true,
    .catches_large_overflow = true,
    .neighbour_safe = true,
    .kernel_may_write = KernelWrites::kYes,
    .mappings_per_stack = 0,
    .strict_overcommit = StrictOvercommit::kWorks,
    .survives_fork = true,
    .guard_survives_fork = true,
    .carries_python = false,  // C code keeps pointers into its stack across a wait
    .pointers_stay_valid = false,
    .limit_bytes_max = stack_limit_bytes(StackClass::k1G),
};

struct Copy {
    std::byte* bytes = nullptr;
    std::size_t used = 0;
    std::size_t capacity = 0;
};

class Copying final : public StackStrategy {
public:
    const char* id() const noexcept override { return "copying"; }
    const char* name() const noexcept override { return "copying out and in"; }
    const char* summary() const noexcept override {
        return "All stacks run in one place; the used bytes of a suspended one are copied to the heap and back. "
               "Pointers into a suspended stack are wrong.";
    }
    const StrategyTraits& traits() const noexcept override {
        static const StrategyTraits traits = [] {
            StrategyTraits as_kernel_has = kTraits;
            as_kernel_has.guard = strategy::arena().traits().guard;
            return as_kernel_has;
        }();
        return traits;
    }

    void destroy(std::span<const StrategyStack> stacks) noexcept override {
        for (const StrategyStack& stack : stacks) {
            auto* copy = static_cast<Copy*>(stack.record);
            std::free(copy->bytes);
            delete copy;
        }
    }

    // Gives the unused part of each copy's buffer back: an earlier, deeper use may have left it larger than needed.
    std::size_t shrink(std::span<const SuspendedStrategyStack> stacks) noexcept override {
        std::size_t shrunk = 0;
        for (const SuspendedStrategyStack& suspended : stacks) {
            auto* copy = static_cast<Copy*>(suspended.stack->record);
            if (copy->used == copy->capacity || copy->used == 0) continue;
            void* smaller = std::realloc(copy->bytes, copy->used);
            if (smaller == nullptr) continue;
            copy->bytes = static_cast<std::byte*>(smaller);
            copy->capacity = copy->used;
            ++shrunk;
        }
        return shrunk;
    }

    Result<void> suspended(StrategyStack& stack, const void* sp) noexcept override {
        auto* copy = static_cast<Copy*>(stack.record);
        const auto used = static_cast<std::size_t>(stack.base - static_cast<const std::byte*>(sp));
        if (used > copy->capacity) {
            void* larger = std::realloc(copy->bytes, used);
            if (larger == nullptr) return Error{ENOMEM, "copy a suspended stack", "free memory"};
            copy->bytes = static_cast<std::byte*>(larger);
            copy->capacity = used;
        }
        std::memcpy(copy->bytes, sp, used);
        copy->used = used;
        return {};
    }

    void resuming(StrategyStack& stack) noexcept override {
        const auto* copy = static_cast<const Copy*>(stack.record);
        if (copy->used != 0) std::memcpy(stack.base - copy->used, copy->bytes, copy->used);
    }

private:
    Result<void> create_rounded(std::size_t limit_bytes, std::span<StrategyStack> stacks) noexcept override {
        const Result<StackClass> size_class = stack_class_for(limit_bytes);
        if (!size_class) return size_class.error();
        const Result<Stack> place = place_for(size_class.value());
        if (!place) return place.error();
        for (std::size_t made = 0; made < stacks.size(); ++made) {
            auto* copy = new (std::nothrow) Copy;
            if (copy == nullptr) {
                destroy(stacks.first(made));
                return strategy::no_stack(ENOMEM);
            }
            stacks[made] = {place.value().base, stack_limit_bytes(size_class.value()), copy};
        }
        return {};
    }

    Result<Stack> place_for(StackClass size_class) noexcept {
        const std::lock_guard lock(mutex_);
        Stack& place = places_[static_cast<std::size_t>(size_class)];
        if (!place) {
            if (Result<void> taken = StackArena::of(size_class).take(std::span(&place, 1)); !taken)
                return taken.error();
        }
        return place;
    }

    std::mutex mutex_;
    Stack places_[kStackClassCount];  // where stacks of that size run; kept for good
};

}  // namespace

StackStrategy& copying() noexcept {
    static Copying only;
    return only;
}

}  // namespace culm::lab::strategies
