// A two-level table over descriptor numbers: blocks of 4096 entries, made when first written, never freed.
// Numbers of 16 million and more are simply not remembered.
#include "descriptors.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <atomic>
#include <new>

#include "culm/runtime/clock.hpp"
#include "real.hpp"

namespace culm::runtime::interpose::descriptors {

namespace {

constexpr std::uint8_t kSocket = 1;
constexpr std::uint8_t kHidesNonblock = 2;
constexpr std::uint8_t kDrained = 4;

struct Entry {
    std::atomic<std::uint32_t> plain_epoch{0};  // 0: nothing known
    std::atomic<std::uint8_t> flags{0};
};

constexpr unsigned kBlockEntries = 4096;
constexpr unsigned kBlocks = 4096;
struct Block {
    Entry entries[kBlockEntries];
};

std::atomic<Block*> blocks_by_number[kBlocks];
std::atomic<std::uint32_t> epoch{1};

Entry* find(int fd) noexcept {
    if (fd < 0 || static_cast<unsigned>(fd) >= kBlocks * kBlockEntries) return nullptr;
    Block* block = blocks_by_number[static_cast<unsigned>(fd) / kBlockEntries].load(std::memory_order_acquire);
    return block ? &block->entries[static_cast<unsigned>(fd) % kBlockEntries] : nullptr;
}

Entry* find_or_make(int fd) noexcept {
    if (Entry* entry = find(fd)) return entry;
    if (fd < 0 || static_cast<unsigned>(fd) >= kBlocks * kBlockEntries) return nullptr;
    auto* made = new (std::nothrow) Block;
    if (!made) return nullptr;
    Block* expected = nullptr;
    auto& place = blocks_by_number[static_cast<unsigned>(fd) / kBlockEntries];
    if (!place.compare_exchange_strong(expected, made, std::memory_order_acq_rel)) delete made;
    return find(fd);
}

bool has_flag(int fd, std::uint8_t flag) noexcept {
    const Entry* entry = find(fd);
    return entry && (entry->flags.load(std::memory_order_relaxed) & flag) != 0;
}

void set_flag(int fd, std::uint8_t flag, bool value) noexcept {
    Entry* entry = value ? find_or_make(fd) : find(fd);
    if (!entry) return;
    if (value) {
        entry->flags.fetch_or(flag, std::memory_order_relaxed);
    } else {
        entry->flags.fetch_and(static_cast<std::uint8_t>(~flag), std::memory_order_relaxed);
    }
}

void clear(Entry& entry) noexcept {
    // Looks before it writes: most numbers were never remembered.
    if (entry.plain_epoch.load(std::memory_order_relaxed) != 0) entry.plain_epoch.store(0, std::memory_order_relaxed);
    if (entry.flags.load(std::memory_order_relaxed) != 0) entry.flags.store(0, std::memory_order_relaxed);
}

template <class Visit>
void for_each_entry(unsigned first, unsigned last, Visit visit) noexcept {
    for (unsigned number = first / kBlockEntries; number < kBlocks; ++number) {
        const unsigned start = number * kBlockEntries;
        if (start > last) return;
        Block* block = blocks_by_number[number].load(std::memory_order_acquire);
        if (!block) continue;
        for (unsigned i = 0; i < kBlockEntries; ++i) {
            if (start + i >= first && start + i <= last) visit(static_cast<int>(start + i), block->entries[i]);
        }
    }
}

}  // namespace

void reset(int fd) noexcept {
    if (Entry* entry = find(fd)) clear(*entry);
}

void reset_range(unsigned first, unsigned last) noexcept {
    for_each_entry(first, last, [](int, Entry& entry) noexcept { clear(entry); });
}

void copied(int fd, int copy) noexcept {
    reset(copy);
    if (known_socket(fd)) set_flag(copy, kSocket, true);
    if (hides_nonblock(fd)) set_flag(copy, kHidesNonblock, true);
}

bool known_socket(int fd) noexcept { return has_flag(fd, kSocket); }
void note_socket(int fd, bool is_socket) noexcept { set_flag(fd, kSocket, is_socket); }

bool known_plain(int fd) noexcept {
    const Entry* entry = find(fd);
    return entry && entry->plain_epoch.load(std::memory_order_relaxed) == epoch.load(std::memory_order_acquire);
}

void note_plain(int fd, std::uint32_t seen_in) noexcept {
    if (Entry* entry = find_or_make(fd)) entry->plain_epoch.store(seen_in, std::memory_order_relaxed);
}

std::uint32_t mode_epoch() noexcept { return epoch.load(std::memory_order_acquire); }

void modes_changed() noexcept {
    // 0 means unknown in an entry, so it is no epoch.
    if (epoch.fetch_add(1, std::memory_order_acq_rel) == UINT32_MAX) epoch.fetch_add(1, std::memory_order_acq_rel);
}

bool drained(int fd) noexcept { return has_flag(fd, kDrained); }
void note_drained(int fd, bool drained) noexcept { set_flag(fd, kDrained, drained); }

bool hides_nonblock(int fd) noexcept { return has_flag(fd, kHidesNonblock); }
void hide_nonblock(int fd, bool hidden) noexcept { set_flag(fd, kHidesNonblock, hidden); }

bool blocks(int fd) noexcept {
    const int flags = real.fcntl(fd, F_GETFL, 0);
    if (flags < 0) return true;
    return (flags & O_NONBLOCK) == 0 || hides_nonblock(fd);
}

std::int64_t timeout_ns(int fd, int option) noexcept {
    timeval timeout{};
    socklen_t length = sizeof timeout;
    if (::getsockopt(fd, SOL_SOCKET, option, &timeout, &length) != 0) return kNever;
    if (timeout.tv_sec == 0 && timeout.tv_usec == 0) return kNever;
    if (timeout.tv_sec >= kNever / 1'000'000'000) return kNever;
    return timeout.tv_sec * std::int64_t{1'000'000'000} + timeout.tv_usec * std::int64_t{1'000};
}

}  // namespace culm::runtime::interpose::descriptors
