// A fiber's stack as a range of addresses, and the size classes it is cut from.
//
//                       limit                                             base
//   guard | yellow zone   |  never touched   |  touched once  |  in use     |        addresses grow to the right,
//   ------+---------------+------------------+----------------+-------------+        the stack grows to the left
//
// The yellow zone is closed, a part of the guard, until its owner has it opened (overflow.hpp).
// Invariant: [limit, base) is readable and writable for as long as the stack exists, and a guard lies below it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "culm/check.hpp"
#include "culm/result.hpp"

namespace culm {

enum class StackClass : std::uint8_t { k64K, k256K, k1M, k10M, k100M, k1G };
inline constexpr std::size_t kStackClassCount = 6;
inline constexpr StackClass kDefaultStackClass = StackClass::k10M;

// The place of a class among all, from 0; ends the process if there is no such class.
constexpr std::size_t index_of(StackClass size_class) noexcept {
    check(static_cast<std::size_t>(size_class) < kStackClassCount,
          "there is no such StackClass: use one from k64K to k1G, or ask stack_class_for() for the one that fits");
    return static_cast<std::size_t>(size_class);
}

// Usable bytes of a stack of that class: what `limit` promises. The first, which every switch calls, relies on the
// caller that there is such a class.
constexpr std::size_t stack_limit_bytes_unchecked(StackClass size_class) noexcept {
    constexpr std::size_t kBytes[kStackClassCount] = {std::size_t{64} << 10,  std::size_t{256} << 10,
                                                      std::size_t{1} << 20,   std::size_t{10} << 20,
                                                      std::size_t{100} << 20, std::size_t{1} << 30};
    return kBytes[static_cast<std::size_t>(size_class)];
}
constexpr std::size_t stack_limit_bytes(StackClass size_class) noexcept {
    return stack_limit_bytes_unchecked(static_cast<StackClass>(index_of(size_class)));
}

// The smallest class that holds `limit_bytes`; EINVAL for zero and for more than the largest class.
Result<StackClass> stack_class_for(std::size_t limit_bytes) noexcept;

struct Stack {
    std::byte* base = nullptr;  // highest address, exclusive
    StackClass size_class = kDefaultStackClass;

    std::byte* limit() const noexcept { return base - stack_limit_bytes(size_class); }
    bool contains(const void* address) const noexcept {
        return address >= limit() && address < static_cast<const void*>(base);
    }
    explicit operator bool() const noexcept { return base != nullptr; }
};

}  // namespace culm
