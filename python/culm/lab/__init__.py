"""`culm lab`: every way to allocate a green thread's stack, measured on this machine, and what the figures mean.

The measuring is done by a program in C++ (`lab/` in the sources), one child process for each experiment; this package
plans the experiments, judges their outcomes, and writes tables and a page. Needs the extra culm[lab].
"""

import json
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from culm.lab.findings import Findings

__all__ = ["Request", "missing_libraries", "run_lab"]

_NEEDED = ("click", "rich", "jinja2", "matplotlib")
_FAILED, _MISUSED = 1, 2


def missing_libraries() -> list[str]:
    """What the extra culm[lab] brings and this installation does not have."""
    return [name for name in _NEEDED if find_spec(name) is None]


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    plan: str = "standard"
    only: str | None = None
    json_file: str | None = None  # "-" is the standard output
    report: Path | None = None
    recorded: Path | None = None  # the JSON of an earlier run, instead of a run

    @property
    def is_quiet(self) -> bool:
        """Whether the standard output belongs to the JSON."""
        return self.json_file == "-"


def run_lab(request: Request) -> int:
    """Run the lab, or read an earlier run, and write what was asked for; returns the exit status."""
    # The libraries of the extra are imported only now, when it is known that they are there.
    from culm.lab.findings import FormatError
    from culm.lab.probe import ProbeError
    from culm.lab.session import Interrupted, interruptible

    try:
        with interruptible():
            _check_targets(request)
            findings = _recorded(request.recorded) if request.recorded else _measured(request)
            _write(request, findings)
    except Interrupted as interrupted:
        print("\nculm lab: interrupted. Nothing was written, and nothing was changed.", file=sys.stderr)
        return 128 + interrupted.number
    except (ProbeError, FormatError, OSError) as error:
        print(f"culm lab: {error}", file=sys.stderr)
        return _FAILED
    except ValueError as error:
        print(f"culm lab: {error}", file=sys.stderr)
        return _MISUSED
    return 0


def _check_targets(request: Request) -> None:
    """Raise OSError now, before two minutes of measuring, if a result could not be written later."""
    from culm.lab.publish import GENERATOR, PAGE_NAME

    if request.json_file is not None and not request.is_quiet:
        target = Path(request.json_file)
        if target.is_dir():
            raise _UnwritableError(f"--json {target}: this is a directory; name a file in it")
        if not target.parent.is_dir():
            raise _UnwritableError(f"--json {target}: there is no directory {target.parent}")
        _check_folder("--json", target.parent)
    if request.report is not None:
        _check_folder("--report", request.report)
        page = request.report / PAGE_NAME
        if page.exists() and GENERATOR not in page.read_text(errors="replace"):
            raise _UnwritableError(
                f"--report {request.report}: its {PAGE_NAME} is no report of the lab, so it is not overwritten; "
                "choose another directory"
            )


class _UnwritableError(OSError):
    """What was asked for cannot be written where it was asked for; says why."""


def _check_folder(option: str, folder: Path) -> None:
    from culm.lab.publish import check_writable

    try:
        check_writable(folder)
    except OSError as error:
        raise _UnwritableError(f"{option} {folder}: nothing can be written there: {error.strerror or error}") from error


def _recorded(path: Path) -> "Findings":
    from culm.lab.findings import Findings, FormatError

    try:
        return Findings.read(json.loads(path.read_bytes()))
    except FormatError as error:
        raise FormatError(f"--from {path}: {error}") from error
    except ValueError as error:
        raise FormatError(
            f"--from {path}: it is no JSON; name a file that `culm lab --json` has written: {error}"
        ) from error


def _measured(request: Request) -> "Findings":
    from rich.console import Console

    from culm.cli.machine import available_memory_bytes
    from culm.lab.findings import Strategy
    from culm.lab.plan import PLANS, experiments_of, fitted, select_only
    from culm.lab.probe import Probe
    from culm.lab.session import run_session

    plan, probe = fitted(PLANS[request.plan], available_memory_bytes()), Probe.installed()
    knowledge = probe.know()
    described = [Strategy.read(each) for each in knowledge["strategies"]]
    strategies = [strategy for strategy in described if strategy.available]
    switches = [str(each["id"]) for each in knowledge.get("switches") or [] if each.get("available", True)]
    experiments = experiments_of(plan, strategies, switches)
    if request.only is not None:
        experiments = select_only(experiments, request.only)
    return run_session(
        probe, knowledge, plan, experiments, with_fiber=request.only is None, console=Console(stderr=True)
    )


def _write(request: Request, findings: "Findings") -> None:
    from rich.console import Console

    from culm.lab.publish import JSON_NAME, PAGE_NAME, publish, publish_folder
    from culm.lab.verdict import verdicts

    document = json.dumps({**findings.as_dict(), "verdicts": verdicts(findings)}, indent=1) + "\n"
    if request.is_quiet:
        sys.stdout.write(document)
    else:
        from culm.lab.terminal import print_findings

        print_findings(findings, Console())
    if request.json_file is not None and not request.is_quiet:
        publish(Path(request.json_file), document.encode())
    if request.report is not None:
        # Imported only when it is needed: it brings matplotlib, which takes a second to import.
        from culm.lab.page import render

        page = render(findings)
        publish_folder(request.report, {JSON_NAME: document.encode(), PAGE_NAME: page.encode()})
        print(f"\nThe report is {request.report / PAGE_NAME}", file=sys.stderr if request.is_quiet else sys.stdout)
