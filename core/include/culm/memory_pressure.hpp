// Whether memory is short: for our control group, by its limit, and for whoever waits for memory, by what the kernel
// reports as pressure stall information.
//
// Both are files (memory.current and its siblings in the group's directory, /proc/pressure/memory), found once and read
// again for each reading. Where they are missing memory never counts as short. No descriptor is kept, so fork and
// daemons that close what they do not know do no harm. No trigger is registered with the kernel either: what it counts
// adds up, so that a reading now and then misses nothing, and a trigger needs a privilege. Invariant: a reading never
// fails; what cannot be read counts as plenty.
#pragma once

#include <cstddef>
#include <cstdint>

namespace culm {

// Where the files are. An empty path: there is none.
struct PressureSources {
    static constexpr std::size_t kPathBytesMax = 512;
    char group_directory[kPathBytesMax] = {};  // of our control group, version 2 or 1
    char stall_file[kPathBytesMax] = {};       // of the group, or of the machine
    bool are_real = true;                      // false: a test has put them in the place of the machine's
};

// Found at the first call. Thread-safe.
const PressureSources& pressure_sources() noexcept;

// Tells one scheduler about the pressure. It remembers its last reading, because the kernel's counters only grow and
// the difference between two readings is what counts.
class PressureGauge {
public:
    // The group holds more than this part of its limit, file pages that nobody uses set aside; or somebody has waited
    // for memory for more than that part of the time since the last reading.
    static constexpr std::size_t kGroupPercent = 90;
    static constexpr std::int64_t kStallPercent = 10;

    // Reads the files, at most four small ones, and says whether memory is short. From `now_ns` it knows how much time
    // has passed since the last reading.
    bool take_reading(std::int64_t now_ns) noexcept;

private:
    bool group_is_full(const PressureSources& sources) noexcept;
    bool somebody_stalls(const PressureSources& sources, std::int64_t now_ns) noexcept;

    const PressureSources* sources_ = nullptr;  // of the last reading
    std::int64_t last_reading_ns_ = 0;
    std::int64_t last_stall_us_ = -1;  // unknown
};

}  // namespace culm
