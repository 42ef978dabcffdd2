"""The common style of figures.

Colours are distinguishable with colour blindness (Okabe and Ito 2008), lines also differ in dashes and markers for
printing in grey, and letters are legible at half size. Each figure is a separate ``Figure``, drawn without pyplot, so
that nothing is shared between figures, threads or the caller's own plots.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from matplotlib import font_manager, rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from minilm.atomic import atomic

# Okabe and Ito's palette; each colour has one meaning.
TRAIN, VALIDATION, TEST = "#E69F00", "#0072B2", "#D55E00"  # orange, blue, vermilion
MARK = "#000000"
GREY = "#767676"
# For several runs in one figure: each has its own colour, dashes and marker.
SERIES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    {"color": "#000000", "linestyle": ":", "marker": "D"},
    {"color": "#CC79A7", "linestyle": (0, (6, 2)), "marker": "v"},
    {"color": "#E69F00", "linestyle": (0, (4, 1, 1, 1, 1, 1)), "marker": "P"},
    {"color": "#56B4E9", "linestyle": (0, (1, 1)), "marker": "X"},
)
DPI = 150
TEXTS_ON_AXIS, LEAST_SPAN = 8, 0.05  # the least span of a metric's axis: in texts, and in the metric
TITLE, TEXT, SMALL = 15, 13, 12  # points


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure with a title. width, height: in inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, compress=True)
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
    wrapped = textwrap.fill(title, int(8 * width))
    figure.suptitle(drawable(wrapped), fontsize=TITLE, fontweight="bold")
    return figure


def save(figure: Figure, path: Path, *, svg: bool = False) -> Path:
    """Save a PNG, and with ``svg`` also an SVG of the same name. Equal figures give equal bytes."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # show "$" in names literally
        others = [family for family in map(family_of, text.get_text()) if family]
        if others:
            text.set_fontfamily([*text.get_fontfamily(), *dict.fromkeys(others)])
    size: dict[str, Any] = {"dpi": DPI}
    leave_room = any(axes.get_aspect() != "auto" for axes in figure.axes)  # panels of fixed shape
    if leave_room or any(drawn.get_window_extent().width > figure.bbox.width for drawn in figure.legends):
        size |= {"bbox_inches": "tight", "pad_inches": 0.15}  # takes as long as the picture itself
    with atomic(Path(path)) as file:
        figure.savefig(file, format="png", **size)
    if svg:
        with atomic(Path(path).with_suffix(".svg")) as file, rc_context({"svg.hashsalt": "minilm"}):
            figure.savefig(file, format="svg", metadata={"Date": None}, **size)
    return Path(path)


def legend(figure: Figure, panels: Iterable[Axes]) -> None:
    """One legend for all panels, below the figure, as wide as the figure at most. Lines with the same label appear
    once."""
    entries: dict[str, Artist] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(str(label), handle)
    style: dict[str, Any] = {"fontsize": SMALL, "frameon": False, "handlelength": 3, "loc": "outside lower center"}
    for columns in range(min(len(entries), 3), 0, -1):
        drawn = figure.legend(list(entries.values()), list(entries), ncols=columns, **style)
        for text in drawn.get_texts():
            text.set_parse_math(False)  # as in ``save``
        if columns == 1 or drawn.get_window_extent().width <= figure.bbox.width:
            return
        drawn.remove()


def within_range(axes: Axes, metric: str) -> None:
    """Cut the y axis at the range of the metric, even if an interval reaches beyond it."""
    if metric != "loss":
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -1.02 if metric == "mcc" else -0.02), min(high, 1.02))


def widen(
    axes: Axes, metric: str, texts: int, *, which: Literal["x", "y"] = "y", difference: bool = False
) -> None:
    """Widen an axis so that a difference of a few texts does not look large: it spans at least 8 texts, and 0.05.

    texts: the number of texts of the metric; 0: unknown. difference: whether the axis shows differences of the metric.
    """
    if metric in ("loss", "perplexity"):
        return
    least = max(TEXTS_ON_AXIS / texts if texts else 0.0, LEAST_SPAN) * (2 if metric == "mcc" else 1)
    low, high = axes.get_ylim() if which == "y" else axes.get_xlim()
    if (missing := min(least, 1.04) - (high - low)) <= 0:
        return
    low, high = low - missing / 2, high + missing / 2
    floor, ceiling = (-1.02 if metric == "mcc" else -0.02), 1.02
    shift = 0.0 if difference else max(0.0, floor - low) - max(0.0, high - ceiling)
    set_limits = axes.set_ylim if which == "y" else axes.set_xlim
    set_limits(low + shift, high + shift)


def name_axes(axes: Axes, *, title: str, x: str, y: str) -> None:
    """Set a panel's title, and the labels of its axes with units."""
    axes.set_title(title, fontsize=TEXT)
    axes.set_xlabel(x, fontsize=TEXT)
    axes.set_ylabel(y, fontsize=TEXT)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)


@cache
def family_of(character: str) -> str | None:
    """The font that contains a character. Empty: the default font; None: no font contains it."""
    if character.isspace() or _has(font_manager.findfont(FontProperties()), character):
        return ""
    # The font "Last Resort" contains a box for every character.
    fonts = (entry for entry in fontManager.ttflist if not entry.name.startswith("Last Resort"))
    return next((entry.name for entry in fonts if _has(entry.fname, character)), None)


def _has(path: str, character: str) -> bool:
    """Whether a font can draw a character. Bitmap fonts, such as most emoji fonts, cannot be drawn."""
    try:
        font = font_manager.get_font(path)
        return bool(font.scalable and font.get_char_index(ord(character)))
    except (OSError, RuntimeError):  # it was removed, or is damaged
        return False


def drawable(text: str) -> str:
    """The text, with each character that no font contains replaced by its code point: U+597D."""
    parts = [f" U+{ord(c):04X} " if family_of(c) is None else c for c in text]
    return text if text == "".join(parts) else re.sub(" {2,}", " ", "".join(parts)).strip()


def short(name: str, length: int) -> str:
    """A name that can be drawn, of at most ``length`` characters: a longer name keeps its beginning and its end,
    because names of runs often differ only at the end."""
    name = drawable(name)
    name = f" {name}" if name.startswith("_") else name  # otherwise it is not shown in legends
    if len(name) <= length:
        return name
    head = (length - 1) * 3 // 5
    return f"{name[:head].rstrip()}…{name[head + 1 - length :].lstrip()}"


def ink(background: Sequence[float]) -> str:
    """Black or white: the one with the higher contrast on this colour (WCAG 2.1, relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def darker(colour: str) -> str:
    """A darker shade of the same colour."""
    red, green, blue = to_rgb(colour)
    return to_hex((0.6 * red, 0.6 * green, 0.6 * blue))
