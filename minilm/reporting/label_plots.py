"""Pictures of labels that fit their place whether there are 3 of them, 40 or 500: how many texts have each, and which
are taken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from minilm.evaluation.confusions import Confused
from minilm.reporting.style import SMALL, TEST, TRAIN, VALIDATION, legend, name_axes, new_figure, save, short

COLOURS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
BARS = 40  # labels of which each has its bar and name
DRAWN_PAIRS = 20  # confused pairs that are drawn


def class_distribution(names: Sequence[str], counts: Mapping[str, np.ndarray], path: Path) -> Path:
    """The share of each split's texts that each label has; of many labels without names, the most frequent first.

    counts: (C,) of each split; one without texts is left out.
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
    """How often labels are taken for others, the most frequent pairs first."""
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
