// The data stack: the chunks of memory that hold Python frames.
//
//   root chunk (ours, in the fiber's stack) <- chunk <- chunk        previous points to the left
//
// The interpreter pushes a 16 KB chunk from the object arena allocator when a frame does not fit and pops it with the
// frame. The chunk whose `previous` is null is never freed by the interpreter, so it may be any memory: a fiber's root
// chunk lies at the base of its stack.
// Invariant: memory of ours is never given to the arena allocator.
#pragma once

#include <cstddef>

#include "interpreter/cpython_headers.hpp"
#include "interpreter/interpreter.hpp"

namespace culm::interpreter {

// Installs, once per process, an arena allocator in front of the present one that keeps freed 16 KB blocks. Versions
// without a chunk cached per thread otherwise call mmap and munmap each time that a call crosses the end of a chunk,
// and a small root chunk makes that common. It is never taken out again.
void install_chunk_cache() noexcept;

// Turns `bytes` of memory at `memory` into a root chunk, empty.
_PyStackChunk* make_root_chunk(void* memory, std::size_t bytes) noexcept;
// Frees the chunks above `root`. `innermost` is the chunk in use.
void release_chunks_above(_PyStackChunk* root, _PyStackChunk* innermost) noexcept;

}  // namespace culm::interpreter
