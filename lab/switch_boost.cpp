// Round trips by Boost.Context's jump_fcontext. Compiled where CMake finds the library.
#include <boost/context/detail/fcontext.hpp>
#include <memory>

#include "measure.hpp"
#include "switches.hpp"

namespace culm::lab {

namespace {

namespace fcontext = boost::context::detail;

struct Member {
    fcontext::fcontext_t context = nullptr;
    Member* next = nullptr;
    fcontext::fcontext_t outside = nullptr;
    Member* first = nullptr;
    Member* previous = nullptr;
};

// jump_fcontext() tells the code that it resumes where its caller is suspended. So each context notes on arrival where
// the one before it in the ring is to be resumed.
void go_round(fcontext::transfer_t arrived) {
    auto* self = static_cast<Member*>(arrived.data);
    Member* volatile next = self->next;
    for (;;) {
        if (self->previous == nullptr) {
            self->outside = arrived.fctx;
        } else {
            self->previous->context = arrived.fctx;
        }
        arrived = next == nullptr ? fcontext::jump_fcontext(self->first->outside, self)
                                  : fcontext::jump_fcontext(next->context, next);
    }
}

}  // namespace

double round_trip_by_boost(std::span<const Place> places, std::size_t laps) {
    const auto members = std::make_unique<Member[]>(places.size());
    for (std::size_t i = 0; i < places.size(); ++i) {
        Member& member = members[i];
        member.next = i + 1 < places.size() ? &members[i + 1] : nullptr;
        member.previous = i > 0 ? &members[i - 1] : nullptr;
        member.first = &members[0];
        member.context = fcontext::make_fcontext(places[i].base,
                                                 static_cast<std::size_t>(places[i].base - places[i].limit), &go_round);
    }
    Member& last = members[places.size() - 1];
    const auto go = [&] { last.context = fcontext::jump_fcontext(members[0].context, &members[0]).fctx; };
    go();
    const std::int64_t start = now_ns();
    for (std::size_t lap = 0; lap < laps; ++lap) go();
    return static_cast<double>(now_ns() - start) / static_cast<double>(laps * (places.size() + 1));
}

}  // namespace culm::lab
