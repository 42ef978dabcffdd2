"""A run's report: one page that says what was trained, how well it does, what it cost, and how to use it.

Everything on it comes from the run's own files (``minilm.reporting.record``), so that it can be written again.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from minilm.checkpoints.atomic import atomic
from minilm.reporting.predictions import FILE
from minilm.reporting.record import Run, predict_command, read_run, reads_pairs, resume_command, shown
from minilm.reporting.story import SAME_LABELS, SPLITS, added, of_whole, several, size_of, story, trained_on
from minilm.reporting.tables import (
    count,
    decimal,
    duration,
    escape,
    label_rows,
    markdown_table,
    metric_columns,
    metric_name,
    text_table,
)

BASELINES = {
    "majority": "always the most frequent label",
    "linear": "a linear model on TF-IDF words and pairs of words",
    "untrained": "the same checkpoint with a head as training would start it, which knows nothing",
    "embeddings": "a linear model on the mean of the vectors that the model gave a text's tokens before it was trained",
}
CHOSEN = (  # of patterns, words and descriptions
    "A pattern, a word or a description that is chosen by its score on labelled texts is trained on them: that is no "
    "zero-shot any more, and what it reaches must be measured on other texts."
)
STOPPED = {
    "finished": "It ran to its last epoch.",
    "early stopping": "It stopped early, because validation no longer improved.",
    "max_minutes": "It stopped when its time (train.max_minutes) was up.",
}


def write_report(folder: Path) -> Path:
    """Write ``report.md`` into a finished run's folder. Raises UserError where that is not one."""
    run = read_run(folder)
    sections: tuple[Callable[[Run], str], ...]
    sections = (_opening, _adaptation, _learning, _mistakes, _samples, _costs, _data, _settings, _usage)
    if "zero_shot" in run.results:
        sections = (_opening, _asked, _mistakes, _samples, _costs, _data, _settings)
    elif "best" not in run.results:  # it only adapted
        sections = (_title, _adaptation, _costs, _data, _settings)
    path = run.folder / "report.md"
    page = "\n\n".join(filter(None, (section(run) for section in sections)))
    with atomic(path) as file:
        file.write(f"{page}\n".encode())
    return path


# --- How well it does ---


def results_table(results: Mapping[str, Any]) -> str:
    """Every split and baseline with its metrics, for the terminal."""
    return text_table(*_results(results))


