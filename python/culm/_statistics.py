"""culm.statistics(): counters of the calling thread's scheduler."""

from dataclasses import dataclass

from culm import _culm


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters since the thread's first use of culm, and what there is now."""

    switches: int  #: switches between fibers
    spawned: int  #: fibers started
    finished: int  #: fibers that have ended
    polls: int  #: looks at the kernel for ready descriptors
    idle_polls: int  #: of these, because nothing could run
    remote_calls: int  #: wake-ups and cancellations that came from other OS threads
    fibers: int  #: unfinished fibers, without the main fiber
    ready: int  #: of these, in the run queue
    timers: int  #: fibers with a deadline
    fd_waits: int  #: waits for a descriptor
    pool_stacks: int  #: free stacks kept for new fibers
    pool_warm_bytes: int  #: memory on them
    interposed_slots: int  #: table entries that patch() has replaced
    interposed_parks: int  #: blocking calls that parked a fiber
    interposed_direct: int  #: blocking calls that had to block the thread because a pthread mutex was held


def statistics() -> Statistics:
    """Return the counters of the calling thread's scheduler. Does not park."""
    interposition = _culm.interposition_statistics()
    return Statistics(
        **_culm.statistics(),
        interposed_slots=interposition["slots"],
        interposed_parks=interposition["parks"],
        interposed_direct=interposition["direct"],
    )
