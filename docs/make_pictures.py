"""Draw the pictures of ``experiments/RESULTS.md`` that no study draws: ``python -m docs.make_pictures``.

The others are copies of the pictures on the pages of the studies and runs that the page names.
"""

from __future__ import annotations

import csv
from pathlib import Path

from minilm.evaluation.statistics import mean
from minilm.reporting.style import GREY, MARK, TEST, name_axes, new_figure, save

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "experiments" / "results"


def medical() -> Path:
    """Study 1: the accuracy of each seed, and their mean, for the four ways of training."""
    ways = {
        "head": "head only",
        "adapted-head": "adapted, then head only",
        "full": "full",
        "adapted-full": "adapted, then full",
    }
    with (RESULTS / "medical.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    figure = new_figure(9, 3.2, "Medical question pairs: accuracy on 214 pairs, three seeds")
    axes = figure.subplots()
    for place, way in enumerate(ways):
        found = [float(row["test_accuracy"]) for row in rows if row["variant"] == way]
        axes.barh(place, mean(found), 0.62, color=TEST, alpha=0.45, edgecolor=TEST)
        axes.plot(found, [place - 0.15, place, place + 0.15], "o", color=MARK, markeredgecolor="white")
        axes.annotate(f"{mean(found):.3f}", (1.01, place), xycoords=("axes fraction", "data"), va="center")
    axes.axvline(0.5, color=GREY, linestyle="--")
    axes.annotate("chance", (0.5, -0.62), color=GREY, ha="center", annotation_clip=False)
    axes.set_yticks(range(len(ways)), list(ways.values()))
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_axisbelow(True)
    axes.grid(axis="x", alpha=0.3)
    name_axes(axes, title="", x="accuracy; a dot is a seed, a bar their mean", y="")
    return save(figure, DOCS / "medical.png")


if __name__ == "__main__":
    print(medical())
