// Round trips by culm's own switch.
#include <memory>
#include <vector>

#include "culm/context.hpp"
#include "measure.hpp"
#include "switches.hpp"

namespace culm::lab {

namespace {

struct Ring {
    Context outside;
};

struct Member {
    Context context;
    Member* next = nullptr;  // null: the last, which leads outside
    Ring* ring = nullptr;
};

void go_round(void* argument) {
    auto* self = static_cast<Member*>(argument);
    // On this stack, and read at each turn.
    Member* volatile next = self->next;
    for (;;) {
        Context& onward = next == nullptr ? self->ring->outside : next->context;
        switch_context(self->context, onward);
    }
}

}  // namespace

double round_trip_by_assembly(std::span<const Place> places, std::size_t laps) {
    const auto members = std::make_unique<Member[]>(places.size());
    Ring ring;
    adopt_thread_context(ring.outside);
    for (std::size_t i = 0; i < places.size(); ++i) {
        members[i].next = i + 1 < places.size() ? &members[i + 1] : nullptr;
        members[i].ring = &ring;
        prepare_context(members[i].context, places[i].base, places[i].limit, &go_round, &members[i]);
    }
    switch_context(ring.outside, members[0].context);
    const std::int64_t start = now_ns();
    for (std::size_t lap = 0; lap < laps; ++lap) switch_context(ring.outside, members[0].context);
    const auto ns = static_cast<double>(now_ns() - start);
    for (std::size_t i = 0; i < places.size(); ++i) retire_context(members[i].context);
    retire_context(ring.outside);
    return ns / static_cast<double>(laps * (places.size() + 1));
}

}  // namespace culm::lab
