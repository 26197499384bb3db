// The waits for one descriptor, in the order in which they came: a ring through FdWait::link that needs one pointer.
//
// Tables of descriptors grow by moving their entries, so that an entry cannot be a sentinel.
// Invariant: first_ is null exactly when the ring is empty; the link of an unlinked wait is null.
#pragma once

#include <cassert>
#include <cstdint>

#include "culm/runtime/reactor.hpp"

namespace culm::runtime {

class WaitRing {
public:
    bool empty() const noexcept { return first_ == nullptr; }
    FdWait* front() const noexcept { return first_; }
    // Null after the last.
    FdWait* after(const FdWait& wait) const noexcept {
        FdWait* next = Links::element(wait.link.next);
        return next == first_ ? nullptr : next;
    }

    void push_back(FdWait& wait) noexcept {
        assert(!wait.link.linked());
        if (!first_) {
            wait.link = {&wait.link, &wait.link};
            first_ = &wait;
            return;
        }
        ListLink& first = first_->link;
        wait.link = {first.previous, &first};
        first.previous->next = &wait.link;
        first.previous = &wait.link;
    }
    void remove(FdWait& wait) noexcept {
        assert(wait.link.linked());
        if (first_ == &wait) first_ = after(wait);
        wait.link.unlink();
    }

    template <class Visit>
    void for_each(Visit visit) const noexcept {
        for (FdWait* wait = first_; wait; wait = after(*wait)) visit(*wait);
    }
    // All that somebody waits for.
    std::uint32_t wanted() const noexcept {
        std::uint32_t all = 0;
        for_each([&all](FdWait& wait) { all |= wait.wanted; });
        return all;
    }

private:
    using Links = IntrusiveList<FdWait, &FdWait::link>;

    FdWait* first_ = nullptr;
};

}  // namespace culm::runtime
