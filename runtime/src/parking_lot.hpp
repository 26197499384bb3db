// Where fibers wait for something that any OS thread may complete, and that has no place of its own for a queue: a
// semaphore's address, the end of a fiber on another thread.
//
// A table of the whole process, by key; a lock for each part. Whoever waits links his record and then looks once more
// whether what he waits for has happened; whoever makes it happen does so first and then looks here. Both orders are
// sequentially consistent, so that one of the two sees the other and no wake-up is lost.
// Safe against signal handlers: where a handler wants to wake somebody and has interrupted its own thread while that
// held a lock of the table, everybody is woken when the lock is released. Invariant: a part's lock is never held across
// a park; a record that is in the lot says so (Wait::in_parking_lot).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "culm/runtime/wait.hpp"

namespace culm::runtime {

class ParkingLot {
public:
    static ParkingLot& get() noexcept { return lot_; }

    // The end of the fiber with that id, as a key. Odd, which no address of a semaphore is.
    static const void* end_of(std::uint64_t id) noexcept { return reinterpret_cast<const void*>(id << 1 | 1); }

    // Links a shared wait under its key, behind the others or before them.
    void link(Wait& wait, bool at_front) noexcept;
    // Takes it out. kPending: it is not there any more, because it is being completed.
    Abort unlink(Wait& wait) noexcept;

    // Completes the first wait for the key. False: nobody waits for it.
    bool wake_one(const void* key) noexcept;
    // Completes all of them. `closed`: what they wait for is no more (Wait::closed).
    void wake_all(const void* key, bool closed = false) noexcept;
    // The wait was completed and its fiber makes no use of that: the next one for the same key gets it.
    void pass_on(const Wait& wait) noexcept;

    // Around fork: the child has the calling thread's waits only.
    void before_fork() noexcept;
    void after_fork_in_parent() noexcept;
    void after_fork_in_child() noexcept;

private:
    class Lock;
    struct Part {
        std::mutex mutex;
        IntrusiveList<Wait, &Wait::link> waits;  // under mutex, first come first served
        std::atomic<unsigned> count{0};          // of `waits`; written under mutex, read by wakers without it
    };

    static constexpr unsigned kParts = 32;
    Part& part_of(const void* key) noexcept;
    void take_out(Part& part, Wait& wait) noexcept;
    bool wake_first(Part& part, const void* key) noexcept;
    void wake_everybody() noexcept;

    static ParkingLot lot_;
    Part parts_[kParts];
};

}  // namespace culm::runtime
