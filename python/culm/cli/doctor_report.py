"""Prints what `culm doctor` found, as tables."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from culm.cli.doctor import Diagnosis
from culm.cli.figures import bytes_text, count_text

__all__ = ["print_report"]


def print_report(diagnosis: Diagnosis, console: Console | None = None) -> None:
    """Print the whole diagnosis."""
    console = console or Console()
    console.print(_machine_table(diagnosis))
    console.print(_capacity_table(diagnosis))
    console.print(
        "[dim]Idle fiber: an estimate of one page of stack, its page tables and the fiber's record together.[/]"
    )
    if not diagnosis.advice:
        console.print("\nNothing to change.")
        return
    console.print("\n[bold]What to change[/]")
    for advice in diagnosis.advice:
        console.print(f"- {escape(advice)}", highlight=False)


def _machine_table(diagnosis: Diagnosis) -> Table:
    versions, kernel, limits = diagnosis.versions, diagnosis.kernel, diagnosis.limits
    table = Table(title="This machine", title_justify="left", show_header=False)
    table.add_row("culm", f"{versions['culm']}, context switch {versions['context_switch']}")
    table.add_row("Interpreter", f"{versions['python']}: {versions['interpreter_support']}")
    table.add_row("System", f"Linux {kernel['release']} on {versions['machine']}, {versions['libc']}")
    table.add_row("Stack guards", _guard_text(kernel["guard"]))
    table.add_row("Vectored guard / discard", f"{_yes(kernel['vectored_guard'])} / {_yes(kernel['vectored_discard'])}")
    table.add_row("PAGEMAP_SCAN", _yes(kernel["pagemap_scan"]))
    table.add_row("Page size", bytes_text(kernel["page_bytes"]))
    mappings = limits["mappings_in_use"]
    in_use = "unknown" if mappings is None else count_text(mappings)
    table.add_row("Mappings", f"{in_use} in use of {count_text(kernel['mappings_max'])}")
    table.add_row("Overcommit mode", _overcommit_text(kernel["overcommit_mode"]))
    huge_pages = kernel["transparent_huge_pages"] or "not available"
    table.add_row("Transparent huge pages", f"{huge_pages} (stacks are exempted in any case)")
    table.add_row(
        "Open files", f"{count_text(limits['descriptors'])}, hard limit {count_text(limits['descriptors_hard'])}"
    )
    available, total = bytes_text(limits["memory_available_bytes"]), bytes_text(limits["memory_bytes"])
    table.add_row("Memory", f"{available} available of {total}")
    table.add_row("Memory limit of the cgroup", bytes_text(limits["cgroup_memory_bytes"]))
    table.add_row("Memory pressure", _pressure_text(kernel["memory_pressure"]))
    table.add_row("Address space limit", bytes_text(limits["address_space_bytes"]))
    table.add_row("Processors", count_text(limits["processors"]))
    return table


def _capacity_table(diagnosis: Diagnosis) -> Table:
    table = Table(title="Parked fibers that would fit", title_justify="left")
    table.add_column("Stack class")
    for heading in ("Limit", "Idle fiber", "Fibers"):
        table.add_column(heading, justify="right")
    table.add_column("Bounded by")
    for capacity in diagnosis.capacities:
        table.add_row(
            capacity.stack_class,
            bytes_text(capacity.limit_bytes),
            bytes_text(capacity.idle_bytes),
            count_text(capacity.fibers),
            capacity.bound,
        )
    return table


def _guard_text(kind: str) -> str:
    return {
        "madvise": "MADV_GUARD_INSTALL: no mapping per stack",
        "mprotect": "mprotect: two mappings per stack",
    }.get(kind, kind)


def _pressure_text(sources: dict[str, str]) -> str:
    found = [path for path in (sources["group_directory"], sources["stall_file"]) if path]
    return (
        "read from " + " and ".join(map(escape, found))
        if found
        else "cannot be seen: no control group, no /proc/pressure"
    )


def _overcommit_text(mode: int) -> str:
    meaning = {0: "heuristic", 1: "always", 2: "strict: reservations are charged"}.get(mode, "unknown")
    return f"{mode} ({meaning})"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
