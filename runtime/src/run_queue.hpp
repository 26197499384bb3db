// The fibers that can run, first in first out. With a seed, an order drawn from it, for tests that look for orders in
// which something breaks.
// A fiber that can run waits for nothing, so that its own record has the link free for this.
// Invariant: every fiber in it is kReady; it holds no references, the runtime's own keeps them alive.
#pragma once

#include <cstddef>
#include <cstdint>

#include "culm/runtime/fiber.hpp"

namespace culm::runtime {

class RunQueue {
public:
    void set_seed(std::uint64_t seed) noexcept { random_ = seed; }

    bool empty() const noexcept { return size_ == 0; }
    std::size_t size() const noexcept { return size_; }
    void push_back(Fiber& fiber) noexcept {
        fibers_.push_back(fiber.own_);
        ++size_;
    }
    void push_front(Fiber& fiber) noexcept {
        fibers_.push_front(fiber.own_);
        ++size_;
    }
    void remove(Fiber& fiber) noexcept {
        fiber.own_.link.unlink();
        --size_;
    }
    // The next to run, or null.
    Fiber* pop() noexcept {
        if (size_ == 0) return nullptr;
        if (random_ != 0) [[unlikely]]
            return pop_drawn();
        --size_;
        return &Fiber::of(*fibers_.pop_front());
    }
    // Starts to load the first lines of the stack that comes after the next: with thousands of fibers neither they nor
    // the entries of the page table that lead to them are in a cache, and one turn is too short to fetch them
    // (record 0014). A prefetch never faults.
    void prefetch() const noexcept {
        Wait* next = fibers_.front();
        Wait* then = next ? fibers_.after(*next) : nullptr;
        const auto* sp = then ? static_cast<const std::byte*>(Fiber::of(*then).context_.sp) : nullptr;
        if (!sp) return;
        __builtin_prefetch(sp);
        __builtin_prefetch(sp + 64);
    }

private:
    Fiber* pop_drawn() noexcept;

    IntrusiveList<Wait, &Wait::link> fibers_;  // by each fiber's own record
    std::size_t size_ = 0;
    std::uint64_t random_ = 0;  // state of the generator; 0: first in first out
};

}  // namespace culm::runtime
