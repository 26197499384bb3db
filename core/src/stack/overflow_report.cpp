// The report of an overflow: who, how much, what to do; then the frames.
//
// The line comes first and in one piece: should looking at the frames fault as well, it has been said.
#include "stack/overflow_report.hpp"

#include <cstdint>
#include <cstring>

#include "os/os.hpp"

namespace culm {

namespace {

constexpr std::size_t kFramesMax = 40;

// Text put together without the C library: snprintf is not async-signal-safe.
class Report {
public:
    void add(const char* text) noexcept { add(text, std::strlen(text)); }
    void add(const char* text, std::size_t bytes) noexcept {
        for (std::size_t i = 0; i < bytes && length_ < sizeof(text_); ++i) text_[length_++] = text[i];
    }
    void add_number(std::uint64_t number, unsigned radix = 10) noexcept {
        char digits[20];
        std::size_t count = 0;
        do {
            digits[count++] = "0123456789abcdef"[number % radix];
            number /= radix;
        } while (number != 0);
        while (count > 0) add(&digits[--count], 1);
    }
    void send() const noexcept { os::write_to_stderr(text_, length_); }

private:
    char text_[1024];
    std::size_t length_ = 0;
};

void add_owner(Report& report, const Stack& stack, DescribeStackOwner describe) noexcept {
    char owner[256];
    std::size_t length = describe == nullptr ? 0 : describe(stack, owner, sizeof(owner));
    if (length > sizeof(owner)) length = sizeof(owner);
    if (length == 0) {
        report.add("a fiber");
    } else {
        report.add(owner, length);
    }
}

}  // namespace

void stack::prepare_overflow_report() noexcept { os::prepare_backtrace(); }

void stack::report_overflow(const Overflow& overflow, const StackOwner& owner) noexcept {
    const Stack& stack = overflow.stack;
    const std::byte* const touched = overflow.touched;
    const std::byte* const sp = overflow.sp;
    const std::byte* deepest = sp != nullptr && sp < touched ? sp : touched;
    Report report;
    report.add("culm: ");
    add_owner(report, stack, owner.describe);
    report.add(" ran out of stack: limit ");
    report.add_number(stack_limit_bytes(stack.size_class));
    report.add(" bytes, used ");
    report.add_number(static_cast<std::uint64_t>(stack.base - deepest));
    report.add(overflow.is_fault ? " bytes (fault at 0x" : " bytes (in an interposed call, at 0x");
    report.add_number(reinterpret_cast<std::uintptr_t>(touched), 16);
    report.add("). Spawn it with a larger stack_limit=, or recurse less.\n");
    report.send();
    if (owner.trace != nullptr) owner.trace(stack);
    if (!overflow.has_room) return;
    constexpr const char* kHeading = "C frames, innermost first:\n";
    os::write_to_stderr(kHeading, std::strlen(kHeading));
    os::write_backtrace_to_stderr(overflow.pc, kFramesMax);
}

}  // namespace culm
