"""The ``minilm`` command: one short function per verb, which calls the modules that do the work.

Exit status: 0 success; 1 an error that the user can fix, in one line; 2 a wrong command line; 128 + n: stopped by
signal n.

Modules that import torch are imported inside the verbs, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from minilm.answer_verbs import (
    evaluate_command,
    explain_command,
    predict_command,
    serve_command,
    zero_shot_command,
)
from minilm.errors import UserError
from minilm.terminal import printable
from minilm.verbs import DEVICE, NAME, PLACE, Verbs, example, part_of

RUNS = click.option(
    "--runs", type=PLACE, default=Path("runs"), show_default=True, help="Folder of all runs."
)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="minilm")
def main() -> None:
    """Text classification with transformers, from first principles."""


CHANGES = click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...")
METHOD = click.option("--method", default="", help="What trains: full, head, last3 (any number) or lora.")
RESUME = click.option("--resume", is_flag=True, help="Resume the last run of this name.")


@main.command("init", epilog=example("minilm init reviews.csv"))
@click.argument("file", type=PLACE)
@click.option("-o", "--out", type=PLACE, help="The config to write.  [default: FILE with the ending .toml, here]")
@click.option("--model", default="minilm", show_default=True, help="A model with a recipe (`minilm recipes`).")
@click.option("--text", default="", help="The column with the texts.  [default: guessed]")
@click.option("--label", default="", help="The column with the labels.  [default: guessed]")
def init_command(file: Path, out: Path | None, model: str, text: str, label: str) -> None:
    """Write a commented config (TOML) for training on a FILE of labelled texts, and show the command that trains.

    The columns and labels are guessed from the file, and the guesses are shown. An existing config is never replaced.
    """
    from minilm.runs.first_config import describe_look, look_at, next_commands, write_config

    out = out or Path(file.name.partition(".")[0] + ".toml")
    look = look_at(file, text, label)
    write_config(look, out, model)
    click.echo("\n".join([*map(printable, describe_look(look)), f"{out}: written; to train:"]))
    click.echo("\n".join(f"  {command}" for command in next_commands(out, model)))


@main.command("train", epilog=example("minilm train scratch_sample train.lr=5e-4 seed=2"))
@click.argument("config", type=NAME)
@CHANGES
@METHOD
@RESUME
@RUNS
def train_command(config: str, changes: tuple[str, ...], method: str, resume: bool, runs: Path) -> None:
    """Train as CONFIG (a TOML file, or the name of a recipe) describes, with changes of single keys.

    The results are in a folder under runs/. With a section [zero_shot] instead of [train], the model classifies without
    training. `minilm recipes` lists the recipes; docs/config.md describes every key.
    """
    from minilm.recipes import find_recipe
    from minilm.runs.finetune import method_changes

    _train(find_recipe(config), (*method_changes(method), *changes), runs=runs, resume=resume)


@main.command("finetune", epilog=example("minilm finetune distilbert --data reviews.csv --method lora train.epochs=5"))
@click.argument("model", type=NAME, default="minilm")
@CHANGES
@click.option("--data", default="", help='A file, a folder, a name in `minilm data`, or "sample" (a small data set).')
@METHOD
@RESUME
@RUNS
def finetune_command(
    model: str, changes: tuple[str, ...], data: str, method: str, resume: bool, runs: Path
) -> None:
    """Fine-tune a MODEL with its recipe, on the recipe's data or on other data.

    Other data are used completely and without the recipe's cleaning. `minilm recipes` lists the models with a recipe.
    """
    from minilm.runs.finetune import changes_of, fetch_packaged, for_pairs, recipe_of

    if "=" in model:  # the first change; no model was named
        model, changes = "minilm", (model, *changes)
    recipe = recipe_of(model)
    made = for_pairs(recipe, (*changes_of(recipe, data, method), *changes))
    fetch_packaged(recipe, made)
    _train(recipe, made, runs=runs, resume=resume)


def _train(config: Path, changes: Sequence[str], *, runs: Path, resume: bool) -> None:
    """Train, and print the results."""
    from minilm.reporting.record import prediction_command, read_run, resume_command
    from minilm.reporting.report import adaptation_table, results_table
    from minilm.runs.train import train_run
    from minilm.training.console import Interrupted
    from minilm.world import is_first, joined

    try:
        with joined():
            folder = train_run(config, changes, runs=runs, resume=resume)
            if not is_first():
                return
    except Interrupted as stop:
        click.echo(f"{stop}: the state is saved; resume with: {resume_command(stop.folder)}", err=True)
        sys.exit(128 + stop.number)
    run = read_run(folder)
    adaptation = run.results.adaptation
    if adaptation is not None:
        click.echo(adaptation_table(adaptation))
    if not run.only_adapted:
        click.echo(("\n" if adaptation is not None else "") + results_table(run.results))
    click.echo(f"\nReport:   {folder / 'report.html'}")
    for picture in sorted((folder / "figures").glob("*.png")):
        click.echo(f"Picture:  {picture}")
    if run.results.best is not None or run.results.zero_shot is not None:
        click.echo(f"Try it:   {prediction_command(run)}")
    if adaptation is not None:
        click.echo(f"Adapted:  {folder / 'adapted'} (model.source of a later run)")


@main.command("recipes", epilog=example("minilm recipes"))
def recipes_command() -> None:
    """List the recipes and studies that come with minilm."""
    from minilm.recipes import listing

    rows = listing()
    width = max(len(command) for command, _ in rows)
    click.echo("\n".join(f"{command:<{width}}  {about}" for command, about in rows))


main.add_command(evaluate_command)
main.add_command(predict_command)
main.add_command(explain_command)
main.add_command(serve_command)
main.add_command(zero_shot_command)


@main.command("export", epilog=example("minilm export runs/finetune-distilbert distilbert-news --merge"))
@click.argument("run", type=NAME)
@click.argument("folder", type=PLACE)
@click.option("--merge", is_flag=True, help="Merge an adapter with its base into one model.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="The dtype of the weights.")
@click.option("--onnx", is_flag=True, help="Save a classifier as an ONNX graph too, for other runtimes.")
@click.option("--int8", is_flag=True, help="With --onnx: also with 8-bit integers, a quarter of the size.")
@click.option("--linear", is_flag=True, help="Save the run's linear baseline instead, for `minilm predict`.")
def export_command(
    run: str, folder: Path, merge: bool, dtype: str | None, onnx: bool, int8: bool, linear: bool
) -> None:
    """Save the model of a RUN in a FOLDER that `transformers` (for an adapter PEFT) can load, with a model card.

    The mlp head is minilm's own, and other libraries cannot use it; they can use a head with model.head.kind=family.
    The ONNX graph has either head. It is compared with the model, and with --int8 measured on the validation texts.
    """
    from minilm.hints import program, quoted
    from minilm.runs.export import export_linear, export_run

    if linear and (merge or dtype is not None or onnx or int8):
        raise UserError("--linear cannot be combined with options for the run's model, such as --merge or --dtype")
    if linear:
        written = export_linear(Path(run), folder)
        click.echo(f'{written}: written; try it: {program()} predict {quoted(str(folder))} "some text"')
        return
    click.echo(f"{export_run(run, folder, merged=merge, dtype=dtype, onnx=onnx, int8=int8)}: written")


@main.command("push", epilog=example("minilm push runs/finetune-distilbert me/news"))
@click.argument("run", type=NAME)
@click.argument("name", type=NAME, metavar="OWNER/NAME")
@click.option("--merge", is_flag=True, help="Merge an adapter with its base into one model.")
@click.option("--public", is_flag=True, help="Make the repository public, after a question.  [default: private]")
@click.option("--yes", is_flag=True, help="Answer the question with yes.")
def push_command(run: str, name: str, merge: bool, public: bool, yes: bool) -> None:
    """Upload the model of a RUN, or a folder that `minilm export` wrote, to the Hub, with a model card."""
    from minilm.runs.push import push_run

    def confirm(what: str) -> bool:
        try:
            return click.confirm(f"{what}. Upload it?", err=True)
        except click.Abort:  # there is nobody to answer
            return False

    click.echo(f"{push_run(run, name, public=public, merged=merge, confirm=None if yes else confirm)}: uploaded")


@main.command("info", epilog=example("minilm info distilbert lora.rank=8 train.batch_size=32"))
@click.argument("model", type=NAME)
@CHANGES
def info_command(model: str, changes: tuple[str, ...]) -> None:
    """Show the layers of a MODEL, its size, and the memory of a training step.

    MODEL is a config or a study (TOML), a run, a folder, a catalogue name or a Hub id, of which only config.json is
    downloaded.
    """
    from minilm.studies.sizes import describe

    click.echo(describe(model, changes))


@main.command("study", epilog=example("minilm study medical data.sample=true axes.seed=[1]"))
@click.argument("config", type=NAME)
@CHANGES
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at the same time.")
@click.option("--shard", default="1/1", help="One of several parts, such as 1/2, for several machines.")
@click.option("--dry-run", is_flag=True, help="Only list the runs, their time and disk space, and which would fail.")
@RUNS
def study_command(config: str, changes: tuple[str, ...], jobs: int, shard: str, dry_run: bool, runs: Path) -> None:
    """Train all runs of a study (CONFIG, a TOML file or a study's name) and write the page that answers its question.

    The same command resumes the study and keeps finished runs. Changes apply to every run, or to the study's own keys.
    Results do not depend on --jobs, as each run has train.threads CPU threads (by default one). Other data than a
    study's own (data.source=...) are used completely and without its cleaning. `minilm recipes` lists the studies.
    """
    from minilm.recipes import find_study
    from minilm.studies.checks import check_study
    from minilm.studies.engine import describe_outcome, plan_table, run_study, shard_of
    from minilm.studies.other_data import load_with_data
    from minilm.studies.preview import describe_preview, preview_study
    from minilm.training.console import Interrupted

    part, parts = part_of(shard)
    study = load_with_data(find_study(config), changes, runs=runs)
    if dry_run:
        check_study(study)
        mine = shard_of(study, part, parts)
        click.echo(plan_table(study, mine))
        preview = preview_study(study, mine, jobs)
        click.echo("\n" + "\n".join(describe_preview(preview)))
        sys.exit(1 if preview.failing else 0)
    try:
        outcome = run_study(study, jobs=jobs, shard=(part, parts))
    except Interrupted as stop:
        click.echo(f"{stop}: the state is saved; run the same command to resume", err=True)
        sys.exit(128 + stop.number)
    click.echo("\n".join(describe_outcome(study, outcome)))
    if outcome.failed:
        sys.exit(1)


@main.command("compare", epilog=example("minilm compare runs/head-1 runs/head-2 runs/full-1 --html compare.html"))
@click.argument("runs", nargs=-1, required=True, type=PLACE)
@click.option("--markdown", is_flag=True, help="The tables as Markdown.")
@click.option("--html", type=PLACE, help="Write a page with tables, figures and tests, as one file.")
@click.option("--metric", default="", help="The metric of the page (--html).  [default: macro_f1]")
@click.option("--texts", type=PLACE, help="New texts, one per line or in a table, which each model classifies.")
def compare_command(
    runs: tuple[Path, ...], markdown: bool, html: Path | None, metric: str, texts: Path | None
) -> None:
    """Compare finished RUNS; those that differ only in their seed are one row."""
    if metric and html is None:
        raise UserError("--metric needs --html, as the tables always show all metrics")

    from minilm.atomic import atomic
    from minilm.reporting.compare import compare_html, compare_markdown, compare_text, load_groups

    groups, new_texts = load_groups(runs), []
    if texts is not None:
        from minilm.reporting.new_texts import answers_to_file

        new_texts = [answers_to_file(groups, texts)]
    if html is not None:
        page = compare_html(groups, metric, new_texts)
        with atomic(html) as file:
            file.write(page.encode())
    click.echo(compare_markdown(groups, new_texts) if markdown else compare_text(groups, new_texts))


@main.command("models", epilog=example("minilm models"))
def models_command() -> None:
    """List the models that have a short name, and which of them are on this machine."""
    from minilm.hub import list_models
    from minilm.reporting.tables import text_table

    rows = [
        [entry.name, entry.family, f"{entry.megabytes:,}", entry.licence, entry.repo_id, entry.here or "-"]
        for entry in list_models()
    ]
    rows = [[*row[:2], *row[3:], row[2]] for row in rows]
    click.echo(text_table(("name", "family", "licence", "from", "here", "MB"), rows, left=5))


@main.command("download", epilog=example("minilm download minilm"))
@click.argument("model", type=NAME)
@click.option("--revision", default="", help="A branch, tag or commit on the Hub.")
def download_command(model: str, revision: str) -> None:
    """Download a MODEL (a short name or a Hub id) to weights/."""
    from minilm.hub import download_model

    download_model(model, revision=revision)


@main.command("data", epilog=example("minilm data ag-news"))
@click.argument("name", type=NAME, required=False)
def data_command(name: str | None) -> None:
    """List the data sets that have a short name, or show the splits, columns, labels and licence of one."""
    from minilm.data.catalog import describe, listing

    click.echo(describe(name) if name else listing())


@main.command("generate", epilog=example('minilm generate gpt2 "Once upon a time" --temperature 0.8 --top-p 0.95'))
@click.argument("model", type=NAME)
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option("--max-new-tokens", default=100, show_default=True, help="The most new tokens per prompt.")
@click.option("--temperature", default=0.0, show_default=True, help="0: the most probable token; above 0: random.")
@click.option("--top-k", default=0, show_default=True, help="Sample from the k most probable tokens; 0: from all.")
@click.option("--top-p", default=1.0, show_default=True, help="Sample from tokens up to this total probability.")
@click.option("--repetition-penalty", default=1.0, show_default=True, help="Above 1: less repetition.")
@click.option("--seed", type=int, help="With a temperature: the same seed gives the same texts.  [default: random]")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), default="auto")
@DEVICE
def generate_command(
    model: str, prompts: tuple[str, ...], max_new_tokens: int, seed: int | None, dtype: str, device: str, **how: Any
) -> None:
    """Continue each PROMPT, or each line of standard input, with a language MODEL; T5 and BART generate an answer."""
    if not prompts and sys.stdin.isatty():
        raise UserError("nothing to continue: give prompts, or lines on standard input")
    from minilm import generation
    from minilm.sampling import Sampling
    from minilm.textfiles import read_lines

    sampling = Sampling(**how, seed=seed)
    if not (texts := list(prompts or read_lines(sys.stdin.buffer))):
        raise UserError("nothing to continue: standard input is empty")
    writer, tokenizer = generation.load_language_model(model, masked=False, device=device, dtype=dtype)
    shown = ["" if generation.has_encoder(writer) else text for text in texts]
    if len(texts) == 1:
        pieces = generation.stream_text(writer, tokenizer, texts[0], max_new_tokens, sampling)
        click.echo(printable(shown[0], keep="\n\t"), nl=False)
        for piece in pieces:
            click.echo(printable(piece, keep="\n\t"), nl=False)
        click.echo()
    else:
        written = generation.generate_text(writer, tokenizer, texts, max_new_tokens, sampling)
        click.echo("\n\n".join(printable(text + more, keep="\n\t") for text, more in zip(shown, written, strict=True)))


@main.command("fill", epilog=example('minilm fill bert "Paris is the [MASK] of France."'))
@click.argument("model", type=NAME)
@click.argument("text")
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Words for each mask.")
@DEVICE
def fill_command(model: str, text: str, top: int, device: str) -> None:
    """Show the most probable words at each mask of TEXT ([MASK] or <mask>), by a masked-language MODEL."""
    from minilm import generation

    reader, tokenizer = generation.load_language_model(model, masked=True, device=device)
    places = generation.fill(reader, tokenizer, text, top)
    click.echo("\n\n".join("\n".join(f"{p:.4f}  {printable(word)}" for word, p in words) for words in places))
