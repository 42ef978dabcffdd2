"""A model card: the README.md of an exported folder, which the Hub shows as the model's page.

It begins with the Hub's metadata in YAML: licence and base model, data set, languages, task, metrics. Below are what
was trained, the labels, the metrics with their intervals, and how to use the model: only ways that work for its head
and its form. What is not known, such as the base of a model that was trained from a folder, is left out. The licence of
the model is its owner's to choose, unless the base model's licence demands its own.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from minilm.config import SPLITS
from minilm.data import catalog
from minilm.evaluation.decisions import Decision
from minilm.evaluation.metrics import Metrics
from minilm.evaluation.reading import Reading
from minilm.evaluation.statistics import Interval
from minilm.hub import REPO_ID, ModelEntry, catalogue, is_downloaded, is_folder, published_name, weights_folder
from minilm.models import ARCHITECTURES
from minilm.models.architecture import Card
from minilm.reporting.export_facts import FACTS, ExportFacts
from minilm.reporting.groups import Group, interval_over_rows, method_over_rows
from minilm.reporting.onnx_script import onnx_script
from minilm.reporting.page import Block, Bullets, Code, Page, Prose, Section, Span, Table, markdown
from minilm.reporting.record import Run, adapted_by
from minilm.reporting.report import label_table
from minilm.reporting.story import Sentence, story
from minilm.reporting.tables import decimal, join_words, titled

CARD = "README.md"
LANGUAGES = {
    "English": "en", "Polish": "pl", "French": "fr", "German": "de", "Italian": "it", "Portuguese": "pt",
    "Spanish": "es",
}  # fmt: skip
INHERITED = {"Gemma terms of use": "gemma"}  # licences that a model trained from such a one must have -> the Hub's name
HELD_OUT = "held out by minilm"  # the split of metrics on texts that are no split of a published data set
METRICS = {  # ours -> the Hub's name
    "accuracy": "accuracy", "subset_accuracy": "accuracy", "micro_f1": "f1", "macro_f1": "f1",
    "mcc": "matthews_correlation",
}  # fmt: skip
MANY = 100  # labels; a table of more would be the whole page


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an exported folder holds."""

    name: str  # the folder or the Hub id by which it is used
    source: str = ""  # the checkpoint that it was trained from, or that it is: a folder, a catalogue name or a Hub id
    revision: str = ""  # of the source, which then is on the Hub
    model: Card | None = None  # None: a linear baseline
    labels: Sequence[str] = ()  # (C,); (): not a classifier
    adapter: bool = False  # it holds an adapter, without its base model
    decision: Decision | None = None  # None: not a classifier
    reading: Reading | None = None
    facts: ExportFacts | None = None  # None: there is no ONNX graph

    @property
    def is_published(self) -> bool:
        """Whether other libraries can use its head."""
        return self.model is not None and not self.model.own_head


def model_card(exported: Exported, run: Run | None) -> str:
    """The text of the card. ``run``: the run that trained the model; None: it is not known."""
    title = exported.name.rstrip("/").rpartition("/")[2] or exported.name
    quality, origin = _quality(exported, run), _origin(exported, run)
    sections = [Section("", _opening(exported, run)), *quality, *_usage(exported), *origin]
    page = Page(title, "", "", [section for section in sections if section.blocks])
    return f"---\n{_metadata(title, exported, run)}\n---\n\n{markdown(page, Path())}"


# --- Metadata -----------------------------------------------------------------------------------------------------


def base_name(source: str, revision: str = "") -> str:
    """The Hub id of a checkpoint, or of the one that runs adapted to it; empty if it has none, or if that is not sure.

    A folder below weights/ with a name of the catalogue is that model. A name such as "models/mine" may be that of a
    folder that was removed: it is a Hub id only if it has a revision, or if the model was downloaded.
    """
    before = adapted_by(source) if source else None
    if before is not None:
        return base_name(before.model.source, before.model.revision)
    path = Path(source)
    if source and is_folder(source):
        known = path.resolve().parent == weights_folder().resolve() and path.name in catalogue()
        return catalogue()[path.name].repo_id if known else ""
    if source in catalogue() or _entry(source) is not None:
        return published_name(source)
    return source if REPO_ID.fullmatch(source) and (revision or is_downloaded(source)) else ""


def _entry(repo_id: str) -> ModelEntry | None:
    return next((entry for entry in catalogue().values() if repo_id and entry.repo_id == repo_id), None)


