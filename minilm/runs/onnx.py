"""``minilm export --onnx``: save a classifier's ONNX graph beside the model, and measure what changes."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from minilm.checkpoints.files import write_json
from minilm.checkpoints.models import card_of
from minilm.checkpoints.onnx_export import OUTPUT, input_names, largest_difference, open_graph, quantize, write_onnx
from minilm.data.tokenization import pad_id
from minilm.data.tokenizer_settings import cuts_left
from minilm.devices import runtime
from minilm.errors import UserError
from minilm.evaluation.measuring import measure
from minilm.evaluation.predictor import Classifier
from minilm.evaluation.validation_scores import read_validation
from minilm.model_files import GRAPH, QUANTIZED, VALIDATION
from minilm.models.architecture import Backbone
from minilm.reporting.export_facts import FACTS, ExportFacts, Graph, QuantizedGraph
from minilm.runs.folders import load_data_of
from minilm.runs.results import stored_threshold
from minilm.schema import as_table
from minilm.training.console import say

UNMEASURED = "no validation texts and scores of a run could be read"  # the error itself may hold paths
COMPARED = ("accuracy", "subset_accuracy", "micro_f1", "macro_f1")  # those that the task has


def add_onnx(model: Backbone, tokenizer: Tokenizer, folder: Path, *, run: Path, int8: bool) -> ExportFacts:
    """Save a classifier's graph in a folder, with ``export.json``; print how far its scores are from the model's.

    Args:
        model: with a classification head; its adapters are merged. Its weights become float32.
        folder: with the saved model.
        run: what was exported. If it is a run's folder, the quantized graph is measured on its validation texts.
        int8: whether to save a quantized graph too.
    """
    model.float().eval()
    path = folder / GRAPH
    write_onnx(model, path)
    graph = Graph(
        file=GRAPH,
        megabytes=_megabytes(path),
        inputs=list(input_names(model.config)),
        output=OUTPUT,
        largest_difference=largest_difference(model, path),
    )
    most = f"its scores differ from the model's by {graph.largest_difference:.1e} at most"
    say(f"{path}: {graph.megabytes:,.1f} MB; {most}")
    classifier = Classifier(model, tokenizer, runtime("cpu", "float32"))
    quantized = _add_int8(classifier, folder, run) if int8 else None
    reading, decision = classifier.reading, classifier.decision
    facts = ExportFacts(
        minilm=version("minilm"),
        labels=classifier.labels,
        kind=decision.kind,
        temperature=[1.0] if decision.temperature is None else decision.temperature.tolist(),
        threshold=None if decision.kind == "score" else stored_threshold(decision),
        raw=decision.raw,
        max_tokens=reading.max_tokens or model.context or 512,
        truncation_side="left" if cuts_left(tokenizer) else "right",
        pad_id=pad_id(tokenizer),
        clean=reading.clean,
        pairs=bool(reading.pairs),
        onnx=graph,
        int8=quantized,
    )
    write_json(folder / FACTS, as_table(facts))
    return facts


def _megabytes(path: Path) -> float:
    """The size of a graph and its file of weights."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")) / 1e6


def _add_int8(classifier: Classifier, folder: Path, run: Path) -> QuantizedGraph:
    """Save and measure the quantized graph; print the metrics, or why there are none."""
    path = folder / QUANTIZED
    quantize(folder / GRAPH, path)
    found = QuantizedGraph(file=QUANTIZED, megabytes=_megabytes(path))
    try:
        found = _measured(classifier, path, run, found)
        compared = found.compared
    except UserError as error:
        compared = replace(found, unmeasured=str(error)).compared
        found = replace(found, unmeasured=UNMEASURED)
    say(f"{path}: {found.megabytes:,.1f} MB; {compared}")
    return found


def _measured(classifier: Classifier, path: Path, run: Path, found: QuantizedGraph) -> QuantizedGraph:
    """The metrics of a quantized graph on a run's validation texts, beside those of the scores that the run stored.

    Raises UserError if the run has no such texts or scores any more.
    """
    if not (run / "model" / VALIDATION).is_file():
        raise UserError(f"{run}: has no model/{VALIDATION}, the validation scores that a run stores")
    stored = read_validation(run / "model", str(run))
    rows = load_data_of(run)[1].validation
    graph = open_graph(path)
    classifier.forward = lambda batch, _: graph(batch)
    scores, decision = classifier.scores_of_rows(rows), classifier.decision
    classifier.forward = None
    labels = [decision.choose(decision.probabilities(each)) for each in (stored.scores, scores)]
    same = labels[0] == labels[1]
    before, after = (measure(stored.labels, each, decision, ranking=False) for each in (stored.scores, scores))
    return QuantizedGraph(
        file=found.file,
        megabytes=found.megabytes,
        texts=len(rows),
        same_labels=int(np.sum(same.all(axis=1) if same.ndim == 2 else same)),
        float32={key: value for key in COMPARED if (value := before.get(key)) is not None},
        int8={key: value for key in COMPARED if (value := after.get(key)) is not None},
    )


def check_classifier(model: Backbone, run: str) -> None:
    """Raise UserError if a model cannot be exported as a graph."""
    if card_of(model).task != "classify":
        raise UserError(f"{run}: has no classification head, and --onnx saves classifiers; train one, or remove --onnx")
