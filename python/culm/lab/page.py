"""The report as one HTML page that needs nothing else: no network, no script, its style and pictures inside."""

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from culm.cli.figures import bytes_text, count_text, duration_text
from culm.lab.answers import all_answers
from culm.lab.answers.summary import three_sentences
from culm.lab.findings import Findings
from culm.lab.publish import GENERATOR, JSON_NAME
from culm.lab.table import all_tables, answer_table, unavailable
from culm.lab.verdict import differences, inapplicable, unusual

__all__ = ["render"]

_NAME_LENGTH_MAX = 30


def render(findings: Findings) -> str:
    """The whole page."""
    environment = Environment(
        loader=PackageLoader("culm.lab"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = _prose
    return environment.get_template("report.html").render(
        generator=Markup(GENERATOR),
        json_name=JSON_NAME,
        marks={"not measured": "\u2013", "does not apply": "n/a"},
        findings=findings,
        machine=_machine(findings),
        sentences=three_sentences(findings),
        answer_table=answer_table(findings),
        answers=all_answers(findings),
        tables=all_tables(findings),
        took=duration_text(findings.seconds * 1e9),
        differences=differences(findings),
        missing=unavailable(findings),
        unusual=unusual(findings),
        inapplicable=inapplicable(findings),
    )


def _prose(text: str) -> Markup:
    """Plain text with `code` in backticks."""
    parts = re.split(r"`([^`]+)`", text)
    for index, part in enumerate(parts):
        parts[index] = _code(part) if index % 2 else str(escape(part.replace("'", "\u2019")))
    return Markup("".join(parts))


def _code(text: str) -> str:
    # A short name is never broken at the end of a line; a long message may be.
    kind = ' class="long"' if len(text) > _NAME_LENGTH_MAX else ""
    return f"<code{kind}>{escape(text)}</code>"


def _machine(findings: Findings) -> list[tuple[str, str]]:
    """What a reader must know about this machine to compare its figures with those of another."""
    machine, kernel = findings.machine, findings.kernel
    versions: Mapping[str, Any] = machine.get("versions") or {}
    limits: Mapping[str, Any] = machine.get("limits") or {}
    rows = [
        ("System", str(machine.get("system", "unknown"))),
        ("Processor", f"{machine.get('processor', 'unknown')}, {count_text(limits.get('processors'))} usable"),
        ("Memory", bytes_text(limits.get("memory_bytes")) if limits.get("memory_bytes") else "unknown"),
        ("Page size", bytes_text(kernel.get("page_bytes"))),
        ("Stack guards", _GUARDS.get(str(kernel.get("guard")), str(kernel.get("guard", "unknown")))),
        ("Guards in batches", _yes(kernel.get("vectored_guard"))),
        ("Discarding in batches", _yes(kernel.get("vectored_discard"))),
        ("PAGEMAP_SCAN", _yes(kernel.get("pagemap_scan"))),
        ("Mappings of a process", count_text(kernel.get("mappings_max"))),
        ("Overcommit mode", str(kernel.get("overcommit_mode", "unknown"))),
        ("userfaultfd", _plain(kernel.get("uffd"))),
        ("Transparent huge pages", _plain(kernel.get("thp"))),
        ("culm", f"{versions.get('culm', 'unknown')}, {versions.get('python', 'Python')}"),
    ]
    return [(name, value) for name, value in rows if value != "unknown"]


_GUARDS = {"kernel marker": "MADV_GUARD_INSTALL, no mapping each", "mprotect": "mprotect, two mappings each"}


def _yes(value: object) -> str:
    return "unknown" if value is None else "yes" if value else "no"


def _plain(value: object) -> str:
    return _yes(value) if value is None or isinstance(value, bool) else str(value)
