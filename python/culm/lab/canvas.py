"""Turns a matplotlib figure into SVG that belongs to the page: its fonts, its colours in light and dark, at two widths.

matplotlib draws with colours that stand for CSS variables and are replaced by those afterwards; text stays text. A plot
is drawn twice, wide for a desk and narrow for a phone, because one that is only scaled down cannot be read.
Invariant: no two plots of a page share an id.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["ACCENT", "BAD", "FAINT", "INK", "PALETTE", "QUIET", "Plot", "Shape", "plain_axes", "plotted"]

# The colours that stand for the variables of the style sheet. No plot uses them for anything else.
_VARIABLES = {
    "#000101": "--ink",
    "#000102": "--faint",
    "#000103": "--line",
    "#000104": "--accent",
    "#000105": "--quiet",
    "#000106": "--bad",
    "#000107": "--hue-1",
    "#000108": "--hue-2",
    "#000109": "--hue-3",
    "#00010a": "--hue-4",
    "#00010b": "--hue-5",
    "#00010c": "--hue-6",
}
INK, FAINT, LINE, ACCENT, QUIET, BAD, *PALETTE = _VARIABLES

_POINTS_PER_INCH = 72
_FONT_POINTS = 9.5


@dataclass(frozen=True)
class Shape:
    """Where a plot is to be shown."""

    is_wide: bool

    @property
    def width_inches(self) -> float:
        """As wide as the text."""
        return 7.6 if self.is_wide else 3.7

    def figure(self, height_inches: float) -> tuple[Figure, Axes]:
        """An empty figure and its axes."""
        figure = Figure(figsize=(self.width_inches, height_inches), layout="constrained")
        FigureCanvasSVG(figure)
        return figure, figure.add_subplot()


@dataclass(frozen=True)
class Plot:
    """Both drawings, and what they show in words for those who cannot see them."""

    wide: Markup
    narrow: Markup
    caption: str


_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": _FONT_POINTS,
    "text.color": INK,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": LINE,
    "axes.titlesize": _FONT_POINTS,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": _FONT_POINTS,
    "lines.linewidth": 1.8,
    "axes.unicode_minus": False,
}


def plotted(identifier: str, caption: str, draw: Callable[[Shape], Figure]) -> Plot:
    """Draw it at both widths."""
    with matplotlib.rc_context(_STYLE):
        wide, narrow = (
            _svg(f"{identifier}-{'wide' if shape.is_wide else 'narrow'}", caption, draw(shape))
            for shape in (Shape(True), Shape(False))
        )
    return Plot(wide, narrow, caption)


def plain_axes(axes: Axes, *, grid: str) -> None:
    """Only what helps reading: grid lines along one direction, no ticks, no frame."""
    axes.grid(visible=True, axis=grid)  # type: ignore[arg-type]
    axes.tick_params(length=0, which="both")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _svg(identifier: str, caption: str, figure: Figure) -> Markup:
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": identifier}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # The drawing of one point of a line is kept under an id and used by reference.
    text = re.sub(r'\bid="', f'id="{identifier}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{identifier}-", text)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" {_label(caption)}>', text, count=1
    )
    return Markup(text)


def _label(caption: str) -> str:
    # The result goes into a replacement template of re.sub(), where a backslash would begin a group reference.
    return f'aria-label="{escape(caption)}"'.replace("\\", "")
