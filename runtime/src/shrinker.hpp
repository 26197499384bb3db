// Decides which fibers of one scheduler are looked at, and when what they do not need is given back.
//
// Every started, unfinished fiber but the main one is in one of three lists. Fresh: it has run since it was looked at.
// Kept: it was looked at, has excess, and that may stay for now. Settled: nothing to give until it runs again.
//
//     admit --> fresh --(parked long enough, looked at)--> kept --(drained)--> settled
//                 ^                     \--(no excess)------------------------->  |
//                 \------------------(left the processor: rejoin)----------------/
//
// Time is counted in eighths of the idle age ("epochs", one byte, in a circle), so that a switch stamps a fiber with
// one store and reads no clock. Invariant: left_epoch_ is 0 exactly while the fiber is in kept or settled;
// excess_pages_ is 0 unless it is in kept.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "culm/memory_pressure.hpp"
#include "culm/residency.hpp"
#include "culm/runtime/fiber.hpp"
#include "culm/runtime/shrink.hpp"
#include "culm/stack_pool.hpp"
#include "culm/strategy_pool.hpp"

namespace culm::runtime {

class Shrinker {
public:
    [[nodiscard]] bool open(StackPool& pool, StrategyPool& others, bool clock_jumps) noexcept;

    // --- the lists
    void admit(Fiber& fiber) noexcept;
    void dismiss(Fiber& fiber) noexcept;  // finished or abandoned
    void rejoin(Fiber& fiber) noexcept;   // it has run after it was looked at
    template <class Visit>
    void for_each(Visit visit) const noexcept {
        for (const List* list : {&fresh_, &kept_, &settled_}) {
            for (Fiber *fiber = list->front(), *next = nullptr; fiber; fiber = next) {
                next = list->after(*fiber);
                if (!visit(*fiber)) return;
            }
        }
    }

    // --- the policy
    // Time may have passed: follows the settings, looks at the pressure, begins a pass. Returns the epoch.
    std::uint8_t keep_time(std::int64_t now_ns) noexcept;
    // Idleness that began at `since_ns`: when a pass over everything is due; kNever once it has been made.
    std::int64_t idle_due_ns(std::int64_t since_ns) const noexcept;
    // Before that: when others may have been parked for long enough; kNever when there is nobody.
    std::int64_t aged_due_ns() const noexcept;
    // When to look at the pressure although nothing happens; kNever when there is nothing to give.
    std::int64_t pressure_due_ns() const noexcept;
    // Something has run since the last idleness.
    void idle_ended() noexcept {
        idle_pass_made_ = false;
        if (reach_ == Reach::kParked) reach_ = Reach::kAged;
    }
    void begin_idle_pass() noexcept;
    bool has_work() const noexcept { return cursor_ || (draining_ && !kept_.empty()) || trims_pool_; }
    // The same while fibers can run: slices take a fifth of the time at most.
    bool has_work_now(std::int64_t now_ns) const noexcept { return has_work() && now_ns >= next_slice_ns_; }
    void run_slice(const Fiber& running, const Clock& clock) noexcept;
    // Everything, at once. Returns how many fibers gave something back.
    std::size_t run_all(const Fiber& running) noexcept;

    bool exact_peaks() const noexcept { return settings_.exact_peaks; }
    ShrinkStatistics statistics() const noexcept;
    // The thread ends and leaves fibers behind, or all other threads are gone: what the process keeps is counted anew.
    void forget_kept() noexcept;
    void own_all_kept() noexcept;

private:
    // Which fibers a pass is about: those parked for the idle age; all that are parked, because the scheduler has been
    // idle for as long; all that are off the processor.
    enum class Reach : std::uint8_t { kAged, kParked, kSuspended };
    using List = IntrusiveList<Fiber, &Fiber::all_link_>;

    void follow_settings(std::int64_t now_ns) noexcept;
    void look_at_pressure(std::int64_t now_ns) noexcept;
    bool has_something_to_give() const noexcept;
    bool is_due(const Fiber& fiber, const Fiber& running) const noexcept;
    void slice(const Fiber& running) noexcept;
    void visit_fresh(const Fiber& running) noexcept;
    void settle_visited(std::size_t count) noexcept;
    void drain_kept(const Fiber& running) noexcept;
    void trim_pools() noexcept;
    SuspendedStack next_part(Fiber& fiber) noexcept;
    void give_back(std::size_t count, std::size_t pages) noexcept;
    void move(Fiber& fiber, List& list) noexcept;
    void drop_excess(Fiber& fiber) noexcept;

    static constexpr std::size_t kVisitsMax = 128;     // fibers looked at in one slice
    static constexpr std::size_t kPassedMax = 4096;    // fibers passed over in one slice because they are not due
    static constexpr std::size_t kPagesMax = 512;      // given back in one slice
    static constexpr std::size_t kPoolStacksMax = 64;  // free stacks made cold in one slice
    static constexpr unsigned kEpochs = 255;           // 1 to 255, in a circle
    static constexpr unsigned kEpochsPerAge = 8;

    struct Batch {
        std::array<Fiber*, kVisitsMax> fibers;
        std::array<SuspendedStack, kVisitsMax> stacks;
        std::array<SuspendedUse, kVisitsMax> uses;
    };

    List fresh_;
    List kept_;
    List settled_;
    Fiber* cursor_ = nullptr;   // where the pass over fresh_ goes on; null: none under way
    Fiber* partial_ = nullptr;  // the first of kept_, given back in part, up to
    const std::byte* partial_end_ = nullptr;
    std::unique_ptr<Batch> batch_;
    StackPool* pool_ = nullptr;
    StrategyPool* other_pool_ = nullptr;  // of stacks that are not the arena's
    PressureGauge gauge_;

    ShrinkSettings settings_;
    std::uint64_t settings_version_ = 0;
    std::int64_t epoch_ns_ = 0;  // length of one
    std::int64_t epoch_began_ns_ = 0;
    std::int64_t next_slice_ns_ = 0;
    std::int64_t next_pressure_look_ns_ = 0;
    std::size_t kept_pages_ = 0;
    std::uint8_t epoch_ = 1;
    Reach reach_ = Reach::kAged;
    bool draining_ = false;    // until kept_ is empty and no pass is under way
    bool trims_pool_ = false;  // the pool is being made cold
    bool idle_pass_made_ = false;
    bool clock_jumps_ = false;
    ShrinkStatistics counts_;
};

}  // namespace culm::runtime
