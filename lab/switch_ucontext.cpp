// Round trips by the C library's makecontext and swapcontext, which set the signal mask at each switch.
#include <ucontext.h>

#include <memory>

#include "measure.hpp"
#include "switches.hpp"

namespace culm::lab {

namespace {

struct Member {
    ucontext_t context{};
    Member* next = nullptr;
    ucontext_t* outside = nullptr;
};

// makecontext passes ints, so the pointer travels in two halves.
void go_round(unsigned high, unsigned low) {
    auto* self = reinterpret_cast<Member*>((std::uintptr_t{high} << 32) | low);
    Member* volatile next = self->next;
    for (;;) {
        ucontext_t* onward = next == nullptr ? self->outside : &next->context;
        swapcontext(&self->context, onward);
    }
}

}  // namespace

double round_trip_by_ucontext(std::span<const Place> places, std::size_t laps) {
    const auto members = std::make_unique<Member[]>(places.size());
    ucontext_t outside{};
    for (std::size_t i = 0; i < places.size(); ++i) {
        Member& member = members[i];
        member.next = i + 1 < places.size() ? &members[i + 1] : nullptr;
        member.outside = &outside;
        getcontext(&member.context);
        member.context.uc_stack.ss_sp = places[i].limit;
        member.context.uc_stack.ss_size = static_cast<std::size_t>(places[i].base - places[i].limit);
        const auto address = reinterpret_cast<std::uintptr_t>(&member);
        makecontext(&member.context, reinterpret_cast<void (*)()>(&go_round), 2, static_cast<unsigned>(address >> 32),
                    static_cast<unsigned>(address));
    }
    swapcontext(&outside, &members[0].context);
    const std::int64_t start = now_ns();
    for (std::size_t lap = 0; lap < laps; ++lap) swapcontext(&outside, &members[0].context);
    return static_cast<double>(now_ns() - start) / static_cast<double>(laps * (places.size() + 1));
}

}  // namespace culm::lab
