"""Which experiments a run of the lab makes, and with what counts.

Three sizes: quick (for tests: everything once, small), standard (under two minutes on two processors) and full. The
experiments come in the order of their importance: when the time of the whole run is used up, the least important ones
are left out.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from culm.lab.findings import Strategy
from culm.lab.outcome import Experiment

__all__ = ["EXPERIMENTS", "PLANS", "Plan", "experiments_of", "fitted", "select_only"]

_KB, _MB = 1 << 10, 1 << 20
DEFAULT_LIMIT = 10 * _MB
# The most that one stack takes, page tables included, with a strategy that puts in pages one by one.
_STACK_BYTES_MAX = 16 * _KB


@dataclass(frozen=True)
class Plan:
    """The counts of one size of run."""

    name: str
    seconds_max: float  # of the whole run
    experiment_seconds_max: float
    lifecycle_count: int
    ceiling_count: int
    idle_count: int
    idle_limits: tuple[int, ...]
    growth_pages: int
    shrink_count: int
    shrink_pages: int
    fork_count: int
    switch_counts: tuple[int, ...]
    implementation_counts: tuple[int, ...]


PLANS = {
    "quick": Plan(
        name="quick",
        seconds_max=60,
        experiment_seconds_max=10,
        lifecycle_count=64,
        ceiling_count=2_000,
        idle_count=64,
        idle_limits=(64 * _KB, 10 * _MB),
        growth_pages=64,
        shrink_count=64,
        shrink_pages=8,
        fork_count=64,
        switch_counts=(16, 64),
        implementation_counts=(16,),
    ),
    "standard": Plan(
        name="standard",
        seconds_max=95,
        experiment_seconds_max=15,
        lifecycle_count=2_000,
        ceiling_count=100_000,
        idle_count=1_000,
        idle_limits=(64 * _KB, 256 * _KB, 1 * _MB, 10 * _MB),
        growth_pages=1_024,
        shrink_count=1_024,
        shrink_pages=16,
        fork_count=1_000,
        switch_counts=(10, 100, 1_000, 10_000),
        implementation_counts=(10, 1_000),
    ),
    # Five rounds of stacks with two mappings each must fit into the usual limit of 65,530.
    "full": Plan(
        name="full",
        seconds_max=1_800,
        experiment_seconds_max=120,
        lifecycle_count=6_000,
        ceiling_count=1_000_000,
        idle_count=10_000,
        idle_limits=(64 * _KB, 256 * _KB, 1 * _MB, 4 * _MB, 10 * _MB),
        growth_pages=2_048,
        shrink_count=8_192,
        shrink_pages=16,
        fork_count=10_000,
        switch_counts=(10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000),
        implementation_counts=(10, 100, 1_000, 10_000),
    ),
}

Maker = Callable[[Plan, Strategy], Iterator[Experiment]]


def _limit_of(strategy: Strategy) -> int:
    """10 MB, or less if the strategy cannot make such large stacks."""
    return min(DEFAULT_LIMIT, strategy.limit_bytes_max or DEFAULT_LIMIT)


def _one(name: str, **counts: str) -> Maker:
    """An experiment made once for each strategy; `counts` maps its options to the names of the plan's numbers."""

    def make(plan: Plan, strategy: Strategy) -> Iterator[Experiment]:
        options: dict[str, str | int | bool] = {"limit": _limit_of(strategy)}
        for option, number in counts.items():
            options[option] = getattr(plan, number)
        yield Experiment(name, strategy.id, options, plan.experiment_seconds_max)

    return make


def _idle(plan: Plan, strategy: Strategy) -> Iterator[Experiment]:
    most = _limit_of(strategy)
    limits = {limit for limit in plan.idle_limits if strategy.limit_bytes_max is None or limit <= most} or {most}
    # The largest comes first: the other figures are about 10 MB too.
    for limit in sorted(limits, reverse=True):
        yield Experiment("idle", strategy.id, {"limit": limit, "count": plan.idle_count}, plan.experiment_seconds_max)


