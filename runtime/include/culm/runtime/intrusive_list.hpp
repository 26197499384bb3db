// A doubly linked list through a member of its elements: linking and unlinking allocate nothing.
// Invariant: a link is in at most one list; an unlinked link points to itself or nowhere.
#pragma once

#include <cassert>
#include <cstddef>

namespace culm::runtime {

// The object whose member `which` is `*member`. It does what offsetof() does, for classes of any layout; the distance
// is known when this is compiled.
template <class T, class Member>
T* owner_of(Member* member, Member T::*which) noexcept {
    alignas(T) static char probe[sizeof(T)];
    const auto distance = reinterpret_cast<char*>(&(reinterpret_cast<T*>(probe)->*which)) - probe;
    return reinterpret_cast<T*>(reinterpret_cast<char*>(member) - distance);
}

struct ListLink {
    ListLink* previous = nullptr;
    ListLink* next = nullptr;

    bool linked() const noexcept { return next != nullptr; }
    void unlink() noexcept {
        previous->next = next;
        next->previous = previous;
        previous = next = nullptr;
    }
};

// Circular, with the list itself as the sentinel; T holds the link as member `Member`.
template <class T, ListLink T::*Member>
class IntrusiveList {
public:
    IntrusiveList() noexcept { sentinel_.previous = sentinel_.next = &sentinel_; }
    IntrusiveList(const IntrusiveList&) = delete;
    IntrusiveList& operator=(const IntrusiveList&) = delete;

    bool empty() const noexcept { return sentinel_.next == &sentinel_; }
    T* front() const noexcept { return empty() ? nullptr : element(sentinel_.next); }
    T* after(const T& item) const noexcept {
        ListLink* link = (item.*Member).next;
        return link == &sentinel_ ? nullptr : element(link);
    }
    void push_back(T& item) noexcept { insert_before(sentinel_, item.*Member); }
    void push_front(T& item) noexcept { insert_before(*sentinel_.next, item.*Member); }
    T* pop_front() noexcept {
        T* item = front();
        if (item) (item->*Member).unlink();
        return item;
    }
    // The element that holds `link`.
    static T* element(ListLink* link) noexcept { return owner_of(link, Member); }

private:
    static void insert_before(ListLink& place, ListLink& link) noexcept {
        assert(!link.linked());
        link.previous = place.previous;
        link.next = &place;
        place.previous->next = &link;
        place.previous = &link;
    }

    ListLink sentinel_;
};

}  // namespace culm::runtime