def _dataset(run: Run | None) -> catalog.Entry | None:
    """The catalogue's entry for the data of a run; None if they are not from the catalogue."""
    entry = None if run is None else catalog.entries().get(run.config.data.source)
    takes_sample = run is not None and run.config.data.sample and entry is not None and entry.sample
    return catalog.entries()[entry.sample] if entry is not None and takes_sample else entry


def _metadata(title: str, exported: Exported, run: Run | None) -> str:
    """The metadata in YAML, as ``huggingface_hub`` writes it."""
    from huggingface_hub import EvalResult, ModelCardData

    base, data = base_name(exported.source, exported.revision), _dataset(run)
    entry = _entry(base)
    languages = [LANGUAGES.get(name, "") for name in entry.languages.split(", ")] if entry else []
    tags = ["text-classification"] if exported.labels else []
    tags += ["minilm", *(["lora"] if exported.adapter else []), *(["onnx"] if exported.facts else [])]
    found = _values(exported, run)
    name = "" if run is None else data.name if data else Path(run.results.data.name).name
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=data.source if data and data.files else "local",
            dataset_name=name,
            dataset_split=_published_split(run, data, split),
            metric_type=METRICS[key],
            metric_name=titled(key),
            metric_value=round(value, 6),
        )
        for key, split, value in found
    ]
    how = "adapter" if exported.adapter else "finetune"
    relation: dict[str, Any] = {"base_model_relation": how} if base and run else {}
    card = ModelCardData(
        language=languages if languages and all(languages) else None,
        license=INHERITED.get(entry.licence) if entry else None,
        base_model=base or None,
        datasets=[data.source] if data and data.files else None,
        library_name=_library(exported),
        pipeline_tag="text-classification" if exported.labels else None,
        tags=tags,
        metrics=sorted({METRICS[key] for key, *_ in found}) or None,
        model_name=title,
        eval_results=results or None,
        **relation,
    )
    return str(card).strip()


def _library(exported: Exported) -> str:
    if not exported.is_published:
        return "minilm"
    return "peft" if exported.adapter else "transformers"


def _published_split(run: Run | None, data: catalog.Entry | None, split: str) -> str:
    """The name of a run's split in the published data set, or in the user's own files, if they have such a split."""
    if data is not None:  # the file is one of the Hub's splits, under its name there
        return next((name for name in SPLITS if name in data.files.get(split, "")), HELD_OUT)
    if run is None:
        return split
    section = run.config.data
    own = section.test if split == "test" else section.validation
    # A folder or a data set of the Hub may have a file of each split; one file of rows has none.
    return split if own or (section.source and not Path(section.source).suffix) else HELD_OUT


def _measured(exported: Exported, run: Run | None) -> tuple[str, Metrics | None]:
    """The split with the metrics of the exported model, and these: test, or validation if there are no test texts."""
    if run is None:
        return "", None
    if exported.model is None:
        linear = run.results.baselines.get("linear")
        split = "validation" if linear is None or linear.test is None else "test"
        return split, None if linear is None else linear.metrics(split)
    split = "validation" if run.results.test is None else "test"
    return split, run.results.metrics(split)


def _values(exported: Exported, run: Run | None) -> list[tuple[str, str, float]]:
    """The metrics on the Hub's list, with the split on which they were measured."""
    split, metrics = _measured(exported, run)
    found = ((key, split, None if metrics is None else metrics.get(key)) for key in METRICS)
    return [(key, split, value) for key, split, value in found if value is not None]


def _interval(exported: Exported, run: Run, key: str) -> tuple[Interval, str] | None:
    """The 95% interval of a metric, and what it is over; None if it is not known."""
    split, metrics = _measured(exported, run)
    if exported.model is not None:
        return Group(run.name, (run,)).interval(key, split)
    # With several labels there is none: the predictions that a run stores are those of its model.
    return None if metrics is None else interval_over_rows(metrics, key, split)


# --- Text ---------------------------------------------------------------------------------------------------------


def _opening(exported: Exported, run: Run | None) -> list[Block]:
    """What it is, and its labels."""
    blocks: list[Block] = []
    if exported.model is None:
        blocks.append("A linear model on TF-IDF features: the baseline of a run of minilm, fitted on the same texts.")
    elif run is not None and run.results.best is not None:
        blocks.append(_story(run))
    else:
        title = ARCHITECTURES[exported.model.model_type].title
        blocks.append(f"A {title} {'classifier ' if exported.labels else ''}that minilm exported.")
    if exported.adapter:
        blocks.append("This is a LoRA adapter: only the trained weights. Whoever uses it loads the base model too.")
    if exported.labels:
        some = "any of" if exported.decision and exported.decision.kind == "multi" else "one of"
        names = f"{join_words([f'“{name}”' for name in exported.labels[:MANY]])}"
        more = f" and {len(exported.labels) - MANY:,} more" if len(exported.labels) > MANY else ""
        one = exported.decision is not None and exported.decision.kind == "score"
        blocks.append(f"Its output: {names}." if one else f"A text gets {some} these labels: {names}{more}.")
    return blocks


