"""The first paragraph of a run's report, a summary of the run, and phrases about its data."""

from __future__ import annotations

from collections.abc import Sequence

from minilm.evaluation.metrics import Metrics
from minilm.evaluation.statistics import wilson_interval
from minilm.reporting.page import Span
from minilm.reporting.record import Run
from minilm.reporting.results import Baseline, DataSummary, Results
from minilm.reporting.tables import count, decimal, metric_name

# The majority baseline with several labels per text.
SAME_LABELS = "the same labels for every text, those that are frequent enough"
Sentence = list[str | Span]


def story(run: Run) -> Sentence:
    """A summary: the model, the data, the metrics, those of the baselines, and how uncertain they are."""
    results = run.results
    sentences = [_what_was_done(run)]
    if results.test is not None:
        key, texts = _accuracy(results.test), results.data.sizes["test"]
        does, would = ("is", "be") if key == "accuracy" else ("gets all labels", "get all labels")
        sentences.append(
            [
                f"On the {count(texts)} test texts it {does} right in {results.test[key]:.1%} of cases, "
                f"with a macro F1 of {decimal(results.test['macro_f1'])}."
            ]
        )
        if (majority := results.baselines.get("majority")) and majority.test is not None:
            reached = f"{majority.test[key]:.1%} of cases, with a macro F1 of {decimal(majority.test['macro_f1'])}"
            sentences.append([*_majority(majority, results.multi_label), f" would {would} right in {reached}."])
        if sentence := verdict(results):
            sentences.append([Span(sentence)])
        if texts:
            low, high = wilson_interval(results.test[key], texts)
            sentences.append(
                [
                    f"With {count(texts)} test texts, its {metric_name(key)} on more such texts is only known to be "
                    f"between {low:.1%} and {high:.1%} (95%, Wilson's interval)."
                ]
            )
    elif results.zero_shot is not None and results.zero_shot.given:
        number = count(results.data.sizes["test"])
        sentences.append(
            [
                f"It gave labels to {number} texts. They have none to compare with, so how many are right is not "
                "known: read some of them, or label a few hundred and measure it on these (data.label)."
            ]
        )
    elif results.validation is not None:
        sentences.append(
            [
                "No texts were held out for a test (data.test_fraction = 0), so its quality on new texts was not "
                "measured. The validation metrics are too high, as the weights were chosen by them."
            ]
        )
    return _joined(sentences, " ")


def _what_was_done(run: Run) -> Sentence:
    results = run.results
    total, trained = results.parameters.total, results.parameters.trained
    share = "all" if total == trained else count(trained) if trained else "none"
    labels = f"{len(results.labels)} labels"
    if results.zero_shot is not None:
        done, seen = f"used without training (by {results.zero_shot.method})", f"{labels}, no labelled text"
    else:
        done = "trained from scratch" if run.from_scratch else "fine-tuned"
        texts = f"{of_whole(results.data, 'train')} texts with"
        seen = f"{f'{trained_on(results)}, with' if added(results) else texts} {labels}"
    parameters = f" ({count(total)} parameters, {share} of them trained) was {done} on "
    return [Span(run.model), parameters, Span(results.data.name), f": {seen}."]


def _majority(baseline: Baseline, multi_label: bool) -> Sentence:
    """The majority baseline as the subject of a sentence."""
    if not multi_label:
        return ["Always giving the most frequent label"]
    if baseline.decision_threshold is None:  # early versions did not store it
        return [f"Giving {SAME_LABELS},"]
    if isinstance(baseline.decision_threshold, list):
        least = "its label's threshold"
    else:
        least = f"{baseline.decision_threshold:.2f}"
    if baseline.labels:
        given = _joined([[Span(label, "em")] for label in baseline.labels], ", ")
        return ["Giving every text ", *given, f" (by frequency alone, a probability of at least {least})"]
    return [f"Giving no text any label (by frequency alone, none has a probability of {least} or more)"]


def _joined(parts: Sequence[Sentence], between: str) -> Sentence:
    return [piece for i, part in enumerate(parts) for piece in ([between, *part] if i else part)]


def verdict(results: Results) -> str:
    """A sentence that compares the model with the linear baseline by macro F1 on the test texts.

    It is empty if one of the two was not measured.
    """
    ours, baseline = results.test, results.baselines.get("linear")
    if ours is None or baseline is None or baseline.test is None:
        return ""
    accuracy, theirs = _accuracy(ours), baseline.test
    gain, other = (100 * (ours[key] - theirs[key]) for key in ("macro_f1", accuracy))
    difference = f"{abs(other):.1f} points {'below' if other < 0 else 'above'}" if abs(other) >= 0.05 else "equal"
    beside = f"({metric_name(accuracy)}: {difference})"
    if abs(gain) < 0.05:
        return f"It has the same macro F1 as the linear baseline {beside}."
    if gain > 0:
        return f"It beats the linear baseline by {gain:.1f} points of macro F1 {beside}."
    return (
        f"It falls short of the linear baseline by {-gain:.1f} points of macro F1 {beside}: "
        "on these data the linear model is the better choice."
    )


def _accuracy(metrics: Metrics) -> str:
    return "subset_accuracy" if metrics.multi_label else "accuracy"


def of_whole(data: DataSummary, split: str) -> str:
    """The number of texts of a split that were used, and the number of all: "2,400 of 4,000"."""
    size, whole = data.sizes[split], data.whole.get(split, 0)
    return count(size) + (f" of {count(whole)}" if 0 < size < whole else "")


def added(results: Results) -> int:
    """The number of training texts that augmentation has made."""
    return 0 if results.augmentation is None else results.augmentation.added


def trained_on(results: Results) -> str:
    """The training texts, with the augmented ones: "216 training texts, 144 of them made by augmentation"."""
    made = f", {count(new)} of them made by augmentation" if (new := added(results)) else ""
    return f"{count(results.data.sizes['train'] + added(results))} training texts{made}"
