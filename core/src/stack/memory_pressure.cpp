// Finds the files that tell about memory pressure, and reads them.
//
// A group of version 2 has memory.current, memory.high and memory.max; one of version 1 has memory.usage_in_bytes and
// memory.limit_in_bytes. Both count cached file pages, which the kernel drops before anything else: those that are
// inactive are set aside, as container managers do.
// Invariant: a sources object, once published, is never changed or freed.
#include "culm/memory_pressure.hpp"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <span>

#include "culm/testing/overrides.hpp"
#include "os/os.hpp"

namespace culm {

namespace {

constexpr long kNoNumber = -1;

// Other threads may still read an earlier one: none is ever freed.
struct KeptSources {
    PressureSources sources;
    KeptSources* before;
};
constinit std::atomic<KeptSources*> kept{nullptr};
constinit std::atomic<const PressureSources*> overriding{nullptr};

// False: it does not fit, and `path` is empty.
bool join_path(std::span<char> path, const char* directory, std::size_t directory_bytes, const char* name) noexcept {
    const int written =
        std::snprintf(path.data(), path.size(), "%.*s/%s", static_cast<int>(directory_bytes), directory, name);
    const bool fits = written > 0 && static_cast<std::size_t>(written) < path.size();
    if (!fits) path[0] = '\0';
    return fits;
}

long number_in(const char* directory, const char* name) noexcept {
    char path[PressureSources::kPathBytesMax + 32];
    if (!join_path(path, directory, std::strlen(directory), name)) return kNoNumber;
    return os::read_number(path, kNoNumber);
}

bool is_memory_group(const char* directory) noexcept {
    return number_in(directory, "memory.current") >= 0 || number_in(directory, "memory.usage_in_bytes") >= 0;
}

// Tries mount point + path of the group; the mount point alone is the group's view of itself in a container.
bool try_group(PressureSources& found, const char* mount, const char* path, std::size_t path_bytes) noexcept {
    const int written = std::snprintf(found.group_directory, sizeof(found.group_directory), "%s%.*s", mount,
                                      static_cast<int>(path_bytes), path);
    const bool fits = written > 0 && static_cast<std::size_t>(written) < sizeof(found.group_directory);
    if (fits && is_memory_group(found.group_directory)) return true;
    found.group_directory[0] = '\0';
    return false;
}

// A line of /proc/self/cgroup: `0::/path` or `4:memory:/path`.
bool try_line(PressureSources& found, const char* line, std::size_t bytes) noexcept {
    const char* const end = line + bytes;
    const char* first = std::find(line, end, ':');
    const char* second = first == end ? end : std::find(first + 1, end, ':');
    if (second == end) return false;
    const char* path = second + 1;
    const auto path_bytes = static_cast<std::size_t>(end - path);
    if (first + 1 == second) {
        return try_group(found, "/sys/fs/cgroup", path, path_bytes) ||
               try_group(found, "/sys/fs/cgroup/unified", path, path_bytes) ||
               try_group(found, "/sys/fs/cgroup", "", 0);
    }
    constexpr std::size_t kMemoryBytes = 6;
    const bool is_memory = second - first - 1 == kMemoryBytes && std::memcmp(first + 1, "memory", kMemoryBytes) == 0;
    if (!is_memory) return false;
    return try_group(found, "/sys/fs/cgroup/memory", path, path_bytes) ||
           try_group(found, "/sys/fs/cgroup/memory", "", 0);
}

void find_group(PressureSources& found) noexcept {
    char text[2048];
    const std::size_t bytes = os::read_text("/proc/self/cgroup", text);
    for (std::size_t start = 0; start < bytes;) {
        const char* const end = std::find(text + start, text + bytes, '\n');
        const auto length = static_cast<std::size_t>(end - (text + start));
        if (try_line(found, text + start, length)) return;
        start += length + 1;
    }
}

// The total of the line `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`, in microseconds.
long stalled_us(const char* path) noexcept {
    char text[256];
    const std::size_t bytes = os::read_text(path, std::span(text, sizeof(text) - 1));
    text[bytes] = '\0';
    if (std::strncmp(text, "some ", 5) != 0) return kNoNumber;
    const char* total = std::strstr(text, "total=");
    return total == nullptr ? kNoNumber : std::strtol(total + 6, nullptr, 10);
}

PressureSources find_sources() noexcept {
    PressureSources found;
    find_group(found);
    const auto take_stall_file = [&](const char* path) {
        if (stalled_us(path) < 0) return false;
        std::snprintf(found.stall_file, sizeof(found.stall_file), "%s", path);
        return true;
    };
    char of_group[sizeof(found.group_directory) + 32];
    const bool has_group = found.group_directory[0] != '\0';
    if (has_group &&
        join_path(of_group, found.group_directory, std::strlen(found.group_directory), "memory.pressure") &&
        std::strlen(of_group) < sizeof(found.stall_file) && take_stall_file(of_group)) {
        return found;
    }
    take_stall_file("/proc/pressure/memory");
    return found;
}

// A number of memory.stat, whose lines are `name number`; 0 when it is not there.
long statistic_in(const char* directory, const char* name) noexcept {
    char path[PressureSources::kPathBytesMax + 32];
    char text[2048];
    if (!join_path(path, directory, std::strlen(directory), "memory.stat")) return 0;
    text[os::read_text(path, std::span(text, sizeof(text) - 1))] = '\0';
    const std::size_t name_bytes = std::strlen(name);
    for (const char* line = text; line != nullptr && *line != '\0';) {
        if (std::strncmp(line, name, name_bytes) == 0 && line[name_bytes] == ' ') {
            return std::strtol(line + name_bytes, nullptr, 10);
        }
        const char* end = std::strchr(line, '\n');
        line = end == nullptr ? nullptr : end + 1;
    }
    return 0;
}

}  // namespace

const PressureSources& pressure_sources() noexcept {
    if (const PressureSources* wanted = overriding.load(std::memory_order_acquire)) return *wanted;
    static const PressureSources found = find_sources();
    return found;
}

bool override_pressure_sources(const PressureSources* sources) noexcept {
    if (sources == nullptr) {
        overriding.store(nullptr, std::memory_order_release);
        return true;
    }
    auto* const copy = new (std::nothrow) KeptSources{*sources, nullptr};
    if (copy == nullptr) return false;
    copy->sources.are_real = false;
    copy->before = kept.load(std::memory_order_relaxed);
    while (!kept.compare_exchange_weak(copy->before, copy, std::memory_order_release, std::memory_order_relaxed)) {
    }
    overriding.store(&copy->sources, std::memory_order_release);
    return true;
}

bool PressureGauge::take_reading(std::int64_t now_ns) noexcept {
    const PressureSources& sources = pressure_sources();
    if (&sources != sources_) {
        sources_ = &sources;
        last_stall_us_ = kNoNumber;
    }
    const bool stalls = somebody_stalls(sources, now_ns);  // always: it notes how far the count has come
    return group_is_full(sources) || stalls;
}

bool PressureGauge::group_is_full(const PressureSources& sources) noexcept {
    const char* const directory = sources.group_directory;
    if (directory[0] == '\0') return false;
    long used = number_in(directory, "memory.current");
    long limit = kNoNumber;
    if (used >= 0) {
        const long high = number_in(directory, "memory.high");
        const long max = number_in(directory, "memory.max");
        limit = high < 0 ? max : max < 0 ? high : std::min(high, max);
    } else {
        used = number_in(directory, "memory.usage_in_bytes");
        limit = number_in(directory, "memory.limit_in_bytes");
    }
    // Without a limit version 2 says "max" and version 1 a number near the largest.
    if (used < 0 || limit <= 0 || limit > std::numeric_limits<long>::max() / 2) return false;
    const long threshold = limit / 100 * static_cast<long>(kGroupPercent);
    if (used < threshold) return false;
    const long idle_files =
        std::max(statistic_in(directory, "total_inactive_file"), statistic_in(directory, "inactive_file"));
    return used - idle_files >= threshold;
}

bool PressureGauge::somebody_stalls(const PressureSources& sources, std::int64_t now_ns) noexcept {
    if (sources.stall_file[0] == '\0') return false;
    const long total_us = stalled_us(sources.stall_file);
    const std::int64_t since_us = (now_ns - last_reading_ns_) / 1000;
    const std::int64_t before_us = last_stall_us_;
    last_reading_ns_ = now_ns;
    last_stall_us_ = total_us;
    if (total_us < 0 || before_us < 0 || since_us <= 0) return false;
    return (total_us - before_us) * 100 > since_us * kStallPercent;
}

}  // namespace culm
