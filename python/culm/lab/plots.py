"""The plots of the report, one function each, which returns None if nothing was measured for its plot.

culm's own stacks have the accent colour everywhere, all others the same quiet one: the question is always how they
compare.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from culm.cli.figures import bytes_text, count_text, duration_text
from culm.lab.canvas import ACCENT, BAD, FAINT, INK, PALETTE, QUIET, Plot, Shape, plain_axes, plotted
from culm.lab.findings import Findings, number_in
from culm.lab.table import stride_text

__all__ = [
    "ceiling_plot",
    "create_plot",
    "fiber_plot",
    "fork_plot",
    "growth_plot",
    "idle_plot",
    "shrink_plot",
    "switch_plot",
]

OWN = "arena"
_BAR_INCHES = 0.27
_LINEAR_RANGE_MAX = 12


def growth_plot(findings: Findings) -> Plot | None:
    """What one more page costs, by strategy, with a plain mmap for comparison."""
    ns = _staying(findings, findings.numbers("growth", "ns_per_page"))
    plain = sorted(findings.numbers("growth", "plain_mmap_ns_per_page").values())
    reference = plain[len(plain) // 2] if plain else None

    def draw(shape: Shape) -> Figure:
        return _bars(shape, findings, ns, duration_text, reference=("plain mmap", reference) if reference else None)

    if not ns:
        return None
    return plotted("growth", f"Time to grow a stack by one page, by strategy{_scale(ns)}.", draw)


def ceiling_plot(findings: Findings) -> Plot | None:
    """How many stacks there can be."""
    stacks = findings.numbers("ceiling", "stacks")
    ended = {outcome.strategy for outcome in findings.named("ceiling") if outcome.result.get("stopped_by") == "error"}

    def draw(shape: Shape) -> Figure:
        return _bars(shape, findings, stacks, count_text, bad=ended)

    if not stacks:
        return None
    tried = max(int(outcome.options.get("count", 0)) for outcome in findings.named("ceiling"))
    ending = "The red ones ended with an error" if ended else "None ended with an error"
    caption = f"Stacks that could be made, of {count_text(tried)} tried{_scale(stacks)}. {ending}."
    return plotted("ceiling", caption, draw)


def create_plot(findings: Findings) -> Plot | None:
    """What it costs to make a new stack and to touch it for the first time, added up."""
    create = findings.numbers("lifecycle", "create_ns")
    touch = findings.numbers("lifecycle", "first_touch_ns")
    both = _staying(findings, {strategy: ns + touch.get(strategy, 0) for strategy, ns in create.items()})

    def draw(shape: Shape) -> Figure:
        return _bars(shape, findings, both, duration_text)

    if not both:
        return None
    return plotted("create", f"Time to make a stack and touch its first page{_scale(both)}.", draw)


def fork_plot(findings: Findings) -> Plot | None:
    """What fork costs for each stack that is alive."""
    ns = findings.numbers("fork", "fork_ns_per_stack")

    def draw(shape: Shape) -> Figure:
        return _bars(shape, findings, ns, duration_text)

    return plotted("fork", f"Time of fork() for each stack alive{_scale(ns)}.", draw) if ns else None


def idle_plot(findings: Findings) -> Plot | None:
    """Memory and page tables of an idle stack, by its limit."""
    parts = []
    for outcome in sorted(findings.named("idle", OWN), key=lambda outcome: int(outcome.options["limit"])):
        resident = number_in(outcome.result, "rss_bytes_per_stack")
        tables = number_in(outcome.result, "page_table_bytes_per_stack")
        if resident is not None:
            parts.append((bytes_text(int(outcome.options["limit"])), resident, tables or 0.0))

    def draw(shape: Shape) -> Figure:
        figure, axes = shape.figure(2.6)
        labels, resident, tables = zip(*parts, strict=True)
        axes.bar(labels, resident, color=ACCENT, width=0.55, label="memory")
        bars = axes.bar(labels, tables, bottom=resident, color=PALETTE[1], width=0.55, label="page tables")
        totals = [bytes_text(one + other) for one, other in zip(resident, tables, strict=True)]
        axes.bar_label(bars, totals, padding=3, color=INK)
        axes.set_xlabel("limit of the stack")
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 4, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value)))
        _byte_ticks(axes, max(one + other for one, other in zip(resident, tables, strict=True)))
        axes.margins(y=0.15)
        _legend_above(axes, 2)
        plain_axes(axes, grid="y")
        return figure

    return (
        plotted("idle", "Bytes in memory for one idle stack of which 1 KB is used, by its limit.", draw)
        if parts
        else None
    )


def shrink_plot(findings: Findings) -> Plot | None:
    """Cost for each stack, by how many are given back with one call."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for outcome in findings.named("shrink"):
        points = [
            (int(batch["ranges"]), ns)
            for batch in outcome.result.get("batches") or []
            if (ns := number_in(batch, "ns_per_stack")) is not None
        ]
        if points:
            lines[outcome.strategy] = sorted(points)
    if OWN in lines:
        lines = {OWN: lines[OWN]}
    single = findings.number("shrink", OWN, "single_ns_per_stack")

    def draw(shape: Shape) -> Figure:
        figure, axes = shape.figure(2.7)
        for color, (strategy, points) in zip(_line_colors(lines), lines.items(), strict=False):
            counts, ns = zip(*points, strict=True)
            axes.plot(counts, ns, "o-", color=color, markersize=4, label=strategy)
        if single is not None:
            axes.axhline(single, color=FAINT, linestyle=(0, (4, 3)), linewidth=1.2, label="one call for each")
        axes.set_xscale("log", base=2)
        axes.set_xlabel("stacks in one call")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_text(value)))
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: duration_text(value)))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        _legend_above(axes, 2)
        plain_axes(axes, grid="y")
        return figure

    return (
        plotted("shrink", "Time to give one stack's pages back, by how many stacks one call serves.", draw)
        if lines
        else None
    )


