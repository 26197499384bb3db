// 3.12 and 3.13: the interpreter counts C recursion in units instead of looking at the stack pointer.
//
// One unit is one entry of the evaluation loop from C or one recursive C call; calls between Python functions cost
// none. A fiber gets as many units as its stack can bear, at most what the interpreter gives a thread.
#pragma once

#include <algorithm>
#include <cstddef>

#include "interpreter/cpython_headers.hpp"
#include "interpreter/runtime_layout.hpp"

namespace culm::interpreter {

// Measured: the dearest constructs use about this much stack a unit (nested sorts 1.7 KB, the parser 1.7 KB) and room
// is needed for what does not count at all.
inline constexpr std::size_t kStackBytesPerUnit = 2662;
// With 100 units or fewer left, 3.13 no longer deallocates containers that it has put aside, only the next fiber would.
inline constexpr std::size_t kUnitsMin = 150;

inline std::size_t c_recursion_limit = 0;  // a new thread's; set by read_c_recursion_limit

inline std::size_t c_recursion_units(std::size_t stack_bytes) noexcept {
    return std::min(std::max(stack_bytes / kStackBytesPerUnit, kUnitsMin), c_recursion_limit);
}

// The limit differs between platforms and patch releases: a fresh thread state shows it.
inline bool read_c_recursion_limit() {
    PyThreadState* fresh = PyThreadState_New(PyInterpreterState_Get());
    if (fresh == nullptr) {
        PyErr_NoMemory();
        return false;
    }
    const int limit = fresh->c_recursion_remaining;
    PyThreadState_Clear(fresh);
    PyThreadState_Delete(fresh);
    c_recursion_limit = static_cast<std::size_t>(limit);
    return check_fields({{"PyThreadState.c_recursion_remaining", limit >= 100 && limit <= 1'000'000}});
}

}  // namespace culm::interpreter
