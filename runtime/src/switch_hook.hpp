// The hook as the runtime's own files see it: a variable instead of a call, since each switch looks at it.
#pragma once

#include "culm/runtime/switch_hook.hpp"

namespace culm::runtime::detail {

// Written once, before the first scheduler.
extern constinit SwitchHook installed_hook;

}  // namespace culm::runtime::detail