def switch_plot(findings: Findings) -> Plot | None:
    """Cost of a switch by the number of live stacks, for each stride."""
    lines = switch_lines(findings)
    curves = {key: points for key, points in lines.items() if len(points) > 1}

    def draw(shape: Shape) -> Figure:
        figure, axes = shape.figure(3.0)
        for color, ((switch, stride), points) in zip((ACCENT, *PALETTE[1:]), curves.items(), strict=False):
            counts, ns = zip(*points, strict=True)
            label = f"{stride_text(stride)} apart" if switch == "assembly" else switch
            axes.plot(counts, ns, "o-", color=color, markersize=4, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("live stacks")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_text(value)))
        _duration_ticks(axes)
        _legend_above(axes, 3 if shape.is_wide else 1)
        plain_axes(axes, grid="y")
        return figure

    return plotted("switch", "Time of one switch, round robin, by the number of live stacks.", draw) if curves else None


def switch_lines(findings: Findings) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """(implementation, stride) -> (live stacks, ns), by count."""
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for outcome in findings.named("switch"):
        ns = number_in(outcome.result, "ns_per_switch")
        if ns is not None:
            key = (str(outcome.options["switch"]), str(outcome.options["stride"]))
            lines.setdefault(key, []).append((int(outcome.options["count"]), ns))
    return {key: sorted(points) for key, points in lines.items()}


