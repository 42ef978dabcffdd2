"""The figures of a run: learning curves, confusion matrices, text lengths."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from minilm.evaluation.metrics import Metrics
from minilm.reporting.label_plots import confused_pairs
from minilm.reporting.results import Evaluation
from minilm.reporting.style import (
    MARK,
    SMALL,
    TEST,
    TEXT,
    TRAIN,
    VALIDATION,
    darker,
    ink,
    legend,
    name_axes,
    new_figure,
    save,
    short,
    within_range,
)
from minilm.reporting.tables import titled

READABLE = 40  # the most labels whose names fit beside a matrix


def learning_curves(history: Sequence[Evaluation], best_step: int, metric: str, path: Path) -> Path:
    """The loss and ``metric`` of training and validation over the epochs; the evaluation at ``best_step`` is marked.

    Args:
        history: the evaluations, in order.
        best_step: the step whose weights were kept.
        metric: the metric that chose these weights; if it is the loss, the right panel shows macro F1.
        path: the PNG to write.
    """
    if not history:
        raise ValueError("learning_curves needs at least one evaluation")
    epochs = [entry.epoch for entry in history]
    unit = "epoch" if len(set(epochs)) == len(epochs) else "step"  # several evaluations an epoch: count steps
    x: list[float] = epochs if unit == "epoch" else [entry.step for entry in history]
    marked = next((i for i, entry in enumerate(history) if entry.step == best_step), None)

    figure = new_figure(10.5, 4.4, "Learning curves")
    panels = figure.subplots(1, 2)
    for axes, key in zip(panels, ("loss", "macro_f1" if metric == "loss" else metric), strict=True):
        train, note = _training(history, key)
        valid = _values([entry.validation for entry in history], key)
        _curve(axes, x, train, TRAIN, f"training{note}", dashed=True)
        _curve(axes, x, valid, VALIDATION, "validation")
        name = title = titled(key)
        if marked is not None and np.isfinite(valid[marked]):
            _mark_best(axes, x[marked], float(valid[marked]))
            title = f"{name}: {valid[marked]:.4f} at {unit} {x[marked]:,.10g}"
        name_axes(
            axes,
            title=title,
            x="Epoch" if unit == "epoch" else "Step (optimizer updates)",
            y="Cross-entropy (nats)" if key == "loss" else f"{name} ({'-1' if key == 'mcc' else '0'} to 1)",
        )
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        if len(x) == 1:
            axes.set_xlim(x[0] - 1, x[0] + 1)
        within_range(axes, key)
        axes.grid(alpha=0.3)
    legend(figure, panels)
    return save(figure, path)


def confusion(matrix: Sequence[Sequence[int]], label_names: Sequence[str], title: str, path: Path) -> Path:
    """Two panels: the number of texts of each true label (row) with each predicted label, and the fraction of the row.

    If the title contains the word "test", the colour is that of the test split, otherwise that of validation.
    """
    counts = np.asarray(matrix, dtype=np.int64)  # (C, C)
    classes = len(label_names)
    if counts.shape != (classes, classes):
        raise ValueError(f"{classes} labels need a {classes} x {classes} matrix, not {counts.shape}")
    rows = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(rows, 1)
    colour = TEST if re.search(r"\btest\b", title.lower()) else VALIDATION
    shades = LinearSegmentedColormap.from_list("shades", ["white", colour, darker(colour)])

    side = min(max(1.2 + 0.9 * classes, 3.6), 6.6 if classes <= 12 else 10.0)  # inches a panel
    figure = new_figure(2 * side + 1.5, side + 1.5, title)
    panels = figure.subplots(1, 2, sharey=True)
    few = classes <= 12  # with many cells, zeros would be distracting
    count_cells = [[f"{n:,}" if n or few else "" for n in row] for row in counts]
    share_cells = [
        [f"{s:.0%}" if s >= 0.005 or few else "" for s in row] if n else ["–"] * classes
        for row, n in zip(shares, rows[:, 0], strict=True)
    ]
    size = 72 * side / classes / (0.75 * max(len(cell) for row in count_cells + share_cells for cell in row))
    _matrix(panels[0], counts, max(1, int(counts.max(initial=0))), count_cells, label_names, shades, size)
    _matrix(panels[1], shares, 1.0, share_cells, label_names, shades, size)
    name_axes(panels[0], title="Number of texts", x="Predicted label", y="True label")
    name_axes(panels[1], title="Fraction of the true label", x="Predicted label", y="")
    panels[1].tick_params(left=False)
    return save(figure, path)


def draw_confusion(metrics: Metrics, names: Sequence[str], split: str, folder: Path) -> Path:
    """``confusion_SPLIT.png``: the confusion matrix, or with many labels the most confused pairs."""
    path, title = folder / f"confusion_{split}.png", f"Confusion on the {split} texts"
    if metrics.confusion is not None and len(names) <= READABLE:
        return confusion(metrics.confusion, names, title, path)
    return confused_pairs(metrics.most_confused(), names, title, path)


def length_distribution(lengths: Sequence[int] | np.ndarray, max_tokens: int, path: Path) -> Path:
    """A histogram of the texts' lengths in tokens, before truncation, with the number of texts above ``max_tokens``."""
    values = np.asarray(lengths)
    if values.size == 0:
        raise ValueError("length_distribution needs at least one text")
    median, p95, longest = (float(np.percentile(values, q)) for q in (50, 95, 100))
    cut = int((values > max_tokens).sum())
    # A few very long texts would compress all others into one bar, so the last bar contains all of these.
    end = longest if longest <= 4 * p95 + 16 else max(2 * p95, 1.1 * max_tokens if cut else 0.0)
    end = max(end, 1.05 * max_tokens if max_tokens <= 1.5 * longest else 0.0)
    width = max(1, round(end / 45))
    edges = np.arange(0, end + width + 1, width) - 0.5  # whole numbers of tokens fall inside the bars

    figure = new_figure(8.5, 4.6, f"Length of the texts (n = {values.size:,})")
    axes = figure.subplots()
    drawn = np.minimum(values, edges[-1] - 0.5)
    whole, _ = np.histogram(drawn[values <= max_tokens], edges)
    beyond, _ = np.histogram(drawn[values > max_tokens], edges)
    middles = (edges[:-1] + edges[1:]) / 2
    axes.bar(middles, whole, width, color=VALIDATION, edgecolor="white", linewidth=0.6)
    if cut:
        label = f"cut: {cut:,} ({cut / values.size:.1%})"
        style: dict[str, Any] = {"color": TRAIN, "edgecolor": MARK, "linewidth": 0.6, "hatch": "///"}
        axes.bar(middles[beyond > 0], beyond[beyond > 0], width, whole[beyond > 0], label=label, **style)
    axes.axvline(median, color=MARK, linewidth=2, label=f"median: {median:,.10g}")
    axes.axvline(p95, color=MARK, linewidth=2, linestyle="--", label=f"95% are no longer than {p95:,.0f}")
    limit = f"limit: {max_tokens:,}" + ("" if cut else ", none is cut")
    if max_tokens <= edges[-1]:
        axes.axvline(max_tokens + 0.5, color=TEST, linewidth=2.5, linestyle=":", label=limit)
    else:
        axes.plot([], [], " ", label=limit)
    axes.plot([], [], " ", label=f"longest: {longest:,.0f}")
    note = f" (last bar: {edges[-2] + 0.5:,.0f} and more)" if longest > edges[-1] else ""
    name_axes(axes, title="", x=f"Tokens a text{note}", y="Number of texts")
    axes.set_xlim(edges[0], edges[-1])
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_axisbelow(True)
    axes.grid(axis="y", alpha=0.3)
    legend(figure, [axes])
    return save(figure, path)


