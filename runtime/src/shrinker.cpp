// One scheduler's shrinking: passes over the fibers that have run, slices, what they give back.
//
// A pass begins at most once an epoch and goes through the fresh fibers from the first to the last. A slice looks at a
// bounded number of fibers and gives a bounded number of pages back; a stack with more excess takes several.
#include "shrinker.hpp"

#include <algorithm>
#include <cassert>
#include <new>
#include <span>
#include <utility>

#include "culm/kernel.hpp"
#include "shrink_state.hpp"

namespace culm::runtime {

namespace {

constexpr std::int64_t kAgeNsMin = 1'000'000;
constexpr std::int64_t kPressureLookNs = 250'000'000;
// While fibers can run, slices take one part in so many of the time.
constexpr std::int64_t kBusyShare = 5;

std::int64_t epoch_length_ns(std::int64_t after_ns, unsigned epochs_per_age) noexcept {
    // With no age at all, what parked a second ago is as old as what parked this moment: the epoch hardly matters.
    if (after_ns == kNever) return kAgeNsMin * 1000 / epochs_per_age;
    return std::max(after_ns, kAgeNsMin) / epochs_per_age;
}

// Blocks lie densely in the order of their making, which is mostly that of the list: the fiber some places on is likely
// to be so many blocks on. A wrong guess costs nothing. The links alone would have each step wait for memory.
void fetch_ahead(const Fiber& fiber) noexcept {
    constexpr std::size_t kAhead = 12;
    const auto* ahead = reinterpret_cast<const char*>(&fiber) + kAhead * sizeof(Fiber);
    for (std::size_t line = 0; line < sizeof(Fiber); line += 64) __builtin_prefetch(ahead + line, 1);
}

}  // namespace

bool Shrinker::open(StackPool& pool, StrategyPool& others, bool clock_jumps) noexcept {
    batch_.reset(new (std::nothrow) Batch());
    pool_ = &pool;
    other_pool_ = &others;
    clock_jumps_ = clock_jumps;
    epoch_ns_ = epoch_length_ns(settings_.after_ns, kEpochsPerAge);
    static_cast<void>(pressure_sources());  // found here rather than on the stack of some fiber
    return batch_ != nullptr;
}

// --- the lists ------------------------------------------------------------------------------------------------------

void Shrinker::admit(Fiber& fiber) noexcept {
    fiber.left_epoch_ = epoch_;
    fresh_.push_back(fiber);
}

void Shrinker::dismiss(Fiber& fiber) noexcept {
    if (cursor_ == &fiber) cursor_ = fresh_.after(fiber);
    drop_excess(fiber);
    fiber.left_epoch_ = epoch_;  // in no list any more: its last switch must not bring it back
    fiber.all_link_.unlink();
}

void Shrinker::rejoin(Fiber& fiber) noexcept {
    assert(fiber.left_epoch_ == 0);
    drop_excess(fiber);
    fiber.left_epoch_ = epoch_;
    move(fiber, fresh_);
}

void Shrinker::move(Fiber& fiber, List& list) noexcept {
    fiber.all_link_.unlink();
    list.push_back(fiber);
}

void Shrinker::drop_excess(Fiber& fiber) noexcept {
    if (fiber.excess_pages_ == 0) return;
    if (partial_ == &fiber) partial_ = nullptr;
    const std::size_t pages = std::exchange(fiber.excess_pages_, 0);
    kept_pages_ -= pages;
    detail::kept_excess_bytes.fetch_sub(pages * kernel_features().page_bytes, std::memory_order_relaxed);
}

void Shrinker::forget_kept() noexcept {
    detail::kept_excess_bytes.fetch_sub(kept_pages_ * kernel_features().page_bytes, std::memory_order_relaxed);
}

void Shrinker::own_all_kept() noexcept {
    detail::kept_excess_bytes.store(kept_pages_ * kernel_features().page_bytes, std::memory_order_relaxed);
}

// --- when -----------------------------------------------------------------------------------------------------------

std::uint8_t Shrinker::keep_time(std::int64_t now_ns) noexcept {
    if (settings_version_ != detail::shrink_settings_version.load(std::memory_order_acquire)) follow_settings(now_ns);
    if (settings_.react_to_pressure && now_ns >= next_pressure_look_ns_) look_at_pressure(now_ns);
    const std::int64_t passed_ns = now_ns - epoch_began_ns_;
    if (passed_ns < epoch_ns_) return epoch_;  // nearly always
    const std::int64_t epochs = passed_ns / epoch_ns_;
    epoch_began_ns_ += epochs * epoch_ns_;
    // A long time is no more than a whole age: going round the circle would make the old look young.
    const auto steps = static_cast<unsigned>(std::min<std::int64_t>(epochs, 2 * kEpochsPerAge));
    epoch_ = static_cast<std::uint8_t>((epoch_ - 1 + steps) % kEpochs + 1);
    if (!cursor_ && settings_.after_ns != kNever) cursor_ = fresh_.front();
    return epoch_;
}

void Shrinker::follow_settings(std::int64_t now_ns) noexcept {
    settings_version_ = detail::shrink_settings_version.load(std::memory_order_acquire);
    const bool peaks_were_exact = settings_.exact_peaks;
    settings_ = shrink_settings();
    epoch_ns_ = epoch_length_ns(settings_.after_ns, kEpochsPerAge);
    epoch_began_ns_ = now_ns;
    idle_pass_made_ = false;
    pool_->warm_bytes_max = settings_.pool_budget_bytes;
    pool_->cool_to_budget();
    if (settings_.exact_peaks && !peaks_were_exact) pool_->trim();
}

// Real pressure has no place in a simulation, whose clock is not that of the machine.
void Shrinker::look_at_pressure(std::int64_t now_ns) noexcept {
    if (clock_jumps_ && pressure_sources().are_real) return;
    next_pressure_look_ns_ = deadline_after(now_ns, kPressureLookNs);
    if (!has_something_to_give()) return;
    if (!gauge_.take_reading(now_ns)) return;
    ++counts_.pressure_events;
    reach_ = Reach::kSuspended;
    draining_ = true;
    trims_pool_ = true;
    cursor_ = fresh_.front();
}

bool Shrinker::has_something_to_give() const noexcept {
    if (!kept_.empty() || pool_->warm_bytes() > 0) return true;
    return !fresh_.empty();
}

std::int64_t Shrinker::idle_due_ns(std::int64_t since_ns) const noexcept {
    if (idle_pass_made_ || settings_.after_ns == kNever) return kNever;
    return deadline_after(since_ns, epoch_ns_ * (kEpochsPerAge + 1));
}

std::int64_t Shrinker::aged_due_ns() const noexcept {
    if (idle_pass_made_ || settings_.after_ns == kNever || fresh_.empty()) return kNever;
    return deadline_after(epoch_began_ns_, epoch_ns_);
}

std::int64_t Shrinker::pressure_due_ns() const noexcept {
    if (!settings_.react_to_pressure || clock_jumps_) return kNever;
    // After a pass over everything only what cannot be given is left among the fresh.
    const bool is_worth_it = !kept_.empty() || pool_->warm_bytes() > 0 || (!idle_pass_made_ && !fresh_.empty());
    return is_worth_it ? next_pressure_look_ns_ : kNever;
}

void Shrinker::begin_idle_pass() noexcept {
    idle_pass_made_ = true;
    reach_ = std::max(reach_, Reach::kParked);
    draining_ = true;
    trims_pool_ = true;
    cursor_ = fresh_.front();
}

// A fiber that idles polls on its own stack: parked, yet running.
bool Shrinker::is_due(const Fiber& fiber, const Fiber& running) const noexcept {
    if (&fiber == &running || !fiber.stack_base_) return false;
    if (fiber.state_ != FiberState::kParked) return reach_ == Reach::kSuspended && fiber.state_ == FiberState::kReady;
    if (reach_ != Reach::kAged) return true;
    const unsigned age = (epoch_ + kEpochs - fiber.left_epoch_) % kEpochs;
    return age > kEpochsPerAge;
}

// --- slices ---------------------------------------------------------------------------------------------------------

void Shrinker::run_slice(const Fiber& running, const Clock& clock) noexcept {
    const std::uint64_t spent_before_ns = counts_.cpu_ns;
    slice(running);
    // By processor time: on a machine that is short of processors a slice may last long without costing much. In a
    // simulation it takes no time, as everything else.
    const auto spent_ns = static_cast<std::int64_t>(counts_.cpu_ns - spent_before_ns);
    next_slice_ns_ = clock_jumps_ ? 0 : deadline_after(clock.now_ns(), spent_ns * (kBusyShare - 1));
}

std::size_t Shrinker::run_all(const Fiber& running) noexcept {
    const std::uint64_t before = counts_.shrunk;
    reach_ = Reach::kSuspended;
    draining_ = true;
    trims_pool_ = true;
    cursor_ = fresh_.front();
    while (has_work()) slice(running);
    return counts_.shrunk - before;
}

void Shrinker::slice(const Fiber& running) noexcept {
    const std::int64_t start_cpu_ns = thread_cpu_ns();
    ++counts_.slices;
    if (cursor_) visit_fresh(running);
    if (kept_excess_bytes() > settings_.budget_bytes) draining_ = true;
    if (draining_) drain_kept(running);
    if (!cursor_) {
        reach_ = Reach::kAged;
        if (kept_.empty()) draining_ = false;
        if (trims_pool_) trim_pools();
    }
    counts_.cpu_ns += static_cast<std::uint64_t>(thread_cpu_ns() - start_cpu_ns);
}

void Shrinker::trim_pools() noexcept {
    trims_pool_ = pool_->trim_some(kPoolStacksMax);
    if (!trims_pool_) other_pool_->trim();
}

void Shrinker::visit_fresh(const Fiber& running) noexcept {
    std::size_t count = 0;
    for (std::size_t passed = 0; cursor_ && count < kVisitsMax && passed < kPassedMax; ++passed) {
        Fiber& fiber = *cursor_;
        fetch_ahead(fiber);
        cursor_ = fresh_.after(fiber);
        if (is_due(fiber, running)) batch_->fibers[count++] = &fiber;
    }
    if (count == 0) return;
    // In address order, because neighbours are measured together.
    std::sort(batch_->fibers.begin(), batch_->fibers.begin() + static_cast<std::ptrdiff_t>(count),
              [](const Fiber* one, const Fiber* other) { return one->stack_base_ < other->stack_base_; });
    for (std::size_t i = 0; i < count; ++i) {
        const Fiber& fiber = *batch_->fibers[i];
        batch_->stacks[i] = {fiber.stack(), fiber.context_.sp, 0};
    }
    settle_visited(count);
}

void Shrinker::settle_visited(std::size_t count) noexcept {
    const std::size_t page_bytes = kernel_features().page_bytes;
    const auto measured = measure_suspended(std::span(batch_->stacks.data(), count), batch_->uses);
    counts_.visited += count;
    for (std::size_t i = 0; i < count; ++i) {
        Fiber& fiber = *batch_->fibers[i];
        if (!measured) {
            fiber.left_epoch_ = epoch_;  // nobody says what is there: another time
            continue;
        }
        const SuspendedUse& use = batch_->uses[i];
        fiber.note_peak(use.residency.depth_bytes);
        fiber.left_epoch_ = 0;
        fiber.excess_pages_ = static_cast<std::uint32_t>(use.excess_bytes / page_bytes);
        kept_pages_ += fiber.excess_pages_;
        detail::kept_excess_bytes.fetch_add(use.excess_bytes, std::memory_order_relaxed);
        move(fiber, fiber.excess_pages_ > 0 ? kept_ : settled_);
    }
}

// Gives back what the first of the kept fibers have, the oldest first.
void Shrinker::drain_kept(const Fiber& running) noexcept {
    std::size_t count = 0;
    std::size_t pages = 0;
    while (count < kVisitsMax && pages < kPagesMax) {
        Fiber* fiber = kept_.front();
        if (!fiber) break;
        if (fiber == &running) {
            rejoin(*fiber);
            continue;
        }
        const std::size_t before = fiber->excess_pages_;
        batch_->stacks[count++] = next_part(*fiber);
        pages += before - fiber->excess_pages_;
        if (fiber->excess_pages_ > 0) break;  // the rest in the next slice
        ++counts_.shrunk;
        partial_ = nullptr;
        move(*fiber, settled_);
    }
    if (count > 0) give_back(count, pages);
}

// What one slice may take of a fiber's excess, as a stack to discard below; the excess becomes what is left.
SuspendedStack Shrinker::next_part(Fiber& fiber) noexcept {
    const std::size_t page_bytes = kernel_features().page_bytes;
    SuspendedStack part{fiber.stack(), fiber.context_.sp, fiber.peak_bytes()};
    if (partial_ == &fiber) part.depth_bytes = static_cast<std::size_t>(part.stack.base - partial_end_);
    std::size_t pages = fiber.excess_pages_;
    if (pages > kPagesMax) {
        std::byte* const start = part.stack.base - part.depth_bytes;
        std::byte* const end = std::min(start + kPagesMax * page_bytes, discard_end(part));
        part.sp = end + page_bytes + kRedZoneBytes;  // as if it were suspended there
        assert(discard_end(part) == end);
        assert(end < fiber.context_.sp);
        partial_ = &fiber;
        partial_end_ = end;
        pages = std::min(pages - 1, kPagesMax);
    }
    fiber.excess_pages_ -= static_cast<std::uint32_t>(pages);
    kept_pages_ -= pages;
    detail::kept_excess_bytes.fetch_sub(pages * page_bytes, std::memory_order_relaxed);
    return part;
}

void Shrinker::give_back(std::size_t count, std::size_t pages) noexcept {
    const std::span stacks(batch_->stacks.data(), count);
    std::sort(stacks.begin(), stacks.end(),
              [](const SuspendedStack& one, const SuspendedStack& other) { return one.stack.base < other.stack.base; });
    const Discarded discarded = discard_below(stacks);
    counts_.ranges += discarded.ranges;
    counts_.refused += discarded.refused;
    std::size_t bytes = pages * kernel_features().page_bytes;
    if (discarded.refused > 0 && measure_suspended(stacks, batch_->uses)) {
        for (std::size_t i = 0; i < count; ++i) bytes -= std::min(bytes, batch_->uses[i].excess_bytes);
    }
    counts_.bytes += bytes;
}

ShrinkStatistics Shrinker::statistics() const noexcept {
    ShrinkStatistics result = counts_;
    result.kept_bytes = kept_pages_ * kernel_features().page_bytes;
    return result;
}

}  // namespace culm::runtime
