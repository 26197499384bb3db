// Holds what the embedding language adds to a switch.
// Invariant: set before the first scheduler is made, constant afterwards.
#include "switch_hook.hpp"

namespace culm::runtime {

constinit SwitchHook detail::installed_hook;

void set_switch_hook(const SwitchHook& hook) noexcept { detail::installed_hook = hook; }
const SwitchHook& switch_hook() noexcept { return detail::installed_hook; }

}  // namespace culm::runtime