def _results(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of results."""
    measured = [(split, results[split]) for split in SPLITS if results.get(split)]
    for name, splits in results.get("baselines", {}).items():
        measured += [(f"{name}, {split}", splits[split]) for split in SPLITS if splits.get(split)]
    columns = metric_columns(measured[0][1]) if measured else ()
    rows = [[name, *(decimal(metrics.get(key)) for key in columns)] for name, metrics in measured]
    return ["", *map(metric_name, columns)], rows


def _opening(run: Run) -> str:
    """The title, the whole story in a paragraph, and the table of results."""
    header, rows = _results(run.results)
    rows = [[f"**{cell}**" for cell in row] if row[0] == "test" else row for row in rows]
    what = BASELINES | ({"majority": SAME_LABELS} if several(run) else {})
    named = [f"*{name}*, {what[name]}" for name in what if name in run.results.get("baselines", {})]
    legend = f"Baselines: {'; '.join(named)}. " if named else ""
    legend += "Loss in nats, lower is better; everything else, higher is better."
    if added(run) and run.results.get("train"):
        command = f"minilm evaluate {shlex.quote(shown(run.folder))} --split train"
        legend += (
            f" Row *train*: {trained_on(run)}; `{command}` measures the {count(size_of(run, 'train'))} of the data."
        )
    return f"{_title(run)}\n\n{story(run)}\n\n{markdown_table(header, rows)}\n\n{legend}"


def _title(run: Run) -> str:
    return f"# {escape(run.name)}"


def adaptation_table(adaptation: Mapping[str, Any]) -> str:
    """How well the language of the validation texts is known before and after adaptation, for the terminal."""
    return text_table(*_adapted(adaptation))


def _adapted(adaptation: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    loss, perplexity = adaptation["loss"], adaptation["perplexity"]
    rows = [[when, decimal(loss[when]), f"{perplexity[when]:,.1f}"] for when in ("before", "after")]
    return ["validation texts", "loss", "perplexity"], rows


def _adaptation(run: Run) -> str:
    """What the model learned from texts without labels."""
    adaptation = run.results.get("adaptation")
    if adaptation is None:
        return ""
    text = (
        f"**{escape(run.model)}** went on learning {adaptation['objective']} from {count(adaptation['texts'])} texts "
        f"({count(adaptation['tokens'])} tokens, {count(adaptation['steps'])} steps) without their labels. Perplexity "
        "is among how many equally likely words it is at a loss on the validation texts. The result is a checkpoint "
        "(`adapted/`), to start a classifier from."
    )
    if adaptation.get("new_head"):
        text += (
            " The checkpoint had no language head, so a new one was trained with the rest: what perplexity falls by is "
            "mostly what that head had to learn."
        )
    return "\n\n".join(["## Adaptation", text, markdown_table(*_adapted(adaptation))])


def _asked(run: Run) -> str:
    """What a model was asked that was not trained."""
    asked = run.results["zero_shot"]
    what = "description" if asked["method"] == "similarity" else "word"
    table = markdown_table(["label", what], [[*map(escape, row)] for row in asked["words"].items()], left=2)
    said = [f"The pattern: {escape(asked['pattern'])}"] if asked["pattern"] else []
    if asked["content_free"]:
        said.append(f"Scores are calibrated by the text {escape(asked['content_free'])}, which gets all labels alike.")
    return "\n\n".join(["## How it was asked", *said, table, CHOSEN])


def _learning(run: Run) -> str:
    """The learning curves, and which weights were kept."""
    best, history = run.results["best"], run.history
    last = f" of {history[-1]['epoch']:.4g}" if history else ""
    text = (
        f"The weights kept are those of epoch {best['epoch']:.4g}{last} (step {count(best['step'])}), the "
        f"best by {metric_name(best['metric'])} on validation: {decimal(best['value'])}. "
    )
    seen, of = size_of(run, "validation"), (size_of(run, "train") or 0) + added(run)
    if seen and seen < of and any(line.get("train") for line in history):
        text += f"The training curve is measured on {count(seen)} of the {trained_on(run)}. "
    stopped = run.results.get("stopped", "finished")
    text += STOPPED.get(stopped, f"It stopped: {stopped}.")
    if "threshold" in run.results:
        chosen = run.config.get("train", {}).get("decision") == "validation"
        text += f" A label is given from a probability of {run.results['threshold']:.2f} on"
        text += ", chosen on the validation texts." if chosen else "."
    train, validation = run.results.get("train"), run.results.get("validation")
    if train and validation:
        gap = 100 * (train["macro_f1"] - validation["macro_f1"])
        text += (
            f" Its macro F1 is {decimal(train['macro_f1'])} on the texts it was trained on and "
            f"{decimal(validation['macro_f1'])} on validation: "
            + (f"a gap of {gap:.1f} points" if gap >= 0.05 else "no gap")
            + (", a sign of texts learned by heart." if gap > 10 else ".")
        )
    return "\n\n".join(["## How it learned", text, *_pictures(run, "learning_curves")])


def _mistakes(run: Run) -> str:
    """Each label on its own, and which are taken for which."""
    split = "test" if run.results.get("test") else "validation"
    metrics, labels = run.results[split], run.results["labels"]
    header, rows = label_rows(metrics, [escape(label) for label in labels])
    table = markdown_table([f"{split} set", *header[1:]], rows)
    said = [_absent(metrics, labels, split), _common_mistake(metrics.get("confusion", []), labels)]
    pictures = _pictures(run, "confusion_test", "confusion_validation")
    return "\n\n".join(["## Label by label", table, *filter(None, said), *pictures])


def _absent(metrics: Mapping[str, Any], labels: Sequence[str], split: str) -> str:
    """Which labels no text has, so that nothing is known of them."""
    several = "per_label" in metrics
    rows = zip(labels, metrics["per_label" if several else "per_class"], strict=True)
    none = [f"*{escape(label)}*" for label, row in rows if not row["support"]]
    if not none:
        return ""
    counted = "; in macro F1 it counts as an F1 of 0" if several else ""
    return f"No {split} text has the label {' or '.join(none)}: these texts do not tell how well it is found{counted}."


def _common_mistake(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    wrong = [(n, t, p) for t, row in enumerate(confusion) for p, n in enumerate(row) if t != p and n > 0]
    if not wrong:
        return ""
    times, truth, predicted = max(wrong, key=lambda cell: cell[0])
    share = times / sum(confusion[truth])
    return (
        f"The most common mistake: *{escape(labels[truth])}* taken for *{escape(labels[predicted])}*, "
        f"{count(times)} of {count(sum(confusion[truth]))} texts ({share:.0%})."
    )


def _samples(run: Run) -> str:
    """A few texts with what the model makes of them."""
    samples = run.results.get("samples", [])
    if not samples:
        return ""
    rows = [
        [
            "right" if _names(s["label"]) == _names(s["predicted"]) else "**wrong**",
            escape(_clipped(s["text"])),
            escape(_names(s["label"])),
            escape(_names(s["predicted"])),
            escape(_scores(s["scores"], run.results["labels"])),
        ]
        for s in samples
    ]
    every = f"\n\n[Every test text]({FILE})" if (run.folder / FILE).is_file() else ""
    return "## Some texts\n\n" + markdown_table(["", "text", "label", "predicted", "scores"], rows, left=5) + every


def _names(label: Any) -> str:
    return str(label) if not isinstance(label, list) else ", ".join(map(str, label)) or "none"


def _clipped(text: str | Sequence[str], length: int = 160) -> str:
    text = text if isinstance(text, str) else " / ".join(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def _scores(scores: Mapping[str, float] | Sequence[float], labels: Sequence[str]) -> str:
    """The highest three, best first."""
    pairs = scores.items() if isinstance(scores, Mapping) else zip(labels, scores, strict=True)
    return ", ".join(f"{name} {score:.2f}" for name, score in sorted(pairs, key=lambda pair: -pair[1])[:3])


# --- What it took, and what to do with it ---


def _costs(run: Run) -> str:
    results = run.results
    times, parameters = results["times"], results["parameters"]
    share = parameters["trained"] / parameters["total"]
    rows = [["training", duration(times.get("train_seconds"))]]
    if "tokens_per_second" in results:
        rows.append(["training speed", f"{count(results['tokens_per_second'])} tokens/s"])
    if "inference_seconds_per_100_texts" in times:
        rows.append(["predicting 100 texts", duration(times["inference_seconds_per_100_texts"])])
    rows.append(["parameters", count(parameters["total"])])
    rows.append(["of them trained", f"{count(parameters['trained'])} ({share:.1%})"])
    if results.get("frozen_layers"):
        rows.append(["computed once", results["frozen_layers"]])
    for name, baseline in results.get("baselines", {}).items():
        rows.append([f"fitting the {name} baseline", duration(baseline.get("seconds"))])
    more = "\n\n[The model, layer by layer](summary.txt)" if (run.folder / "summary.txt").is_file() else ""
    return "## What it cost\n\n" + markdown_table(["", ""], rows) + more


def _data(run: Run) -> str:
    data, lengths = run.results["data"], run.results.get("lengths")
    sizes = ", ".join(f"{of_whole(run, split)} {split}" for split in SPLITS if size_of(run, split))
    rows = [["name", escape(data["name"])], ["texts", sizes]]
    if made := run.results.get("augmentation"):
        told = f"{count(made['added'])} ({made['method']}, ratio {made['ratio']:g})"
        rows.append(["made of the train texts", told])
    if lengths:
        shape = (
            f"mean {lengths['mean']:.1f}, median {lengths['median']:.0f}, 95% up to {lengths['p95']:.0f}, "
            f"longest {count(lengths['longest'])}"
        )
        rows.append(["tokens a training text", shape])
        whose = f"the {trained_on(run)}" if added(run) else "them"
        rows.append([f"cut at {lengths['max_tokens']} tokens", f"{count(lengths['truncated'])} of {whose}"])
    rows.append(["fingerprint", f"`{data.get('fingerprint', '')}`"])
    warnings = [f"- {escape(warning)}" for warning in data.get("warnings", [])]
    parts = ["## The data", markdown_table(["", ""], rows, left=2)]
    if warnings:
        parts.append("Warnings:\n\n" + "\n".join(warnings))
    return "\n\n".join([*parts, *_pictures(run, "lengths")])


def _settings(run: Run) -> str:
    config = (run.folder / "config.toml").read_text(encoding="utf-8").strip()
    told = {key: value for key, value in _flat(run.environment) if value and not key.startswith("data.")}
    rows = [[escape(key), escape(value)] for key, value in told.items()]
    parts = [_folded("config.toml, runnable again", f"```toml\n{config}\n```")]
    if rows:
        parts.append(_folded("Environment", markdown_table(["", ""], rows, left=2)))
    return "\n\n".join(["## Settings", *parts])


def _folded(title: str, content: str) -> str:
    """What is shown only when its title is clicked."""
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _usage(run: Run) -> str:
    folder = shlex.quote(shown(run.folder))
    config = shlex.quote(shown(run.folder / "config.toml"))
    with_tab = ", a tab between the two texts" if reads_pairs(run) else ""
    commands = [
        (predict_command(run), "its label"),
        (f"minilm predict {folder} --file texts.txt --json", f"of each line{with_tab}, with all scores"),
        (f"minilm evaluate {folder}", "its test metrics, measured again"),
        (f"minilm train {config} seed=2", "the same once more, one setting changed"),
        (resume_command(run.folder), "continues it, where it was interrupted"),
    ]
    width = max(len(command) for command, _ in commands)
    lines = "\n".join(f"{command.ljust(width)}  # {what}" for command, what in commands)
    return f"## Use it\n\n```sh\n{lines}\n```"


def _pictures(run: Run, *names: str) -> list[str]:
    """Links to those of the pictures that the run has."""
    paths = [f"figures/{name}.png" for name in names]
    return [
        f"![{name.replace('_', ' ').capitalize()}]({path})"
        for name, path in zip(names, paths, strict=True)
        if (run.folder / path).is_file()
    ]
