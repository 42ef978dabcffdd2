"""The first paragraph of a run's report, which tells the whole story, and what of its data is told elsewhere too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.evaluation.statistics import wilson_interval
from minilm.reporting.record import Run
from minilm.reporting.tables import count, decimal, escape, metric_name

SPLITS = ("train", "validation", "test")
SAME_LABELS = "the same labels for every text, those that are frequent enough"  # the majority's, of several labels


def story(run: Run) -> str:
    """What was trained on what, how well it does, beside what, and how sure that is."""
    results, data = run.results, run.results["data"]
    total, trained = results["parameters"]["total"], results["parameters"]["trained"]
    share = "all" if total == trained else count(trained) if trained else "none"
    done = "trained from scratch" if run.from_scratch else "fine-tuned"
    seen = f"{trained_on(run)}, with {len(results['labels'])} labels"
    if not added(run):
        seen = f"{of_whole(run, 'train')} texts with {len(results['labels'])} labels"
    if "zero_shot" in results:
        done = f"asked (by {results['zero_shot']['method']})"
        seen = f"{len(results['labels'])} labels, no labelled text"
    sentences = [
        f"**{escape(run.model)}** ({count(total)} parameters, {share} of them trained) was {done} on "
        f"**{escape(data['name'])}**: {seen}."
    ]
    if test := results.get("test"):
        key, texts = _accuracy(test), size_of(run, "test")
        what = "is right" if key == "accuracy" else "gets all labels right"
        sentences.append(
            f"On the {count(texts)} test texts it {what} in {test[key]:.1%} of cases, "
            f"with a macro F1 of {decimal(test['macro_f1'])}."
        )
        if majority := results.get("baselines", {}).get("majority", {}).get("test"):
            told = _majority(results["baselines"]["majority"], several(run))
            sentences.append(f"{told} would make that {majority[key]:.1%} and {decimal(majority['macro_f1'])}.")
        sentences.append(f"**{verdict(results)}**" if verdict(results) else "")
        if texts:
            low, high = wilson_interval(test[key], texts)
            sentences.append(
                f"With {count(texts)} test texts, its {metric_name(key)} on more such texts is only known to lie "
                f"between {low:.1%} and {high:.1%} (95%, Wilson's interval)."
            )
    return " ".join(filter(None, sentences))


def _majority(baseline: Mapping[str, Any], choice: bool) -> str:
    """What the baseline that reads no text does, as the subject of a sentence; ``choice``: of several labels."""
    if not choice:
        return "Always giving the most frequent label"
    if "threshold" not in baseline:  # results of a version that did not keep it
        return f"Giving {SAME_LABELS},"
    least = f"{baseline['threshold']:.2f}"
    if given := ", ".join(f"*{escape(label)}*" for label in baseline["labels"]):
        return f"Giving every text {given} (by frequency alone, a probability of at least {least})"
    return f"Giving no text any label (by frequency alone, none has a probability of {least} or more)"


def verdict(results: Mapping[str, Any]) -> str:
    """Whether the transformer pays off: its macro F1 on the test set beside the linear baseline's.

    One sentence; empty where one of the two was not measured.
    """
    ours, linear = results.get("test"), results.get("baselines", {}).get("linear", {}).get("test")
    if not ours or not linear:
        return ""
    accuracy = _accuracy(ours)
    gain, other = (100 * (ours[key] - linear[key]) for key in ("macro_f1", accuracy))
    beside = f"({metric_name(accuracy)}: {abs(other):.1f} points {'below' if other < 0 else 'above'})"
    if abs(gain) < 0.05:
        return f"It equals the linear baseline in macro F1 {beside}."
    if gain > 0:
        return f"It beats the linear baseline by {gain:.1f} points of macro F1 {beside}."
    return (
        f"It falls short of the linear baseline by {-gain:.1f} points of macro F1 {beside}: "
        "on these data the linear model is the better choice."
    )


def several(run: Run) -> bool:
    """Whether a text may have several labels."""
    return any("subset_accuracy" in run.results.get(split, {}) for split in SPLITS)


def _accuracy(metrics: Mapping[str, Any]) -> str:
    return "accuracy" if "accuracy" in metrics else "subset_accuracy"


def size_of(run: Run, split: str) -> int | None:
    """How many texts of the data a split has."""
    size: int | None = run.results["data"].get("sizes", {}).get(split)
    return size


def of_whole(run: Run, split: str) -> str:
    """How many texts of a split were used, and of how many: "2,400 of 4,000"."""
    size, whole = size_of(run, split), run.results["data"].get("whole", {}).get(split)
    return count(size) + (f" of {count(whole)}" if size and whole and size < whole else "")


def added(run: Run) -> int:
    """How many training texts were made by augmentation."""
    number: int = run.results.get("augmentation", {}).get("added", 0)
    return number


def trained_on(run: Run) -> str:
    """The training texts, those that were made included: "216 training texts, 144 of them made by augmentation"."""
    made = f", {count(new)} of them made by augmentation" if (new := added(run)) else ""
    return f"{count((size_of(run, 'train') or 0) + new)} training texts{made}"