def _story(run: Run) -> Sentence:
    """The summary of the run's report, in which a checkpoint's folder is only its name."""
    model = run.config.model
    name = _shown(model.source, model.revision) if model.source else run.model
    return [Span(name) if piece == Span(run.model) else piece for piece in story(run)]


def _shown(source: str, revision: str) -> str:
    """A checkpoint's name, without the place of its folder: a catalogue name, a Hub id, or the folder's name."""
    before = adapted_by(source)
    if before is not None:
        inner = before.model
        return f"{_shown(inner.source, inner.revision) if inner.source else inner.architecture}, adapted"
    public = source in catalogue() or base_name(source, revision) == source
    return source if public else PureWindowsPath(source).name  # which knows both separators


def _quality(exported: Exported, run: Run | None) -> list[Section]:
    """The metrics with their intervals, and those of each label."""
    found = _values(exported, run)
    if run is None or not found:
        return []
    split, intervals = found[0][1], {key: _interval(exported, run, key) for key, *_ in found}
    rows = [[titled(key), decimal(value), _ends(intervals[key])] for key, _, value in found]
    note = _how_intervals_were_made(intervals)
    if split == "validation":
        how = "are too high, as the weights were" if exported.model else "may be too high, as its threshold was"
        note += f" No texts were held out for a test. These values {how} chosen by them."
    blocks: list[Block] = [Table([f"{split} set", "value", "95% interval"], rows, note=note.strip())]
    _, metrics = _measured(exported, run)
    if metrics is not None and len(run.results.labels) <= MANY:
        blocks.append(label_table(metrics, run.results.labels))
    return [Section("Results", blocks)]


def _ends(interval: tuple[Interval, str] | None) -> str:
    return "-" if interval is None else f"{interval[0].low:.4f} to {interval[0].high:.4f}"


def _how_intervals_were_made(intervals: Mapping[str, tuple[Interval, str] | None]) -> str:
    """What the intervals are over, how they were computed, and why some are missing."""
    known = {key: found for key, found in intervals.items() if found is not None}
    if not known:
        return ""
    _, over = next(iter(known.values()))
    by_wilson = [titled(key) for key in known if method_over_rows(key) == "Wilson"]
    others = len(known) > len(by_wilson)
    note = f"The intervals are over {over}: {join_words(by_wilson)} by Wilson's method"
    note += ", the others by the bootstrap." if others else "."
    if without := [titled(key) for key in intervals if key not in known]:
        note += (
            f" {join_words(without)}: no interval, as all draws of the bootstrap from these rows have the same value. "
            "That does not make the value certain."
        )
    return note


def _usage(exported: Exported) -> list[Section]:
    """The ways to use it that work for its head and its form."""
    name, reads_pairs = exported.name, exported.reading is not None and bool(exported.reading.pairs)
    text = "$'first text\\tsecond text'" if reads_pairs else '"some text"'
    if exported.model is None:
        blocks: list[Block] = ["With minilm:", Code(f"minilm predict {shlex.quote(name)} {text}", "sh")]
        return [Section("Use it", blocks)]
    if exported.decision is None:
        return [Section("Use it", [Code(f"import minilm\n\nmodel = minilm.load_model({json.dumps(name)})", "python")])]
    given = '[("first text", "second text")]' if reads_pairs else '["some text"]'
    quoted = json.dumps(name, ensure_ascii=False)
    lines = f"import minilm\n\nclassifier = minilm.Classifier.load({quoted})\nclassifier.predict({given})"
    command = Code(f"minilm predict {shlex.quote(name)} {text}", "sh")
    blocks = ["With minilm:", command, Code(lines, "python")]
    blocks += _with_others(exported, quoted, reads_pairs)
    blocks += _with_onnx(exported.facts) if exported.facts is not None else []
    if exported.is_published or exported.facts is not None:
        blocks += _differences(exported)
    return [Section("Use it", blocks)]


