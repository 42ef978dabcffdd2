"""Pictures of labels, for 3, 40 or 500 of them: the number of texts per label, the F1 of each label, the most confused
pairs, and the labels that occur together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from minilm.evaluation.confusions import Confused
from minilm.evaluation.cooccurrence import co_occurrence
from minilm.evaluation.metrics import Metrics
from minilm.reporting.style import (
    SMALL,
    TEST,
    TRAIN,
    VALIDATION,
    darker,
    ink,
    legend,
    name_axes,
    new_figure,
    save,
    short,
)

COLOURS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
BARS = 40  # up to this number of labels, each has a bar and a name
DRAWN_PAIRS = 20  # the most confused pairs that are drawn


def class_distribution(names: Sequence[str], counts: Mapping[str, np.ndarray], path: Path) -> Path:
    """The fraction of texts with each label, per split; if there are many labels, sorted by frequency without names.

    counts: (C,) for each split; a split without texts is not drawn.
    """
    shares = {split: found / found.sum() for split, found in counts.items() if found.sum()}
    order = np.argsort(-counts["train"], kind="stable")
    if len(names) > BARS:
        return _ranked(shares, order, path)
    few = len(names) <= 12
    figure = new_figure(8.5, max(2.8, 1.4 + (0.45 if few else 0.22) * len(names)), "Texts of each label")
    axes = figure.subplots()
    height = 0.8 / len(shares)
    for i, (split, found) in enumerate(shares.items()):
        places = np.arange(len(names)) + (i - (len(shares) - 1) / 2) * height
        total = int(counts[split].sum())
        axes.barh(places, found[order], height, color=COLOURS[split], edgecolor="white", label=f"{split} ({total:,})")
    axes.set_yticks(range(len(names)), [short(names[i], 32) for i in order])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    name_axes(axes, title="", x="Share of the split's labels", y="")
    axes.tick_params(axis="y", labelsize=SMALL if few else SMALL - 3)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    legend(figure, [axes])
    return save(figure, path)


def _ranked(shares: Mapping[str, np.ndarray], order: np.ndarray, path: Path) -> Path:
    figure = new_figure(8.5, 4.6, f"Texts of each of {len(order):,} labels")
    axes = figure.subplots()
    ranks = np.arange(1, len(order) + 1)
    for split in reversed(list(shares)):  # training on top
        found = shares[split][order]
        style = {"linewidth": 2.2} if split == "train" else {"linestyle": "", "marker": ".", "markersize": 4}
        axes.plot(ranks[found > 0], found[found > 0], color=COLOURS[split], label=split, **style)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    name_axes(axes, title="", x="Labels, the most frequent of training first", y="Share of the split's labels")
    axes.grid(alpha=0.3)
    legend(figure, [axes])
    return save(figure, path)


def confused_pairs(pairs: Sequence[Confused], names: Sequence[str], title: str, path: Path) -> Path:
    """The number of texts of each pair of confused labels, the most frequent pairs first."""
    drawn = list(pairs)[:DRAWN_PAIRS]
    figure = new_figure(8.5, max(2.4, 1.4 + 0.36 * len(drawn)), title)
    axes = figure.subplots()
    axes.barh(range(len(drawn)), [pair.texts for pair in drawn], color=TEST, edgecolor="white")
    words = [f"{short(names[pair.truth], 24)} → {short(names[pair.predicted], 24)}" for pair in drawn]
    axes.set_yticks(range(len(drawn)), words)
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    name_axes(axes, title="", x="Texts", y="True label → predicted label")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    return save(figure, path)


def label_scores(metrics: Metrics, names: Sequence[str], split: str, path: Path) -> Path:
    """The F1 of each label, sorted; if there are many, only the labels with the lowest F1."""
    rows = sorted(range(len(names)), key=lambda i: -metrics.by_label[i].f1)[-BARS:]
    few = len(rows) <= 12
    title = f"F1 of each label on the {split} texts"
    if len(rows) < len(names):
        title = f"The {len(rows)} labels with the lowest F1, of {len(names):,} ({split} texts)"
    figure = new_figure(8.5, max(2.8, 1.4 + (0.42 if few else 0.26) * len(rows)), title)
    axes = figure.subplots()
    found = [metrics.by_label[i] for i in rows]
    axes.barh(range(len(rows)), [label.f1 for label in found], 0.7, color=COLOURS[split], edgecolor="white")
    size = SMALL if few else SMALL - 3
    for place, label in enumerate(found):
        axes.text(label.f1 + 0.01, place, f"{label.f1:.2f}  ({label.support:,})", va="center", fontsize=size)
    axes.set_yticks(range(len(rows)), [short(names[i], 32) for i in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.18)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    name_axes(axes, title="", x="F1 (texts that have the label)", y="")
    axes.tick_params(axis="y", labelsize=size)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    return save(figure, path)


def given_together(
    labels: np.ndarray, predicted: np.ndarray, names: Sequence[str], split: str, path: Path
) -> Path:
    """Which labels occur together, and which are predicted together: labels and predicted (N, C) of 0 and 1.

    A cell is the fraction of the texts with the row's label that also have the column's label. If there are many
    labels, the most frequent ones are drawn.
    """
    most = np.sort(np.argsort(-labels.sum(axis=0), kind="stable")[:BARS])
    shown = [short(names[i], 24) for i in most]
    side = min(max(3.2, 1.6 + 0.42 * len(most)), 8.5)
    title = f"Which labels come together? ({split} texts)"
    if len(most) < len(names):
        title += f": the {len(most)} most frequent of {len(names):,}"
    figure = new_figure(2 * side + 1.8, side + 1.2, title)
    panels = figure.subplots(1, 2, sharey=True)
    shades = LinearSegmentedColormap.from_list("together", ["white", COLOURS[split], darker(COLOURS[split])])
    size = SMALL if len(most) <= 12 else SMALL - 4
    for axes, kind, found in zip(panels, ("true labels", "predicted labels"), (labels, predicted), strict=True):
        counts = co_occurrence(found[:, most]).counts
        own = counts.diagonal()[:, None]
        shares = np.divide(counts, own, out=np.full(counts.shape, np.nan), where=own > 0)
        np.fill_diagonal(shares, np.nan)
        image = axes.imshow(shares, cmap=shades, vmin=0, vmax=1)
        if len(most) <= 12:
            for row, column in np.argwhere(~np.isnan(shares)):
                value = float(shares[row, column])
                style: dict[str, Any] = {"color": ink(shades(value)), "fontsize": SMALL - 2}
                axes.text(column, row, f"{value:.0%}", ha="center", va="center", **style)
        name_axes(axes, title=kind.capitalize(), x="... that have this label too", y="")
        slanted: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor", "fontsize": size}
        axes.set_xticks(range(len(most)), shown, **slanted)
        axes.set_yticks(range(len(most)), shown, fontsize=size)
        axes.tick_params(labelsize=size)
    panels[0].set_ylabel("Of the texts with this label, ...", fontsize=SMALL)
    figure.colorbar(image, ax=list(panels), shrink=0.8, format=lambda value, _: f"{value:.0%}")
    return save(figure, path)
