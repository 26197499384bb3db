"""Findings made by hand: what a machine could have measured, for the branches that this machine does not take."""

from typing import Any

from culm.lab.findings import Findings
from culm.lab.outcome import Kind, Outcome

MB = 1 << 20
LIMIT = 10 * MB

STRATEGIES = ("arena", "mmap", "bare-mmap", "fault-handler", "growsdown", "malloc", "copying", "split")
KERNEL = {
    "guard": "kernel marker",
    "vectored_guard": True,
    "vectored_discard": True,
    "pagemap_scan": True,
    "overcommit_mode": 0,
    "mappings_max": 65530,
    "page_bytes": 4096,
}


def outcome(experiment: str, strategy: str, kind: Kind = "measured", **more: Any) -> Outcome:
    """One outcome; `options`, `before`, `signal` and `message` as they are, everything else is the result."""
    options = {"limit": LIMIT, **more.pop("options", {})}
    fields = {name: more.pop(name) for name in ("before", "signal", "message", "command") if name in more}
    return Outcome(experiment, strategy, options, kind, more, **fields)


def caught(experiment: str, strategy: str, signal: str = "SIGSEGV") -> Outcome:
    return outcome(experiment, strategy, "killed", before="write below the limit", signal=signal)


def findings(*outcomes: Outcome, kernel: dict[str, Any] | None = None, **more: Any) -> Findings:
    """A run with these outcomes."""
    declares = more.pop("declares", {})
    missing = more.pop("missing", {})
    strategies = [
        {
            "id": strategy,
            "name": f"the strategy {strategy}",
            "summary": "What it is.",
            "declares": declares.get(strategy, {}),
            "available": strategy not in missing,
            "why_not": missing.get(strategy),
        }
        for strategy in STRATEGIES
    ]
    knowledge = {
        "strategies": strategies,
        "switches": more.pop("switches", [{"id": "assembly", "available": True, "why_not": None}]),
        "kernel": {**KERNEL, **(kernel or {})},
    }
    machine = {"system": "Linux 6.99", "processor": "A Processor", "versions": {}, "kernel": {}, "limits": {}}
    started = "2026-01-02T03:04:05+00:00"
    return Findings("standard", started, 61.5, machine, knowledge, list(outcomes), more.pop("fiber", {}))