def _with_others(exported: Exported, quoted: str, reads_pairs: bool) -> list[Block]:
    """With transformers or PEFT, if they can use the head. ``quoted``: the model's name as Python."""
    if not exported.is_published:
        what = "Its head is minilm's own, so transformers and PEFT cannot classify with it. They can use models that "
        return [[what, "are trained with ", Span("model.head.kind=family", "code"), "."]]
    if exported.adapter:
        lines = (
            "from peft import AutoPeftModelForSequenceClassification as Model\n\n"
            f"model = Model.from_pretrained({quoted}, num_labels={len(exported.labels)})"
        )
        return ["With PEFT, on the base model:", Code(lines, "python")]
    text = '{"text": "first text", "text_pair": "second text"}' if reads_pairs else '"some text"'
    longest = exported.reading.max_tokens if exported.reading is not None else 0
    several = exported.decision is not None and exported.decision.kind == "multi"
    options = f"truncation=True{f', max_length={longest}' if longest else ''}{', top_k=None' if several else ''}"
    lines = (
        "from transformers import pipeline\n\n"
        f'classify = pipeline("text-classification", model={quoted})\n'
        f"classify({text}, {options})"
    )
    return ["With transformers:", Code(lines, "python")]


def _with_onnx(facts: ExportFacts) -> list[Block]:
    """The graph's inputs and output, and a program."""
    graph, small = facts.onnx, facts.int8
    blocks: list[Block] = [
        [
            "With ONNX, without PyTorch: ",
            Span(graph.file, "code"),
            f" reads {join_words(graph.inputs)} (int64, texts × tokens, padded on the right) and gives {graph.output} "
            "(float32, texts × labels). On random texts its scores differed from the model's by at most "
            f"{graph.largest_difference:.0e}. ",
            Span(FACTS, "code"),
            " has the labels, the temperature and the thresholds. This program prints the labels of a file's lines:",
        ],
        Code(onnx_script(facts), "python"),
    ]
    if small is not None:
        sizes = f"{small.megabytes:,.1f} MB instead of {graph.megabytes:,.1f}"
        what = f" has 8-bit integers in place of most weights: {sizes}{f', {small.compared}' if small.texts else ''}."
        blocks.append([Span(small.file, "code"), what])
    return blocks


def _differences(exported: Exported) -> list[Block]:
    """What other programs must do so that they give the same answers."""
    decision, reading = exported.decision, exported.reading
    assert decision is not None and reading is not None
    items: list[Prose] = []
    if reading.clean:
        steps = join_words(list(reading.clean))
        items.append(f"Texts were cleaned (data.clean: {steps}). Other programs must do that themselves.")
    if reading.long_texts != "cut":
        items.append("minilm reads all of a long text; the other ways cut it.")
    if decision.temperature is not None:
        values = ", ".join(f"{value:.4g}" for value in decision.temperature.tolist())
        items.append(
            f"minilm divides the scores by the temperature {values}, fitted on the validation texts, before it "
            "computes probabilities. transformers does not, so its probabilities are less reliable."
        )
    if decision.kind == "multi" or decision.has_threshold:
        items.append(f"minilm gives a label from this probability on: {_thresholds(decision, exported.labels)}.")
    return ["What to know when another program is used:", Bullets(items)] if items else []


def _thresholds(decision: Decision, labels: Sequence[str]) -> str:
    if decision.kind == "single":
        return f"{labels[1]} {float(decision.threshold):.4g}"
    if isinstance(decision.threshold, float | int):
        return f"{decision.threshold:.4g}"
    return ", ".join(f"{label} {value:.4g}" for label, value in zip(labels, decision.threshold.tolist(), strict=True))


def _origin(exported: Exported, run: Run | None) -> list[Section]:
    """The base model and the data, with their licences."""
    items: list[Prose] = []
    base = base_name(exported.source, exported.revision)
    entry, data = _entry(base), _dataset(run)
    if base:
        known = f": {entry.origin}; licence {entry.licence}; languages: {entry.languages}" if entry else ""
        items.append([Span(base, "", f"https://huggingface.co/{base}"), f" (the base model){known}"])
    if data is not None:
        items.append(f"{data.name}: {data.about} Licence of the texts: {data.licence}. {data.origin}.")
    if entry is not None and entry.licence not in INHERITED:
        items.append(f"Its owner chooses the licence of this model; that of the base model is {entry.licence}.")
    if run is not None and run.environment is not None and exported.model is None:
        items.append(f"Fitted on the texts of a run of minilm {run.environment.minilm}, seed {run.config.seed}.")
    elif run is not None and run.environment is not None:
        packages = ", ".join(f"{name} {number}" for name, number in run.environment.packages.items() if name == "torch")
        items.append(f"Trained with minilm {run.environment.minilm} and {packages}, seed {run.config.seed}.")
    return [Section("Where it comes from", [Bullets(items)])] if items else []
