"""The verbs that use a finished classifier: ``evaluate``, ``predict``, ``explain``, ``serve`` and ``zero-shot``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from minilm.config import SPLITS
from minilm.errors import UserError
from minilm.terminal import printable
from minilm.verbs import DEVICE, NAME, PLACE, Verb, example, part_of

PRECISION = click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    help="The precision of the computation.  [default: as in training]",
)
RAW = click.option("--raw", is_flag=True, help="Probabilities without the temperature that was fitted on validation.")
THRESHOLD = click.option(
    "--threshold", type=float, help="The probability from which a label is given (several labels, or two classes)."
)
UNSURE_BELOW = click.option(
    "--unsure-below", type=float, help='One label per text: answer "unsure" below this probability.'
)
MIN_PRECISION = click.option(
    "--min-precision", type=float, help="Answer from the lowest probability that has this precision on validation."
)
COLUMN = click.option("--column", default="", help="The column of the texts in a table.  [default: the run's, or text]")


@click.command("evaluate", cls=Verb, epilog=example("minilm evaluate runs/scratch-sample --file more.csv"))
@click.argument("runs", type=NAME, nargs=-1, required=True, metavar="RUN... [KEY=VALUE]...")
@click.option("--split", type=click.Choice(SPLITS), help="A split of the run's data.  [default: test]")
@click.option("--file", type=PLACE, help="A file of labelled texts, with the columns of the run.")
@click.option("--json", "as_json", is_flag=True, help="All metrics as JSON.")
@RAW
@THRESHOLD
@PRECISION
@DEVICE
def evaluate_command(
    runs: tuple[str, ...],
    split: str | None,
    file: Path | None,
    as_json: bool,
    raw: bool,
    threshold: float | None,
    precision: str | None,
    device: str,
) -> None:
    """Evaluate a finished RUN again, on a split of its data or on a file; several runs are evaluated as an ensemble.

    Any other classifier (a folder, a catalogue name or a Hub id) is evaluated on a file, whose labels are matched with
    the model's by name or number. Changes such as data.label=stars set the file's columns.
    """
    if split is not None and file is not None:
        raise UserError("give either --split (of the run's data) or --file (all rows are used), not both")

    from minilm.evaluation.wishes import Wishes
    from minilm.runs.evaluate import evaluate_runs, evaluation_text
    from minilm.schema import as_table

    models = [run for run in runs if "=" not in run]
    changes = [run for run in runs if "=" in run]
    if not models:
        raise UserError("give a run or a model to evaluate")
    metrics, labels = evaluate_runs(models, split, file, device, precision or "", Wishes(raw, threshold), changes)
    click.echo(json.dumps({"labels": labels, **as_table(metrics)}) if as_json else evaluation_text(metrics, labels))


@click.command("predict", cls=Verb, epilog=example('minilm predict runs/scratch-sample "ale sztos" "no dramat"'))
@click.argument("run", type=NAME, metavar="RUN...")
@click.argument("texts", nargs=-1)
@click.option(
    "--file",
    type=PLACE,
    help="A table (.csv, .tsv, .jsonl, .parquet) with the run's columns, or a file with one text (or pair) per line.",
)
@COLUMN
@click.option("--out", type=PLACE, help="The table to write, with all columns: .csv, .jsonl, ...")
@click.option(
    "--format", "form", type=click.Choice(["csv", "jsonl", "tsv"]), help="A table on standard input and output."
)
@click.option("--all", "everything", is_flag=True, help="Add a column with the probability of each label.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, with the scores of all labels.")
@RAW
@THRESHOLD
@UNSURE_BELOW
@MIN_PRECISION
@click.option("--strict", is_flag=True, help="Stop at the first row of a table that cannot be classified.")
@click.option("--resume", is_flag=True, help="Continue an interrupted --out.")
@click.option("--overwrite", is_flag=True, help="Replace an existing --out.")
@click.option("--shard", default="1/1", help="One of several parts of the rows, such as 1/2, for several machines.")
@click.option("--spreadsheet-safe", is_flag=True, help="Write no cell that a spreadsheet would run as a formula.")
@PRECISION
@DEVICE
def predict_command(
    run: str,
    texts: tuple[str, ...],
    file: Path | None,
    column: str,
    out: Path | None,
    form: str | None,
    everything: bool,
    as_json: bool,
    raw: bool,
    threshold: float | None,
    unsure_below: float | None,
    min_precision: float | None,
    strict: bool,
    resume: bool,
    overwrite: bool,
    shard: str,
    spreadsheet_safe: bool,
    precision: str | None,
    device: str,
) -> None:
    """Classify TEXTS, the texts of a file, or the lines of standard input, with a RUN, a folder or a checkpoint.

    Several runs are combined by the mean of their probabilities. With --out (or --format), a table is written with the
    columns of the input and the predictions.
    """
    from minilm.runs.ask import split_runs

    runs, texts = split_runs(run, texts)
    _check_source(texts, file)
    as_table = out is not None or form is not None
    only_tables = {
        "--all": everything, "--strict": strict, "--resume": resume, "--overwrite": overwrite,
        "--spreadsheet-safe": spreadsheet_safe, "--shard": shard != "1/1",
    }  # fmt: skip
    if not as_table and (option := next((name for name, given in only_tables.items() if given), "")):
        raise UserError(f"{option} needs an output table: give --out FILE or --format")
    if as_table and (texts or as_json):
        raise UserError("--out and --format need a table as input: give --file instead of texts, and no --json")

    from minilm.evaluation.ensemble import load_predictor
    from minilm.evaluation.wishes import Wishes, apply_wishes
    from minilm.runs.ask import answer_lines
    from minilm.runs.predict import TableJob, predict_file
    from minilm.training.console import say, terminable

    wishes = Wishes(raw, threshold, unsure_below, min_precision)
    predictor = load_predictor(runs, device, precision or "")
    for line in apply_wishes(predictor, wishes):
        say(line)
    if as_table:
        job = TableJob(
            file or Path("-"), out, column, form or "", everything, strict, resume, overwrite, part_of(shard),
            safe=spreadsheet_safe,
        )  # fmt: skip
        with terminable():
            predict_file(predictor, Path(runs[0]), job)
        return
    for text, answer in answer_lines(predictor, runs[0], texts, file, column):
        _show(text, str(answer), answer.as_json(), as_json)
    if message := predictor.cut_message():
        say(message)


def _show(text: str, answer: str, scores: dict[str, Any], as_json: bool) -> None:
    """Print one answer on a line, as text or as a JSON object."""
    if as_json:
        click.echo(json.dumps({"text": text, **scores}, ensure_ascii=False))
    else:
        click.echo(printable(f"{answer}\t{text}", keep="\t"))  # a pair has a tab between its texts


@click.command("explain", cls=Verb, epilog=example('minilm explain runs/scratch-sample "ale sztos"'))
@click.argument("run", type=NAME)
@click.argument("texts", nargs=-1)
@click.option("--label", default="", help="Explain the score of this label.  [default: the predicted label]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, with the numbers of all words.")
@DEVICE
def explain_command(run: str, texts: tuple[str, ...], label: str, as_json: bool, device: str) -> None:
    """Show how much each word of TEXTS contributes to the prediction of a RUN, a folder or a checkpoint.

    Without texts, the sample texts of the run's report are explained, and the report shows the result. Write a tab
    between the two texts of a pair.
    """
    if not run.strip() or any(not text.strip() for text in texts):
        raise UserError("a text is empty; give texts to explain, or none to explain the report's sample texts")
    from minilm.reporting.explanations import explanation_text
    from minilm.runs.explain import explain_texts
    from minilm.schema import as_table

    for number, found in enumerate(explain_texts(run, texts, label, device)):
        if as_json:
            click.echo(json.dumps(as_table(found), ensure_ascii=False))
        else:
            click.echo(("\n\n" if number else "") + explanation_text(found))


def _check_source(texts: Sequence[str], file: Path | None) -> None:
    """Raise UserError unless texts come from the command line, a file, or lines on standard input."""
    if texts and file:
        raise UserError("give texts or --file, not both")
    if file is not None and str(file) != "-" and not file.is_file():
        raise UserError(f"--file: {file}: {'is a folder; give a file in it' if file.is_dir() else 'no such file'}")
    if not texts and file is None and sys.stdin.isatty():
        raise UserError("nothing to classify: give texts, --file FILE, or lines on standard input")


@click.command("serve", cls=Verb, epilog=example("minilm serve runs/scratch-sample --port 8080"))
@click.argument("runs", type=NAME, nargs=-1, required=True, metavar="RUN...")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0: all of them.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True,
    help="The port to listen on. With 0, any free port is used.",
)  # fmt: skip
@click.option("--queue", type=click.IntRange(min=1), default=1024, show_default=True, help="The most texts that wait.")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True, help="The most texts in a batch.")
@click.option("--max-mb", type=click.IntRange(min=1), default=16, show_default=True, help="The largest body, in MiB.")
@click.option(
    "--max-characters", type=click.IntRange(min=1), default=100_000, show_default=True,
    help="The most characters of a text. Longer texts are refused.",
)  # fmt: skip
@RAW
@THRESHOLD
@UNSURE_BELOW
@MIN_PRECISION
@PRECISION
@DEVICE
def serve_command(
    runs: tuple[str, ...],
    host: str,
    port: int,
    queue: int,
    batch: int,
    max_mb: int,
    max_characters: int,
    raw: bool,
    threshold: float | None,
    unsure_below: float | None,
    min_precision: float | None,
    precision: str | None,
    device: str,
) -> None:
    """Answer requests over HTTP with a RUN, a folder or a checkpoint, and show a page on which to try it.

    POST /predict has the form of the Hub's API for text classification; docs/serving.md describes it. Several runs are
    combined by the mean of their probabilities. SIGTERM ends the server when all requests are answered.
    """
    from minilm.serving import check_installed

    check_installed()
    from minilm.evaluation.ensemble import load_predictor
    from minilm.evaluation.wishes import Wishes, apply_wishes
    from minilm.serving.api import Limits
    from minilm.serving.app import Service
    from minilm.serving.guarding import is_loopback
    from minilm.serving.server import address_of, listen, run_server
    from minilm.training.console import say

    predictor = load_predictor(runs, device, precision or "")
    for line in apply_wishes(predictor, Wishes(raw, threshold, unsure_below, min_precision)):
        say(line)
    listener = listen(host, port)
    limits = Limits(max_mb * 2**20, max_characters, min(queue, Limits.texts))
    service = Service(predictor, Path(runs[0]), limits=limits, batch=batch, room=queue)
    say(f"{predictor.name}: listens on {address_of(listener)}; Ctrl-C ends it")
    if not is_loopback(listener.getsockname()[0]):
        say("everybody who reaches this address can use the model: there is no password")
    run_server(service.app(listener.getsockname()[0]), listener)


@click.command("zero-shot", cls=Verb, epilog=example('minilm zero-shot minilm "it rained" --labels "sports,weather"'))
@click.argument("model")
@click.argument("texts", nargs=-1)
@click.option("--labels", required=True, help='The labels, such as "sports,politics".')
@click.option("--method", default="", help="entailment, likelihood, cloze or similarity.  [default: by the model]")
@click.option("--pattern", default="", help='The prompt or the hypothesis, such as "This text is about {label}.".')
@click.option("--several", is_flag=True, help="A text may get several labels (entailment).")
@click.option("--file", type=click.Path(path_type=Path), help="A table, or a file with one text per line.")
@COLUMN
@click.option("--out", type=click.Path(path_type=Path), help="A table to write, with all columns: .csv, .jsonl, ...")
@click.option("--all", "everything", is_flag=True, help="Add a column with the probability of each label.")
@click.option("--overwrite", is_flag=True, help="Replace an existing --out.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, with the scores of all labels.")
@DEVICE
def zero_shot_command(
    model: str,
    texts: tuple[str, ...],
    labels: str,
    method: str,
    pattern: str,
    several: bool,
    file: Path | None,
    column: str,
    out: Path | None,
    everything: bool,
    overwrite: bool,
    as_json: bool,
    device: str,
) -> None:
    """Classify TEXTS, the texts of a file, or the lines of standard input, with labels that a MODEL was not trained on.

    A model of natural language inference predicts whether a text entails a label; a language model predicts the most
    probable label; a sentence model finds the most similar label. No labelled texts are needed, so quality is unknown.
    """
    _check_source(texts, file)
    if out is not None and (file is None or as_json):
        raise UserError("--out needs a table as input (--file), and no --json")
    only_tables = {"--all": everything, "--overwrite": overwrite}
    if out is None and (option := next((name for name, given in only_tables.items() if given), "")):
        raise UserError(f"{option} needs an output table: give --out FILE")

    from minilm.evaluation.zero_shot_model import zero_shot_predictor
    from minilm.runs.ask import answer_lines
    from minilm.runs.predict import TableJob, predict_file
    from minilm.training.console import terminable

    predictor = zero_shot_predictor(
        model, labels.split(","), method=method, pattern=pattern, several=several, device=device
    )
    if out is not None and file is not None:
        job = TableJob(file, out, column, everything=everything, overwrite=overwrite)
        with terminable():
            predict_file(predictor, Path(model), job)
        return
    for text, answer in answer_lines(predictor, model, texts, file, column):
        _show(text, str(answer), answer.as_json(), as_json)
