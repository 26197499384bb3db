"""culm.statistics(): counters of the calling thread's scheduler."""

from dataclasses import dataclass

from culm import _culm
from culm._stacks import stack_sites


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters since the thread's first use of culm, and what there is now."""

    switches: int  #: switches between fibers
    spawned: int  #: fibers started
    finished: int  #: fibers that have ended
    polls: int  #: times that the kernel was asked which descriptors are ready
    idle_polls: int  #: of these, the times when no fiber could run
    remote_calls: int  #: wake-ups and cancellations that came from other OS threads
    fibers: int  #: unfinished fibers, without the main fiber
    ready: int  #: of these, in the run queue
    timers: int  #: fibers with a deadline
    fd_waits: int  #: waits for a descriptor
    pool_stacks: int  #: free stacks kept for new fibers
    pool_warm_bytes: int  #: memory that these hold
    pool_returned: int  #: free stacks that were given back for other threads to use
    stack_limit_bytes: int  #: what the stacks in use may grow to, in all
    shrink_slices: int  #: times that shrinking did a part of its work
    shrink_visited: int  #: fibers whose stack it has looked at
    shrink_fibers: int  #: times that one of these gave memory back
    shrink_ranges: int  #: ranges of addresses whose memory was given back, or should have been
    shrink_refused: int  #: of these, those that the kernel refused to take, because the memory is locked
    shrink_bytes: int  #: memory given back
    shrink_cpu_ns: int  #: processor time spent on shrinking
    shrink_kept_bytes: int  #: memory that parked fibers do not need and keep for now: see configure(shrink_budget=)
    pressure_events: int  #: times that memory was found to be short
    interposed_slots: int  #: table entries that patch() has replaced
    interposed_parks: int  #: blocking calls that parked a fiber
    interposed_direct: int  #: blocking calls that had to block the thread because a pthread mutex was held
    stack_resident_bytes: int | None = None  #: with stacks=True: memory on the stacks in use
    stack_peak_bytes: int | None = None  #: with stacks=True: the largest peak known


def statistics(*, stacks: bool = False) -> Statistics:
    """Return the counters of the calling thread's scheduler. Does not park.

    stacks: also measure the stacks, which takes about a microsecond for each fiber; stack_sites() tells more. Raises
    OSError then where the kernel does not say which pages are in memory.
    """
    interposition = _culm.interposition_statistics()
    sites = stack_sites() if stacks else []
    return Statistics(
        **_culm.statistics(),
        interposed_slots=interposition["slots"],
        interposed_parks=interposition["parks"],
        interposed_direct=interposition["direct"],
        stack_resident_bytes=sum(site.resident for site in sites) if stacks else None,
        stack_peak_bytes=max((site.peak_max for site in sites), default=0) if stacks else None,
    )
