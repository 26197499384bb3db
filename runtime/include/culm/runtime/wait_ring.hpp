// Waits for the same thing, in the order in which they came: a ring through Wait::link that needs one pointer.
//
// One pointer and not two, because every fiber has a ring for those who join it; and not a sentinel among the elements,
// because tables of rings grow by moving their entries. Used by one OS thread.
// Invariant: first_ is null exactly when the ring is empty; the link of an unlinked wait is null.
#pragma once

#include <cassert>
#include <cstdint>

#include "culm/runtime/wait.hpp"

namespace culm::runtime {

class WaitRing {
public:
    bool empty() const noexcept { return first_ == nullptr; }
    Wait* front() const noexcept { return first_; }
    // Null after the last.
    Wait* after(const Wait& wait) const noexcept {
        Wait* next = Links::element(wait.link.next);
        return next == first_ ? nullptr : next;
    }

    void push_back(Wait& wait) noexcept {
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
    void push_front(Wait& wait) noexcept {
        push_back(wait);
        first_ = &wait;
    }
    void remove(Wait& wait) noexcept {
        assert(wait.link.linked());
        if (first_ == &wait) first_ = after(wait);
        wait.link.unlink();
    }

    template <class Visit>
    void for_each(Visit visit) const noexcept {
        for (Wait* wait = first_; wait; wait = after(*wait)) visit(*wait);
    }

private:
    using Links = IntrusiveList<Wait, &Wait::link>;

    Wait* first_ = nullptr;
};

}  // namespace culm::runtime
