// What the table of fibers that wait for semaphores needs around fork.
#pragma once

#include <atomic>

namespace culm::runtime::interpose {

namespace semaphores {

void before_fork() noexcept;
void after_fork_in_parent() noexcept;
void after_fork_in_child() noexcept;

}  // namespace semaphores

// A store before it is visible to all before any load after it. sem_trywait begins with a relaxed load, so what was
// written to the queue must be out first; ThreadSanitizer does not model this and says so in a warning.
inline void order_before_looking() noexcept {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wtsan"
    std::atomic_thread_fence(std::memory_order_seq_cst);
#pragma GCC diagnostic pop
}

}  // namespace culm::runtime::interpose
