// Whether a system call may write into stack that is not there yet: three times, in three ways.
//
// "called" is read() into an array of the caller, none of which was touched. The call pushes its return address below
// the array, and that fault makes a strategy grow that grows by faults.
//
// "direct" hands the kernel an address far below anything that was touched, as a system call does that no function is
// wrapped around. libc's own code does this too, with arrays in its own frames.
//
// "tail" is a buffer that begins in stack which is not there yet and ends in stack which is.
//
// Built without stack clash protection, which would touch each page of the array beforehand.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "experiment.hpp"
#include "measure.hpp"
#include "on_stack.hpp"

namespace culm::lab {

namespace {

constexpr std::size_t kArrayBytes = std::size_t{256} << 10;

struct Writes {
    StackStrategy* strategy;
    StrategyStack* stack;
    int zeroes;
    std::size_t bytes;
    const char* called = "not tried";
    const char* direct = "not tried";
    const char* tail = "not tried";
};

const char* outcome(ssize_t got, std::size_t wanted) {
    if (got == static_cast<ssize_t>(wanted)) return "ok";
    if (got >= 0) return "short";
    return errno == EFAULT ? "EFAULT" : std::strerror(errno);
}

template <std::size_t kBytes>
[[gnu::noinline]] ssize_t read_into_own_array(int fd) {
    char array[kBytes];
    const ssize_t got = read(fd, array, sizeof(array));
    asm volatile("" : : "r"(array) : "memory");
    return got;
}

void write_by_kernel(OnStack&, void* argument) {
    auto& writes = *static_cast<Writes*>(argument);
    const std::size_t page = page_bytes();
    std::byte* here = static_cast<std::byte*>(__builtin_frame_address(0));
    // The tail comes first, because the other two open the part of the stack that must be closed for it.
    const auto* edge = writes.strategy->committed_limit(*writes.stack);
    if (edge == writes.stack->limit()) {  // grown by the kernel: the edge is the last page that is present
        edge = reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(here) / page * page) - 2 * page;
    }
    auto* straddling = const_cast<std::byte*>(edge) - page / 2;
    writes.tail = outcome(read(writes.zeroes, straddling, page), page);

    auto* far_below = reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(here) / page * page) -
                      2 * kArrayBytes - writes.bytes;
    writes.direct = outcome(read(writes.zeroes, far_below, writes.bytes), writes.bytes);
    writes.called = outcome(read_into_own_array<kArrayBytes>(writes.zeroes), kArrayBytes);
}

}  // namespace

Answer kernel_write(const Request& request) {
    const std::size_t bytes = request.bytes.value_or(65536);
    if (request.limit_bytes < 4 * kArrayBytes + bytes) {
        return unsupported("the buffers of this experiment need a limit of more than 1 MB");
    }
    Stacks stacks(*request.strategy);
    if (const Result<void> created = stacks.create(request.limit_bytes, 1); !created)
        return unsupported(created.error());
    const int zeroes = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    if (zeroes < 0) return unsupported("there is no /dev/zero");
    Writes writes{request.strategy, &stacks[0], zeroes, bytes};
    OnStack run(*request.strategy, stacks[0], &write_by_kernel, &writes);
    run.step_in();
    close(zeroes);
    Answer answer;
    answer.object.add("called", writes.called)
        .add("direct", writes.direct)
        .add("tail", writes.tail)
        .add("bytes", bytes);
    return answer;
}

}  // namespace culm::lab
