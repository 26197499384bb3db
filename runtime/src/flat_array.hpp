// A growing array of plain values that reports running out of memory instead of throwing.
//
// The runtime throws nothing and must not allocate while a fiber parks; so whoever will need room asks for it early,
// with reserve(), and push() then cannot fail.
// Invariant: size() <= capacity(); elements are moved with memcpy when the array grows.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdlib>
#include <type_traits>
#include <utility>

namespace culm::runtime {

template <class T>
class FlatArray {
    static_assert(std::is_trivially_copyable_v<T>);

public:
    FlatArray() = default;
    FlatArray(FlatArray&& other) noexcept { swap(other); }
    FlatArray(const FlatArray&) = delete;
    FlatArray& operator=(const FlatArray&) = delete;
    ~FlatArray() { std::free(items_); }

    std::size_t size() const noexcept { return size_; }
    std::size_t capacity() const noexcept { return capacity_; }
    bool empty() const noexcept { return size_ == 0; }
    T& operator[](std::size_t index) noexcept { return items_[index]; }
    const T& operator[](std::size_t index) const noexcept { return items_[index]; }
    T* begin() noexcept { return items_; }
    T* end() noexcept { return items_ + size_; }
    const T* begin() const noexcept { return items_; }
    const T* end() const noexcept { return items_ + size_; }

    // Room for `count` elements; doubles at least. False: no memory, nothing has changed.
    [[nodiscard]] bool reserve(std::size_t count) noexcept {
        if (count <= capacity_) return true;
        const std::size_t doubled = capacity_ * 2 > 16 ? capacity_ * 2 : 16;
        const std::size_t wanted = count > doubled ? count : doubled;
        void* grown = std::realloc(static_cast<void*>(items_), wanted * sizeof(T));
        if (!grown) return false;
        items_ = static_cast<T*>(grown);
        capacity_ = wanted;
        return true;
    }
    void push(const T& item) noexcept {
        assert(size_ < capacity_);
        items_[size_++] = item;
    }
    T pop() noexcept {
        assert(size_ > 0);
        return items_[--size_];
    }
    void clear() noexcept { size_ = 0; }
    void swap(FlatArray& other) noexcept {
        std::swap(items_, other.items_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
    }

private:
    T* items_ = nullptr;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
};

}  // namespace culm::runtime
