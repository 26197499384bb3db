// See parking_lot.hpp.
#include "parking_lot.hpp"

#include <cerrno>
#include <csignal>

#include "culm/runtime/scheduler.hpp"

namespace culm::runtime {

namespace {

// This thread holds the lock of a part; and a signal handler that interrupted it there wanted to wake somebody.
constinit thread_local volatile sig_atomic_t holds_part = 0;
constinit thread_local volatile sig_atomic_t missed_wake = 0;

}  // namespace

ParkingLot ParkingLot::lot_;

class ParkingLot::Lock {
public:
    Lock(ParkingLot& lot, Part& part) noexcept : lot_(lot), part_(part) {
        holds_part = 1;
        part_.mutex.lock();
    }
    ~Lock() {
        part_.mutex.unlock();
        holds_part = 0;
        if (missed_wake == 0) return;
        missed_wake = 0;
        lot_.wake_everybody();
    }
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

private:
    ParkingLot& lot_;
    Part& part_;
};

ParkingLot::Part& ParkingLot::part_of(const void* key) noexcept {
    const auto address = reinterpret_cast<std::uintptr_t>(key);
    return parts_[(address >> 1 ^ address >> 5 ^ address >> 12) % kParts];
}

void ParkingLot::link(Wait& wait, bool at_front) noexcept {
    Part& part = part_of(wait.target.key);
    const Lock lock(*this, part);
    wait.in_parking_lot = true;
    if (at_front) {
        part.waits.push_front(wait);
    } else {
        part.waits.push_back(wait);
    }
    part.count.fetch_add(1, std::memory_order_seq_cst);
}

// Under the lock.
void ParkingLot::take_out(Part& part, Wait& wait) noexcept {
    wait.link.unlink();
    wait.in_parking_lot = false;
    part.count.fetch_sub(1, std::memory_order_seq_cst);
}

Abort ParkingLot::unlink(Wait& wait) noexcept {
    Part& part = part_of(wait.target.key);
    const Lock lock(*this, part);
    if (!wait.in_parking_lot) return Abort::kPending;
    take_out(part, wait);
    return Abort::kDone;
}

// Under the lock. A wait whose fiber another of its records has woken is taken out all the same: it is over.
bool ParkingLot::wake_first(Part& part, const void* key) noexcept {
    for (Wait* wait = part.waits.front(); wait;) {
        Wait* next = part.waits.after(*wait);
        if (wait->target.key == key) {
            take_out(part, *wait);
            if (Scheduler::complete_shared(*wait)) return true;
        }
        wait = next;
    }
    return false;
}

bool ParkingLot::wake_one(const void* key) noexcept {
    Part& part = part_of(key);
    if (part.count.load(std::memory_order_seq_cst) == 0) return false;
    if (holds_part != 0) {
        missed_wake = 1;
        return true;
    }
    const int errno_before = errno;
    bool woken = false;
    {
        const Lock lock(*this, part);
        woken = wake_first(part, key);
    }
    errno = errno_before;
    return woken;
}

void ParkingLot::wake_all(const void* key, bool closed) noexcept {
    Part& part = part_of(key);
    if (part.count.load(std::memory_order_seq_cst) == 0) return;
    const Lock lock(*this, part);
    for (Wait* wait = part.waits.front(); wait;) {
        Wait* next = part.waits.after(*wait);
        if (wait->target.key == key) {
            wait->closed = closed;
            take_out(part, *wait);
            Scheduler::complete_shared(*wait);
        }
        wait = next;
    }
}

void ParkingLot::pass_on(const Wait& wait) noexcept {
    if (wait.kind == WaitKind::kLock) wake_one(wait.target.key);
}

// For which key the wake was that a signal handler could not make is not known. So everybody is woken, and waits again
// if what he waits for has not happened.
void ParkingLot::wake_everybody() noexcept {
    for (Part& part : parts_) {
        const Lock lock(*this, part);
        while (Wait* wait = part.waits.front()) {
            take_out(part, *wait);
            Scheduler::complete_shared(*wait);
        }
    }
}

void ParkingLot::before_fork() noexcept {
    for (Part& part : parts_) part.mutex.lock();
}

void ParkingLot::after_fork_in_parent() noexcept {
    for (Part& part : parts_) part.mutex.unlock();
}

void ParkingLot::after_fork_in_child() noexcept {
    const Scheduler* here = Scheduler::current();
    for (Part& part : parts_) {
        for (Wait* wait = part.waits.front(); wait;) {
            Wait* next = part.waits.after(*wait);
            // Fibers of threads that do not exist here. Their control blocks are leaked with their stacks.
            if (&wait->fiber->scheduler() != here) take_out(part, *wait);
            wait = next;
        }
        part.mutex.unlock();
    }
}

}  // namespace culm::runtime
