// Growing a vector ahead of need, so that what must not fail later cannot.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "os/fault_injection.hpp"

namespace culm::stack {

// Makes room for `wanted` elements in all. False when there is no memory; nothing has changed then.
template <class T>
[[nodiscard]] bool ensure_capacity(std::vector<T>& elements, std::size_t wanted) noexcept {
    if (wanted <= elements.capacity()) return true;
    if (os::injected_error() != 0) return false;
    try {
        elements.reserve(std::max(wanted, 2 * elements.capacity()));
    } catch (...) {  // the only exceptions it has are "no memory" and "too long"
        return false;
    }
    return true;
}

}  // namespace culm::stack
