// Probing: what is reported agrees with what the machine says, stays the same, and can be overridden.
#include "culm/kernel.hpp"
#include "culm/testing/overrides.hpp"

#include <doctest/doctest.h>

#include <unistd.h>

#include <fstream>

TEST_CASE("what is known about the kernel agrees with /proc") {
    const culm::KernelFeatures& features = culm::kernel_features();
    CHECK(features.page_bytes == static_cast<std::size_t>(sysconf(_SC_PAGESIZE)));
    std::ifstream mappings("/proc/sys/vm/max_map_count");
    std::size_t mappings_max = 0;
    if (mappings >> mappings_max) CHECK(features.mappings_max == mappings_max);
    std::ifstream overcommit("/proc/sys/vm/overcommit_memory");
    int overcommit_mode = 0;
    if (overcommit >> overcommit_mode) CHECK(features.overcommit_mode == overcommit_mode);
    if (features.vectored_guard) CHECK(features.guard == culm::GuardKind::kMadvise);
    if (features.self_pidfd) CHECK(features.vectored_discard);
    CHECK(&features == &culm::kernel_features());
    MESSAGE("guard " << (features.guard == culm::GuardKind::kMadvise ? "madvise" : "mprotect") << ", vectored guard "
                     << features.vectored_guard << ", vectored discard " << features.vectored_discard << ", self pidfd "
                     << features.self_pidfd << ", PAGEMAP_SCAN " << features.pagemap_scan);
}

TEST_CASE("an override is seen by everybody") {
    const culm::KernelFeatures real = culm::kernel_features();
    culm::KernelFeatures other = real;
    other.mappings_max = 1234;
    culm::override_kernel_features(other);
    CHECK(culm::kernel_features().mappings_max == 1234);
    culm::override_kernel_features(real);
    CHECK(culm::kernel_features().mappings_max == real.mappings_max);
}
