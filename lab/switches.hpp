// The ways of switching between two stacks, behind one signature, so that they can be compared in one program.
//
// Each goes round a ring of stacks `laps` times: where to go next is read from the stack that is resumed, as a real
// scheduler's next step depends on it. Invariant: all of them do the same work but the switch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace culm::lab {

struct Place {
    std::byte* base;
    std::byte* limit;
};

// Goes round once to warm up, then `laps` times; nanoseconds per switch of the latter.
using RoundTrip = double (*)(std::span<const Place> places, std::size_t laps);

struct SwitchKind {
    const char* id;
    const char* implementation;
    const char* why_not;  // null: available
    RoundTrip round_trip;
};

std::span<const SwitchKind> switch_kinds();

double round_trip_by_assembly(std::span<const Place> places, std::size_t laps);
double round_trip_by_ucontext(std::span<const Place> places, std::size_t laps);
double round_trip_by_boost(std::span<const Place> places, std::size_t laps);

}  // namespace culm::lab