def fiber_plot(findings: Findings) -> Plot | None:
    """The page map of a real fiber: time to the right, depth downwards."""
    samples: Sequence[dict[str, Any]] = findings.fiber.get("samples") or []
    page = int(findings.fiber.get("page_bytes") or findings.page_bytes)

    def draw(shape: Shape) -> Figure:
        figure, axes = shape.figure(3.6)
        steps = range(1, len(samples) + 1)
        for step, sample in zip(steps, samples, strict=True):
            for first, count in sample["resident_pages"]:
                axes.bar(step, count * page, bottom=first * page, width=0.86, color=ACCENT, alpha=0.55, linewidth=0)
        used = [sample["used_bytes"] for sample in samples]
        axes.step(steps, used, where="mid", color=INK, linewidth=1.6, label="stack pointer")
        deepest = max(max(used), *(sample["resident_bytes"] for sample in samples))
        axes.set_ylim(deepest * 1.1, 0)
        axes.set_xlim(0.4, len(samples) + 0.6)
        axes.set_xlabel("sample")
        axes.set_ylabel("depth below the base")
        _byte_ticks(axes, deepest)
        axes.xaxis.set_major_locator(MaxNLocator(8 if shape.is_wide else 5, integer=True))
        for step, sample in zip(steps, samples, strict=True):
            if sample["doing"] == "trimmed":
                axes.axvline(step - 0.5, color=BAD, linewidth=1.1, linestyle=(0, (3, 3)))
        axes.plot([], [], color=BAD, linewidth=1.1, linestyle=(0, (3, 3)), label="culm.trim()")
        axes.bar([1], [0], color=ACCENT, alpha=0.55, label="page in memory")
        _legend_above(axes, 3 if shape.is_wide else 2)
        plain_axes(axes, grid="y")
        return figure

    caption = "The stack of one fiber, sampled while it is parked: pages in memory, and where its stack pointer is."
    return plotted("fiber", caption, draw) if samples else None


def _is_wide_range(values: Collection[float]) -> bool:
    """Whether bars of these lengths are only comparable on a logarithmic scale."""
    return max(values) > _LINEAR_RANGE_MAX * min(values)


def _scale(values: dict[str, float]) -> str:
    return " (logarithmic scale)" if _is_wide_range(values.values()) else ""


def _staying(findings: Findings, values: dict[str, float]) -> dict[str, float]:
    """Leave out strategies that copy stacks: all theirs run in one place, which is new only for the first."""
    moves = {strategy.id for strategy in findings.strategies if strategy.declares.get("pointers_stay_valid") is False}
    return {strategy: value for strategy, value in values.items() if strategy not in moves}


def _bars(
    shape: Shape,
    findings: Findings,
    values: dict[str, float],
    written: Callable[[float], str],
    reference: tuple[str, float] | None = None,
    bad: Collection[str] = (),
) -> Figure:
    """Horizontal bars on a logarithmic scale, in the order of the strategies, each with its figure."""
    bars = [
        (strategy.id, values[strategy.id], BAD if strategy.id in bad else ACCENT if strategy.id == OWN else QUIET)
        for strategy in findings.strategies
        if values.get(strategy.id, 0) > 0
    ]
    if reference is not None:
        bars.append((*reference, INK))
    bars.reverse()  # the first at the upper end
    names, shown, colors = zip(*bars, strict=True)
    figure, axes = shape.figure(0.2 + _BAR_INCHES * len(bars))
    drawn = axes.barh(names, shown, color=colors, height=0.66)
    axes.bar_label(drawn, [written(value) for value in shown], padding=4, color=INK)
    if _is_wide_range(shown):
        axes.set_xscale("log")
        # A logarithmic scale has no zero, so it begins well below the smallest value. The figures need room at the
        # other end.
        span = max(shown) / min(shown)
        axes.set_xlim(min(shown) / max(2.0, span**0.25), max(shown) * (span ** (0.13 if shape.is_wide else 0.35)) * 1.3)
    else:
        axes.set_xlim(0, max(shown) * (1.12 if shape.is_wide else 1.3))
    axes.xaxis.set_major_locator(NullLocator())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(-0.6, len(bars) - 0.4)
    plain_axes(axes, grid="x")
    return figure


def _line_colors(lines: dict[str, Any]) -> list[str]:
    others = iter(PALETTE[1:] * 3)
    return [ACCENT if each == OWN else next(others) for each in lines]


def _legend_above(axes: Axes, columns: int) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=columns,
        borderaxespad=0.2,
        handlelength=1.6,
        columnspacing=1.2,
    )


def _byte_ticks(axes: Axes, highest: float) -> None:
    """Ticks at round numbers of binary units."""
    step = 1024.0
    while highest / step > 6:
        step *= 2
    axes.yaxis.set_ticks([step * index for index in range(int(highest / step) + 1)])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value)))


def _duration_ticks(axes: Axes) -> None:
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: duration_text(value)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
