// Which size class holds a given limit.
#include <cerrno>

#include "culm/stack.hpp"

namespace culm {

Result<StackClass> stack_class_for(std::size_t limit_bytes) noexcept {
    constexpr auto kLargest = static_cast<StackClass>(kStackClassCount - 1);
    static_assert(stack_limit_bytes(kLargest) == std::size_t{1} << 30);
    if (limit_bytes == 0 || limit_bytes > stack_limit_bytes(kLargest)) {
        return Error{EINVAL, "choose a stack size", "ask for a stack limit between 1 byte and 1 GB"};
    }
    std::size_t index = 0;
    while (stack_limit_bytes(static_cast<StackClass>(index)) < limit_bytes) ++index;
    return static_cast<StackClass>(index);
}

}  // namespace culm
