// Boards in a list that only grows, and a two-level table by descriptor number: blocks of 4096 entries, made when first
// written, never freed. For numbers of 16 million and more nothing is remembered.
#include "closing_notices.hpp"

#include <new>

#include "culm/runtime/scheduler.hpp"
#include "scheduler_parts.hpp"

namespace culm::runtime {

namespace {

constinit std::atomic<ClosingNotices*> boards{nullptr};

constexpr unsigned kBlockEntries = 4096;
constexpr unsigned kBlocks = 4096;
struct Block {
    std::atomic<std::uint16_t> board[kBlockEntries];  // 0: nobody has waited for it
};
constinit std::atomic<Block*> blocks[kBlocks];

std::atomic<std::uint16_t>* find(int fd) noexcept {
    const auto number = static_cast<unsigned>(fd);
    if (fd < 0 || number >= kBlocks * kBlockEntries) return nullptr;
    Block* block = blocks[number / kBlockEntries].load(std::memory_order_acquire);
    return block ? &block->board[number % kBlockEntries] : nullptr;
}

std::atomic<std::uint16_t>* find_or_make(int fd) noexcept {
    if (auto* entry = find(fd)) return entry;
    const auto number = static_cast<unsigned>(fd);
    if (fd < 0 || number >= kBlocks * kBlockEntries) return nullptr;
    auto* made = new (std::nothrow) Block{};
    if (!made) return nullptr;
    Block* expected = nullptr;
    if (!blocks[number / kBlockEntries].compare_exchange_strong(expected, made, std::memory_order_acq_rel)) delete made;
    return find(fd);
}

}  // namespace

ClosingNotices* ClosingNotices::claim(Scheduler& scheduler) noexcept {
    ClosingNotices* board = boards.load(std::memory_order_acquire);
    for (bool taken = false; board; board = board->next_, taken = false) {
        if (board->taken_.compare_exchange_strong(taken, true)) break;
    }
    if (!board) {
        board = new (std::nothrow) ClosingNotices;
        if (!board) return nullptr;
        board->taken_.store(true);
        board->next_ = boards.load(std::memory_order_acquire);
        do {
            // From the 65,535th thread on they all have the number that means several boards.
            const unsigned id = board->next_ ? board->next_->id_ + 1U : 1U;
            board->id_ = id < kSeveral ? static_cast<std::uint16_t>(id) : kSeveral;
        } while (!boards.compare_exchange_weak(board->next_, board, std::memory_order_acq_rel));
    }
    const std::lock_guard lock(board->mutex_);
    board->scheduler_ = &scheduler;
    return board;
}

void ClosingNotices::release() noexcept {
    {
        const std::lock_guard lock(mutex_);
        scheduler_ = nullptr;
        announced_count_ = 0;
        has_announced_.store(false, std::memory_order_relaxed);
    }
    taken_.store(false);
}

[[gnu::noinline]] void ClosingNotices::note_wait(int fd) noexcept {
    auto* entry = find(fd);
    std::uint16_t board = entry ? entry->load(std::memory_order_relaxed) : kNobody;
    if (board == id_ || board == kSeveral) return;
    if (!entry) entry = find_or_make(fd);
    if (!entry) return;
    while (board != id_ && board != kSeveral) {
        const std::uint16_t wanted = board == kNobody ? id_ : kSeveral;
        if (entry->compare_exchange_weak(board, wanted, std::memory_order_relaxed)) return;
    }
}

void ClosingNotices::pin(int fd) noexcept {
    const std::lock_guard lock(mutex_);
    if (!scheduler_ || announced_count_ == kAnnouncedMax) return;
    announced_[announced_count_++] = fd;
    has_announced_.store(true, std::memory_order_release);
    scheduler_->parts_->inbox.nudge();
}

[[gnu::noinline]] void ClosingNotices::forget_all() noexcept {
    int fds[kAnnouncedMax];
    unsigned count = 0;
    Scheduler* scheduler = nullptr;
    {
        const std::lock_guard lock(mutex_);
        for (; count < announced_count_; ++count) fds[count] = announced_[count];
        announced_count_ = 0;
        has_announced_.store(false, std::memory_order_relaxed);
        scheduler = scheduler_;
    }
    for (unsigned i = 0; i < count; ++i) scheduler->forget_fd(fds[i]);
}

void ClosingNotices::announce(int fd) noexcept {
    auto* entry = find(fd);
    if (!entry || entry->load(std::memory_order_relaxed) == kNobody) return;
    const std::uint16_t id = entry->exchange(kNobody, std::memory_order_relaxed);
    const Scheduler* here = Scheduler::current();
    const ClosingNotices* own = here ? here->parts_->closings : nullptr;
    if (id == kNobody || (own && id == own->id_ && id != kSeveral)) return;
    for (ClosingNotices* board = boards.load(std::memory_order_acquire); board; board = board->next_) {
        if (board != own && (id == kSeveral || board->id_ == id)) board->pin(fd);
    }
}

void ClosingNotices::announce_range(unsigned first, unsigned last, void (*visit)(int fd)) noexcept {
    for (unsigned number = first / kBlockEntries; number < kBlocks && number * kBlockEntries <= last; ++number) {
        Block* block = blocks[number].load(std::memory_order_acquire);
        for (unsigned i = 0; block && i < kBlockEntries; ++i) {
            const unsigned fd = number * kBlockEntries + i;
            if (fd < first || fd > last || block->board[i].load(std::memory_order_relaxed) == kNobody) continue;
            visit(static_cast<int>(fd));
            announce(static_cast<int>(fd));
        }
    }
}

void ClosingNotices::after_fork_in_child() noexcept {
    const Scheduler* here = Scheduler::current();
    for (ClosingNotices* board = boards.load(); board; board = board->next_) {
        new (&board->mutex_) std::mutex;  // whoever held it does not exist here
        board->announced_count_ = 0;
        board->has_announced_.store(false);
        if (board->scheduler_ == here) continue;
        board->scheduler_ = nullptr;
        board->taken_.store(false);
    }
}

}  // namespace culm::runtime