# --- Parts of figures ---


def _values(measured: Sequence[Metrics | None], metric: str) -> np.ndarray:
    """The metric of every evaluation; nan if it was not measured."""
    found = [None if metrics is None else metrics.get(metric) for metrics in measured]
    return np.array([np.nan if value is None else value for value in found], dtype=float)


def _training(history: Sequence[Evaluation], metric: str) -> tuple[np.ndarray, str]:
    """The training curve, and a note on it.

    If no evaluation measured the training texts, the loss is the mean over the steps since the previous evaluation.
    """
    values = _values([entry.train for entry in history], metric)
    if metric != "loss" or np.isfinite(values).any():
        return values, ""
    return np.array([entry.train_loss for entry in history]), " (mean over the steps, with dropout)"


def _curve(axes: Axes, x: Sequence[float], y: np.ndarray, colour: str, label: str, *, dashed: bool = False) -> None:
    """A line through the measured points, with markers if there are few."""
    measured = np.isfinite(y)
    if not measured.any():
        return
    few = measured.sum() <= 20
    axes.plot(
        np.asarray(x)[measured],
        y[measured],
        color=colour,
        label=label,
        linewidth=2.2,
        linestyle="--" if dashed else "-",
        marker=("s" if dashed else "o") if few else "",
        markersize=6,
    )


def _mark_best(axes: Axes, x: float, y: float) -> None:
    axes.axvline(x, color=MARK, linewidth=1.2, linestyle=":")
    star: dict[str, Any] = {"color": MARK, "markersize": 16, "markeredgecolor": "white", "zorder": 5}
    axes.plot([x], [y], "*", label="best (kept)", **star)


def _matrix(
    axes: Axes,
    values: np.ndarray,
    top: float,
    cells: Sequence[Sequence[str]],
    names: Sequence[str],
    shades: LinearSegmentedColormap,
    size: float,
) -> None:
    """One panel: ``values`` (C, C) as shades from 0 to ``top``, with the text of each cell in ``size`` points.

    If the text would be too small to read, a scale beside the panel explains the shades.
    """
    classes = len(names)
    image = axes.imshow(values, cmap=shades, vmin=0, vmax=top)
    if size >= 8:
        for row, column in np.ndindex(classes, classes):
            style: dict[str, Any] = {
                "color": ink(shades(float(values[row, column] / top))),
                "fontsize": min(size, TEXT),
            }
            axes.text(column, row, cells[row][column], ha="center", va="center", **style)
    else:
        axes.figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=SMALL)
    if classes > 40:  # names and lines would cover the cells
        axes.set_xticks([])
        axes.set_yticks([])
        return
    wrapped = [textwrap.fill(short(name, 40), 16) for name in names]
    lines = max(name.count("\n") + 1 for name in wrapped)
    # Three lines are as high as a cell of a matrix of six classes.
    axes.set_yticks(range(classes), wrapped if classes * lines <= 18 else [short(name, 24) for name in names])
    if classes * max(len(line) for name in wrapped for line in name.split("\n")) <= 50:
        axes.set_xticks(range(classes), wrapped)
    else:
        slanted: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(classes), [short(name, 20) for name in names], **slanted)
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#999999", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
