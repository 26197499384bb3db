// dlopen, dlmopen, dlsym, dlclose.
//
// dlopen looks at its return address: the RUNPATH and the namespace of the caller decide what is found. So the hook
// must not call the real function, it must become it, by a tail call, and cannot do anything afterwards. What was
// loaded is patched a moment later: before dlsym hands out the first address in it, and before the next parks,
// whichever is first. Constructors run unpatched. Objects in a namespace of their own (dlmopen) have their own libc
// with its own errno; they are left alone.
#include "loading.hpp"

#include "hooks.hpp"
#include "install.hpp"

// A tail call even without optimisation; a compiler without either spelling still makes one from -O2 on.
#if defined(__clang__)
#define CULM_TAIL_CALL [[clang::musttail]]
#define CULM_TAIL_CALLER
#else
#define CULM_TAIL_CALL
#define CULM_TAIL_CALLER \
    __attribute__((optimize("O2", "optimize-sibling-calls"), no_sanitize("address", "thread", "undefined")))
#endif

namespace culm::runtime::interpose {

namespace {

constexpr unsigned kParksAfterLoad = 64;

void note_load() noexcept { parks_after_load.store(kParksAfterLoad, std::memory_order_relaxed); }

}  // namespace

namespace hooks {

CULM_TAIL_CALLER void* dlopen(const char* path, int flags) noexcept {
    note_load();
    CULM_TAIL_CALL return real.dlopen(path, flags);
}

CULM_TAIL_CALLER void* dlmopen(Lmid_t space, const char* path, int flags) noexcept {
    note_load();
    CULM_TAIL_CALL return real.dlmopen(space, path, flags);
}

// RTLD_NEXT and RTLD_DEFAULT depend on the caller too.
CULM_TAIL_CALLER void* dlsym(void* handle, const char* name) noexcept {
    patch_new_objects();
    CULM_TAIL_CALL return real.dlsym(handle, name);
}

int dlclose(void* handle) noexcept {
    const int result = real.dlclose(handle);
    forget_unloaded_objects();
    return result;
}

}  // namespace hooks

void patch_newly_loaded() noexcept {
    unsigned left = parks_after_load.load(std::memory_order_relaxed);
    if (left > 0) parks_after_load.compare_exchange_strong(left, left - 1, std::memory_order_relaxed);
    patch_new_objects();
}

}  // namespace culm::runtime::interpose
