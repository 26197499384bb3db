// Ten thousand fibers, each asleep on a stack that may grow to 10 MB, on one OS thread.
//
//   culm_example_ten_thousand_sleepers [fibers]
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "culm/runtime/spawn.hpp"

namespace {

std::size_t resident_bytes() {
    std::size_t total = 0;
    std::size_t resident = 0;
    std::FILE* file = std::fopen("/proc/self/statm", "r");
    if (!file) return 0;
    if (std::fscanf(file, "%zu %zu", &total, &resident) != 2) resident = 0;
    std::fclose(file);
    return resident * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

int main(int count, char** arguments) {
    using namespace std::chrono_literals;
    const long fibers = count > 1 ? std::atol(arguments[1]) : 10'000;
    if (fibers <= 0) {
        std::fprintf(stderr, "usage: %s [number of fibers]\n", arguments[0]);
        return 2;
    }
    const std::size_t before = resident_bytes();
    const auto begun = std::chrono::steady_clock::now();
    long woken = 0;
    std::vector<culm::JoinHandle> sleepers;
    for (long i = 0; i < fibers; ++i) {
        auto sleeper = culm::try_spawn([&woken] {
            culm::sleep_for(100ms);
            ++woken;
        });
        if (!sleeper) {
            std::fprintf(stderr, "no more than %ld fibers: %s; %s\n", i, sleeper.error().operation,
                         sleeper.error().advice);
            break;
        }
        sleepers.push_back(std::move(sleeper).value());
    }
    culm::yield_now();  // all of them are asleep now
    const std::size_t asleep = resident_bytes();
    for (auto& sleeper : sleepers) sleeper.join();

    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
    std::printf("%ld fibers slept 100 ms each: %.3f s in all, %.1f KB resident per sleeping fiber\n", woken,
                took.count(), static_cast<double>(asleep - before) / 1024.0 / static_cast<double>(fibers));
    return woken == fibers ? 0 : 1;
}
