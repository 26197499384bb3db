"""The program that does the measuring, culm-stack-probe: where it is, what it knows, and one run of it.

It is a C++ program of its own, not this interpreter, because an experiment may crash, and because only stacks are to be
measured, without the interpreter's own work.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from culm.lab.child import run_child
from culm.lab.outcome import Experiment, Outcome, outcome_of

__all__ = ["Probe", "ProbeError"]

_STRATEGIES_SECONDS_MAX = 30.0


class ProbeError(Exception):
    """The probe is not there, or does not answer. The message says what to do."""


@dataclass(frozen=True)
class Probe:
    """The installed program."""

    path: Path

    @classmethod
    def installed(cls) -> "Probe":
        """The one that came with the package. ProbeError if it is missing."""
        path = Path(__file__).with_name("bin") / "culm-stack-probe"
        if not os.access(path, os.X_OK):
            raise ProbeError(
                f"the program that measures, {path}, is missing or not executable. It is built and installed with "
                "culm: install culm again, from a wheel for this platform or with a C++ compiler."
            )
        return cls(path)

    def know(self) -> dict[str, Any]:
        """What `culm-stack-probe strategies` says: strategies, context switches, the kernel. ProbeError if nothing."""
        outcome = self._run(Experiment("strategies", "", {}, _STRATEGIES_SECONDS_MAX), ["strategies"])
        if outcome.kind != "measured" or not isinstance(outcome.result.get("strategies"), list):
            reason = outcome.message or outcome.signal or outcome.kind
            raise ProbeError(f"the program that measures, {self.path}, does not say what it knows: {reason}")
        return dict(outcome.result)

    def run(self, experiment: Experiment) -> Outcome:
        """Make one experiment. Never raises for what happens to the child: that is the outcome."""
        return self._run(experiment, experiment.arguments)

    def _run(self, experiment: Experiment, arguments: list[str]) -> Outcome:
        program = self.path
        if experiment.strategy == "split":
            # All code on a split stack must be compiled for it, so there is another program, if the compiler could.
            program, arguments = self.path.with_name("culm-split-stack-probe"), []
            if not program.exists():
                reason = "this build of culm lacks the program that has split stacks"
                return Outcome(
                    experiment.name, experiment.strategy, dict(experiment.options), "unsupported", message=reason
                )
        command = [str(program), *arguments]
        shown = [program.name, *arguments]
        try:
            ended = run_child(command, seconds_max=experiment.seconds_max)
        except OSError as error:
            return Outcome(
                experiment.name,
                experiment.strategy,
                dict(experiment.options),
                "failed",
                message=f"could not be started: {error}",
                command=" ".join(shown),
            )
        return outcome_of(experiment, ended, shown)