def _locked(plan: Plan, strategy: Strategy) -> Iterator[Experiment]:
    options = {"limit": _limit_of(strategy), "locked": True}
    yield Experiment("mlock", strategy.id, options, plan.experiment_seconds_max)


# In order of importance.
EXPERIMENTS: dict[str, Maker] = {
    "overflow-small": _one("overflow-small"),
    "overflow-large": _one("overflow-large"),
    "kernel-write": _one("kernel-write"),
    "growth": _one("growth", pages="growth_pages"),
    "ceiling": _one("ceiling", count="ceiling_count"),
    "idle": _idle,
    "lifecycle": _one("lifecycle", count="lifecycle_count"),
    "growsdown": _one("growsdown"),
    "split": _one("split"),
    "shrink": _one("shrink", count="shrink_count", pages="shrink_pages"),
    "fork": _one("fork", count="fork_count"),
    "thp": _one("thp"),
    "mlock": _locked,
}

# Experiments about one strategy only. Split stacks, which have a program of their own, take part in no other.
_ONLY_FOR = {"growsdown": "growsdown", "split": "split"}
# Switches are measured on one strategy: apart from the stride, their cost does not depend on who made the stacks.
_SWITCH_STRATEGY = "arena"


def experiments_of(plan: Plan, strategies: Sequence[Strategy], switches: Sequence[str]) -> list[Experiment]:
    """Everything the plan asks for, in order of importance."""
    found: list[Experiment] = []
    for name, make in EXPERIMENTS.items():
        for strategy in strategies:
            if _applies(name, strategy):
                found += make(plan, strategy)
        if name == "lifecycle" and any(strategy.id == _SWITCH_STRATEGY for strategy in strategies):
            found += _switching(plan, switches)
    return found


def _applies(name: str, strategy: Strategy) -> bool:
    if strategy.id == "split" or name in _ONLY_FOR:
        return _ONLY_FOR.get(name) == strategy.id
    return name != "growth" or strategy.declares.get("grows") is not False


def _switching(plan: Plan, switches: Sequence[str]) -> Iterator[Experiment]:
    def switching(implementation: str, count: int, stride: str) -> Experiment:
        options: dict[str, str | int | bool] = {
            "limit": 256 * _KB,
            "switch": implementation,
            "count": count,
            "stride": stride,
        }
        return Experiment("switch", _SWITCH_STRATEGY, options, plan.experiment_seconds_max)

    for count in plan.switch_counts:
        yield switching("assembly", count, "odd")
        yield switching("assembly", count, "power-of-two")
    for implementation in switches:
        for count in plan.implementation_counts:
            if implementation != "assembly" or count not in plan.switch_counts:
                yield switching(implementation, count, "odd")


def fitted(plan: Plan, available_bytes: int) -> Plan:
    """The plan with no more stacks at once than half of the available memory can hold."""
    stacks = max(1_000, available_bytes // 2 // _STACK_BYTES_MAX)
    return replace(plan, ceiling_count=min(plan.ceiling_count, stacks))


def select_only(experiments: Sequence[Experiment], wanted: str) -> list[Experiment]:
    """The experiments that `wanted` names: EXPERIMENT, STRATEGY, EXPERIMENT/STRATEGY or a whole label.

    ValueError if there is none; its message lists what there is.
    """
    words = wanted.split("/")
    chosen = [each for each in experiments if each.label.split("/")[: len(words)] == words]
    if not chosen and len(words) == 1:
        chosen = [each for each in experiments if each.strategy == wanted]
    if chosen:
        return chosen
    names = dict.fromkeys(each.name for each in experiments)
    strategies = dict.fromkeys(each.strategy for each in experiments)
    raise ValueError(
        f"no experiment {wanted!r}. It is EXPERIMENT/STRATEGY, or one of the two.\n"
        f"  experiments: {', '.join(names)}\n"
        f"  strategies:  {', '.join(strategies)}"
    )
