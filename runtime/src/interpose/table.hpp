// The one list of what is interposed: symbol, replacement, where the real function is kept, and in which objects.
// Invariant: sorted by name, so that a relocation's symbol is looked up by binary search.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace culm::runtime::interpose {

enum class Scope : std::uint8_t {
    kEveryObject,
    kInterpreterOnly,    // locks and identity: only there do fibers stand for threads
    kAllButInterpreter,  // pthread mutexes: the interpreter's own are never held across a blocking call
};

struct Entry {
    std::string_view name;
    void* replacement;
    void** real;  // *real is null when this libc lacks the symbol
    Scope scope;
};

std::span<const Entry> table() noexcept;
// The entry of that name whose real function exists, or null.
const Entry* find_entry(std::string_view name) noexcept;
// Looks the real functions up. Once, before anything is patched.
void resolve_real_functions() noexcept;

}  // namespace culm::runtime::interpose
