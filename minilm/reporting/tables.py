"""Tables for the terminal and for Markdown, and the formats of numbers and metrics in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from minilm.errors import shortened
from minilm.measures import MULTI_LABEL_METRICS
from minilm.terminal import printable

PROPER_NAMES = {"mcc": "MCC", "jaccard": "Jaccard", "roc_auc": "ROC AUC"}
ABSENT = "-"
CLIPPED = 160  # the most characters of a text in a table


def metric_name(key: str) -> str:
    """The name of a metric in a sentence or a table: ``macro_f1`` is "macro F1"."""
    return PROPER_NAMES.get(key, key.replace("_", " ").replace("f1", "F1"))


def titled(key: str) -> str:
    """The name of a metric as a title: "Macro F1"."""
    name = metric_name(key)
    return name[0].upper() + name[1:]


def metric_columns(multi_label: bool) -> tuple[str, ...]:
    """The metrics that get a column, with one label per text or with several."""
    return MULTI_LABEL_METRICS if multi_label else ("loss", "accuracy", "macro_f1", "mcc")


def joined_labels(label: str | list[str]) -> str:
    """One label, or several with commas between them; "none" if there is none."""
    return label if isinstance(label, str) else ", ".join(label) or "none"


def clipped(text: str) -> str:
    """The beginning of a text."""
    return text if len(text) <= CLIPPED else text[: CLIPPED - 1] + "…"


def p_value(p: float) -> str:
    """``p = 0.012``."""
    return f"p = {p:.3f}" if p >= 1e-3 else "p below 0.001"


def decimal(value: float | None) -> str:
    """A metric with four decimals."""
    return ABSENT if value is None else f"{value:.4f}"


def duration(seconds: float | None) -> str:
    """``42 ms``, ``0.42 s``, ``12.3 s``, ``4 min 12 s``, ``1 h 05 min``."""
    if seconds is None:
        return ABSENT
    if seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def count(number: float | None) -> str:
    """A whole number with separated thousands: ``5,728,003``."""
    return ABSENT if number is None else f"{number:,.0f}"


def short_count(number: float | None) -> str:
    """A large number with three digits: ``5.73M``, ``141M``, ``1.55B``."""
    if number is None:
        return ABSENT
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            digits = f"{number / size:#.3g}".rstrip(".")
            return digits + letter
    return f"{number:.0f}"


def join_words(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


NARROWEST = 12  # the least width of a column of names after shortening


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1, width: int = 0) -> str:
    """A table with two spaces between columns; the first ``left`` columns are aligned left, the others right.

    A header may have several lines; headers are aligned at the bottom. ``width``: the most characters of a line (0: no
    limit); cells of the first columns are shortened if necessary.
    """
    body = [list(map(printable, row)) for row in rows]
    heads = [printable(cell, keep="\n").split("\n") for cell in header]
    height = max(len(lines) for lines in heads)
    top = [[([""] * (height - len(lines)) + lines)[i] for lines in heads] for i in range(height)]
    widths = [max(len(row[i]) for row in top + body) for i in range(len(header))]
    while left and sum(widths) + 2 * (len(widths) - 1) > width > 0:
        widest = max(range(left), key=lambda i: widths[i])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    for row in body:
        row[:left] = [shortened(row[i], widths[i]) if len(row[i]) > widths[i] else row[i] for i in range(left)]

    def line(cells: Sequence[str]) -> str:
        aligned = (
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(aligned).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([*map(line, top), rule, *map(line, body)])


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table in Markdown. Cells must be Markdown: see ``escape``."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("\n", " ") for cell in cells) + " |"

    rule = "|" + "|".join("---" if i < left else "---:" for i in range(len(header))) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])


def escape(text: str, *, strip: bool = True) -> str:
    """Escape a text as one line of Markdown that shows its characters. Runs of white space become one space."""
    line = printable(re.sub(r"\s+", " ", text))
    # An underscore inside a word is not emphasis, and is common in names.
    return re.sub(r"([\\`*\[\]<>|~$#&]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", line.strip() if strip else line)
