"""The commands of `culm` and their options.

A command only returns a function that does what was asked for; execute() calls that function after click has returned.
So a program under `culm run` has none of click's frames above it, and click does not turn its exceptions into exit
codes.
"""

import json
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import click

from culm.cli.program import Program

Action = Callable[[], int]


def execute(arguments: Sequence[str]) -> int:
    """Parse the arguments and do what they ask for; returns the exit status."""
    try:
        action = culm.main(list(arguments), prog_name="culm", standalone_mode=False)
    except click.ClickException as problem:
        problem.show()
        return problem.exit_code
    except click.Abort:
        return 1
    # An int: click has already done all there was to do, such as printing the help.
    return action if isinstance(action, int) else action()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("culm"))
def culm() -> None:
    """Green threads on real C stacks that grow when needed and give memory back."""


@culm.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-m", "module", is_flag=True, help="PROGRAM is the name of a module, as with python -m.")
@click.argument("program", metavar="PROGRAM")
@click.argument("arguments", metavar="[ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
def run(module: bool, program: str, arguments: tuple[str, ...]) -> Action:
    """Run a Python program with its blocking calls cooperating and its threads as fibers.

    PROGRAM is a script, or a directory or zip file with a __main__.py, run as python would run it.
    """
    return Program(name=program, is_module=module, arguments=arguments).run


@culm.command()
@click.option("--clients", default=10_000, show_default=True, type=click.IntRange(min=1), help="Connections to hold.")
@click.option(
    "--seconds", default=6.0, show_default=True, type=click.FloatRange(min=0.1), help="Time to exchange messages."
)
@click.option(
    "--depth-mb", default=2.0, show_default=True, type=click.FloatRange(0.05, 8), help="Depth of the recursion."
)
@click.option("--threads/--no-threads", default=True, help="Do the same with OS threads, for comparison.")
def demo(clients: int, seconds: float, depth_mb: float, threads: bool) -> Action:
    """Serve ten thousand connections in plain blocking style on one OS thread."""
    from culm.cli.demo import Plan, run_demo

    plan = Plan(clients=clients, seconds=seconds, depth_bytes=int(depth_mb * 1024 * 1024), with_threads=threads)
    return lambda: run_demo(plan)


@culm.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def doctor(as_json: bool) -> Action:
    """Say what this machine offers, how many fibers would fit, and what to change."""
    from culm.cli.doctor import examine
    from culm.cli.doctor_report import print_report

    def report() -> int:
        diagnosis = examine()
        if as_json:
            json.dump(diagnosis.as_dict(), sys.stdout, indent=2)
            print()
        else:
            print_report(diagnosis)
        return 0

    return report


@culm.command()
@click.option("--full", "plan", flag_value="full", help="More sizes and larger counts; takes a few minutes.")
@click.option("--quick", "plan", flag_value="quick", hidden=True, help="Small counts, for tests.")
@click.option("--only", metavar="EXPERIMENT/STRATEGY", help="Run only these. Either part may stand alone.")
@click.option("--json", "json_file", metavar="FILE", help="Write everything as JSON; - is the standard output.")
@click.option(
    "--report", metavar="DIR", type=click.Path(path_type=Path), help="Write the report: index.html, lab.json."
)
@click.option(
    "--from",
    "recorded",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Show the JSON of an earlier run again, from this machine or another.",
)
def lab(
    plan: str | None, only: str | None, json_file: str | None, report: Path | None, recorded: Path | None
) -> Action:
    """Measure every way to allocate a stack on this machine, and say what the figures mean.

    Takes less than two minutes. Each experiment runs in a process of its own, because some are meant to crash.
    """
    from culm.lab import Request, missing_libraries, run_lab

    if missing := missing_libraries():
        raise click.ClickException(
            f"the lab needs {' and '.join(missing)}, which this installation left out.\n"
            "Install it with:  pip install 'culm[lab]'"
        )
    if recorded is not None and (plan is not None or only is not None):
        raise click.UsageError("--from shows an earlier run; --full and --only belong to a new one.")
    request = Request(plan or "standard", only, json_file, report, recorded)
    return lambda: run_lab(request)
