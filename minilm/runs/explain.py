"""``minilm explain RUN``: explain the predictions for given texts, or for the sample texts of the run's report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import torch

from minilm.errors import UserError
from minilm.evaluation.explained import ExplainedText
from minilm.evaluation.explaining import explain_clean, explain_text
from minilm.evaluation.predictor import Classifier
from minilm.evaluation.text_lines import text_of_line
from minilm.reporting.explanations import write_explanations
from minilm.reporting.record import read_run
from minilm.reporting.report import write_report
from minilm.reporting.results import SampleText

CHEAP = 2e12  # a report contains explanations if they need at most this many floating-point operations
STEPS = 64  # the usual number of points of the path, for this estimate


def explain_texts(run: str, texts: Sequence[str], label: str = "", device: str = "auto") -> Iterator[ExplainedText]:
    """Explain the predictions of a run, a folder or a checkpoint for some texts, in float32.

    Without texts, the sample texts of the run's report are explained, and the report shows the result. Raises UserError
    for a text that cannot be classified, and for a label that the model does not have.
    """
    classifier = Classifier.load(run, device, "float32")
    if texts:
        for number, line in enumerate(texts, 1):
            yield explain_text(classifier, text_of_line(line, f"text {number}", bool(classifier.reading.pairs)), label)
        return
    samples = read_run(Path(run)).results.samples
    if not samples:
        raise UserError(f"{run}: its report has no sample texts; give a text")
    found = []
    for sample in samples:
        found.append(_explain_sample(classifier, sample, label))
        yield found[-1]
    if not label:
        write_explanations(Path(run), found)
        write_report(Path(run))


def explain_samples(classifier: Classifier, samples: Sequence[SampleText], folder: Path) -> None:
    """Explain the report's sample texts in float32, if the model is so small that it takes only seconds."""
    classifier = copy(classifier)
    classifier.runtime = replace(classifier.runtime, precision="float32")
    parameters = sum(parameter.numel() for parameter in classifier.model.parameters())
    precise = all(parameter.dtype == torch.float32 for parameter in classifier.model.parameters())
    tokens = sum(len(classifier.tokenizer.encode(sample.text).ids) for sample in samples)
    if precise and 6 * parameters * tokens * STEPS <= CHEAP:
        write_explanations(folder, [_explain_sample(classifier, sample) for sample in samples])


def _explain_sample(classifier: Classifier, sample: SampleText, label: str = "") -> ExplainedText:
    if sample.pair is None:
        return explain_clean(classifier, sample.text, None, label)
    return explain_clean(classifier, sample.text.removesuffix(f" / {sample.pair}"), sample.pair, label)
