"""Lays the tables out for a terminal: words and colour, so that they read the same without colour.

A table that is wider than the terminal is printed as a list for each strategy: squeezed columns are worse than a long
page.
"""

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from culm.cli.figures import count_text, duration_text
from culm.lab.findings import Findings
from culm.lab.table import Table, all_tables, unavailable
from culm.lab.verdict import Tone, Verdict, differences, unusual

__all__ = ["print_findings"]

_STYLES: dict[Tone, str] = {"good": "green", "bad": "bold red", "fair": "yellow", "none": ""}
_MARKS = {"not measured": "-", "does not apply": "n/a"}
_WITHOUT_TABLE = ("growsdown", "split")
# If one of these experiments is missing, most of the questions cannot be answered.
_DECISIVE = {"overflow-small", "kernel-write", "growth", "ceiling", "idle", "shrink", "fork", "switch"}
_COLUMN_GAP = 2


def print_findings(findings: Findings, console: Console) -> None:
    """Print every table, what is missing on this machine, and what differs from what was expected."""
    machine = findings.machine
    console.print(
        f"[bold]The lab[/] on {escape(str(machine.get('system', 'this machine')))}, "
        f"{escape(str(machine.get('processor', '')))}: {findings.plan} run, "
        f"{count_text(len(findings.outcomes))} experiment{'s' if len(findings.outcomes) != 1 else ''} "
        f"in {duration_text(findings.seconds * 1e9)}",
        highlight=False,
    )
    console.print()
    names = RichTable(show_edge=False, pad_edge=False, show_header=False, box=None)
    for strategy in findings.strategies:
        names.add_row(
            Text(strategy.id, style="bold"), strategy.name + ("" if strategy.available else ": not available here")
        )
    console.print(names)
    for table in all_tables(findings):
        console.print()
        _print_table(table, console)
        if table.id == "safety":
            console.print("[dim]* as the strategy declares it; not tried here.[/]", highlight=False)
    _print_other_figures(findings, console)
    _print_remarks(findings, console)
    _print_answers(findings, console)


def _print_other_figures(findings: Findings, console: Console) -> None:
    """Print the results of the experiments that are about one strategy alone and so have no table."""
    shown = [outcome for outcome in findings.outcomes if outcome.experiment in _WITHOUT_TABLE and outcome.result]
    if shown:
        console.print("\n[bold]Other figures[/]")
    for outcome in shown:
        figures = ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in outcome.result.items())
        console.print(f"- {escape(outcome.experiment)}: {escape(figures)}", highlight=False)


def _plain(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _print_answers(findings: Findings, console: Console) -> None:
    """Print the questions of the report with their short answers, if all decisive experiments were run."""
    if not {outcome.experiment for outcome in findings.outcomes} >= _DECISIVE:
        return
    # Imported only when needed: these bring matplotlib, which takes a second to import.
    from culm.lab.answers import all_answers
    from culm.lab.answers.summary import three_sentences

    console.print("\n[bold]Answers[/]")
    for answer in all_answers(findings):
        console.print(Text(answer.question, style="bold"))
        console.print(Padding(Text(answer.short.replace("`", "")), (0, 0, 0, 2)))
    console.print("\n[bold]All in all[/]")
    for sentence in three_sentences(findings):
        console.print(Text(sentence.replace("`", "")))


def _print_table(table: Table, console: Console) -> None:
    console.print(f"[bold]{escape(table.title)}[/]", highlight=False)
    console.print(f"[dim]{escape(table.about)}[/]", highlight=False)
    gaps = _COLUMN_GAP * (len(table.columns) - 1)
    for is_broken in (False, True):
        widths = [_width(table, index, is_broken) for index in range(len(table.columns))]
        if sum(widths) + gaps <= console.width:
            break
    else:
        _print_as_lists(table, console)
        return
    laid_out = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _COLUMN_GAP - 1, 0, 0))
    for column, width in zip(table.columns, widths, strict=True):
        laid_out.add_column(column.heading, justify="right" if column.is_figure else "left", width=width)
    for row in table.rows:
        laid_out.add_row(*map(_cell, row))
    console.print(laid_out)


def _width(table: Table, index: int, is_broken: bool) -> int:
    """How wide a column must be. Headings may be broken between words, figures and verdicts never."""
    heading = table.columns[index].heading
    parts = heading.split() if is_broken else [heading]
    return max(cell_len(text) for text in [*parts, *(_cell(row[index]).plain for row in table.rows)])


def _print_as_lists(table: Table, console: Console) -> None:
    width = max(len(column.heading) for column in table.columns)
    for name, *cells in table.rows:
        console.print(Text(name.text, style="bold"))
        for column, cell in zip(table.columns[1:], cells, strict=True):
            if cell.text != "not measured":
                console.print(Padding(Text.assemble(f"{column.heading:<{width}}  ", _cell(cell)), (0, 0, 0, 2)))


def _cell(verdict: Verdict) -> Text:
    return Text(_MARKS.get(verdict.text, verdict.text), style=_STYLES[verdict.tone])


def _print_remarks(findings: Findings, console: Console) -> None:
    remarks = [
        f"{strategy.id} is not available here: {strategy.why_not or 'no reason given'}"
        for strategy in unavailable(findings)
    ]
    remarks += [
        f"{each.strategy}, {each.trait}: {each.measured} here, although it declares: {each.declared}"
        for each in differences(findings)
    ]
    remarks += unusual(findings)
    if findings.fiber.get("failure"):
        remarks.append(f"There is no picture of a fiber's stack: {findings.fiber['failure']}")
    if remarks:
        console.print("\n[bold]Remarks[/]")
        for remark in remarks:
            console.print(f"- {escape(remark)}", highlight=False)
