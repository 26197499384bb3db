// The list of fault resolvers. Invariant: a slot is filled in before the count includes it.
#include "culm/fault_resolver.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>

#include "culm/overflow.hpp"

namespace culm {

namespace {

constexpr std::size_t kResolversMax = 8;

constinit FaultResolver resolvers[kResolversMax] = {};
constinit std::atomic<std::size_t> resolver_count{0};
constinit std::mutex add_mutex;

}  // namespace

Result<void> add_fault_resolver(FaultResolver resolver) noexcept {
    if (Result<void> installed = install_overflow_handler(nullptr); !installed) return installed;
    const std::lock_guard lock(add_mutex);
    const std::size_t count = resolver_count.load(std::memory_order_relaxed);
    if (std::find(resolvers, resolvers + count, resolver) != resolvers + count) return {};
    if (count == kResolversMax) return Error{ENOSPC, "add a fault resolver", "register fewer"};
    resolvers[count] = resolver;
    resolver_count.store(count + 1, std::memory_order_release);
    return {};
}

bool resolve_fault(void* address) noexcept {
    const std::size_t count = resolver_count.load(std::memory_order_acquire);
    return std::any_of(resolvers, resolvers + count, [address](FaultResolver resolver) { return resolver(address); });
}

}  // namespace culm
