// What there is to measure on this machine: the strategies with what they declare, the switches, the kernel.
#include <sys/utsname.h>

#include <cstring>
#include <fstream>

#include "culm/kernel.hpp"
#include "experiment.hpp"
#include "strategies/strategies.hpp"
#include "switches.hpp"

namespace culm::lab {

namespace {

const char* word(GuardMeans guard) {
    switch (guard) {
        case GuardMeans::kKernelMarker:
            return "kernel marker";
        case GuardMeans::kMprotect:
            return "mprotect";
        case GuardMeans::kGap:
            return "gap";
        case GuardMeans::kNone:
            break;
    }
    return "none";
}

const char* word(KernelWrites writes) {
    switch (writes) {
        case KernelWrites::kYes:
            return "yes";
        case KernelWrites::kThroughFunction:
            return "when called through a function";
        case KernelWrites::kNo:
            break;
    }
    return "no";
}

const char* word(StrictOvercommit behaviour) {
    switch (behaviour) {
        case StrictOvercommit::kWorks:
            return "yes";
        case StrictOvercommit::kCharged:
            return "charged in full";
        case StrictOvercommit::kFails:
            break;
    }
    return "no";
}

JsonObject declared(const StrategyTraits& traits) {
    JsonObject object;
    object.add("grows", traits.grows)
        .add("shrinks", traits.shrinks)
        .add("guard", word(traits.guard))
        .add("catches_small_overflow", traits.catches_small_overflow)
        .add("catches_large_overflow", traits.catches_large_overflow)
        .add("neighbour_safe", traits.neighbour_safe)
        .add("kernel_may_write", word(traits.kernel_may_write))
        .add("mappings_per_stack", traits.mappings_per_stack);
    if (traits.mappings_per_stack == 0) {
        object.add_null("ceiling");
    } else {
        object.add("ceiling", kernel_features().mappings_max / traits.mappings_per_stack);
    }
    object.add("works_under_strict_overcommit", word(traits.strict_overcommit))
        .add("survives_fork", traits.survives_fork)
        .add("guard_survives_fork", traits.guard_survives_fork)
        .add("carries_python", traits.carries_python)
        .add("limit_min_bytes", traits.limit_bytes_min);
    if (traits.limit_bytes_max == 0) {
        object.add_null("limit_max_bytes");
    } else {
        object.add("limit_max_bytes", traits.limit_bytes_max);
    }
    return object.add("pointers_stay_valid", traits.pointers_stay_valid);
}

JsonObject described(const StackStrategy& strategy) {
    const char* why_not = strategy.why_unavailable();
    JsonObject object;
    return object.add("id", strategy.id())
        .add("name", strategy.name())
        .add("summary", strategy.summary())
        .add("declares", declared(strategy.traits()))
        .add("available", why_not == nullptr)
        .add("why_not", why_not);
}

// Measured by a program of its own, because every function on such a stack must be compiled for it.
JsonObject split_stacks() {
    StrategyTraits traits;
    traits.grows = true;
    traits.shrinks = true;  // a segment goes when the call that needed it returns
    traits.guard = GuardMeans::kNone;
    traits.catches_small_overflow = false;  // there is no limit to run over
    traits.neighbour_safe = true;
    traits.kernel_may_write = KernelWrites::kYes;
    const char* why_not = CULM_HAVE_SPLIT_STACK ? nullptr : "the compiler that built culm cannot compile -fsplit-stack";
    JsonObject object;
    return object.add("id", "split")
        .add("name", "split stacks (-fsplit-stack)")
        .add("summary",
             "Every function asks at its start whether its frame fits and links another segment if not: all code must "
             "be "
             "compiled for it, libpython and libc are not. Measured by culm-split-stack-probe.")
        .add("declares", declared(traits))
        .add("available", why_not == nullptr)
        .add("why_not", why_not);
}

std::string first_line(const char* path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

JsonObject kernel() {
    const KernelFeatures& features = kernel_features();
    utsname system{};
    uname(&system);
    const StackStrategy& userfaultfd = strategies::userfaultfd();
    const char* no_uffd = userfaultfd.why_unavailable();
    const bool user_only = userfaultfd.traits().kernel_may_write == KernelWrites::kNo;
    JsonObject object;
    return object.add("release", system.release)
        .add("machine", system.machine)
        .add("guard", features.guard == GuardKind::kMadvise ? "kernel marker" : "mprotect")
        .add("vectored_guard", features.vectored_guard)
        .add("vectored_discard", features.vectored_discard)
        .add("pagemap_scan", features.pagemap_scan)
        .add("overcommit_mode", features.overcommit_mode)
        .add("mappings_max", features.mappings_max)
        .add("page_bytes", features.page_bytes)
        .add("uffd", no_uffd != nullptr ? no_uffd : (user_only ? "faults of the program only" : "all faults"))
        .add("thp", first_line("/sys/kernel/mm/transparent_hugepage/enabled"));
}

}  // namespace

Answer inventory() {
    std::vector<JsonObject> listed;
    for (const StackStrategy* strategy : strategies::all()) listed.push_back(described(*strategy));
    listed.push_back(split_stacks());
    std::vector<JsonObject> switched;
    for (const SwitchKind& kind : switch_kinds()) {
        JsonObject object;
        switched.push_back(
            object.add("id", kind.id).add("available", kind.why_not == nullptr).add("why_not", kind.why_not));
    }
    Answer answer;
    answer.object.add("strategies", listed).add("switches", switched).add("kernel", kernel());
    return answer;
}

}  // namespace culm::lab
