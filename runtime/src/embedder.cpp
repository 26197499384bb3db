// Holds what the embedding language has installed.
// Invariant: set before the first scheduler is made, constant afterwards.
#include "embedder.hpp"

namespace culm::runtime {

constinit Embedder detail::embedder;

void set_embedder(const Embedder& embedder) noexcept { detail::embedder = embedder; }

}  // namespace culm::runtime
