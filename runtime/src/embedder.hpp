// The embedder as the runtime's own files see it: a variable instead of a call, since each switch looks at it.
#pragma once

#include "culm/runtime/embedder.hpp"

namespace culm::runtime::detail {

// Written once, before the first scheduler.
extern constinit Embedder embedder;

}  // namespace culm::runtime::detail
