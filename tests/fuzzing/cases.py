"""What is broken and then read: for each kind of file, a whole example, how it is broken, and who reads it.

A reader ends with a result or a UserError. ``Wrong`` says that it gave a result which another reader of the same file
does not give.
"""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner

from minilm.checkpoints.files import read_tensors
from minilm.checkpoints.opening import load_model
from minilm.cli import main
from minilm.config import DataSection
from minilm.data.sources import load_dataset
from minilm.data.tokenization import load_tokenizer
from minilm.errors import UserError
from minilm.loading import load_config
from minilm.models.batch import Batch
from minilm.reporting.record import read_run
from minilm.schema import as_table, flat
from minilm.studies.plan import load_study
from minilm.textfiles import read_json, read_toml
from tests.fuzzing.mutations import broken_bytes, broken_json, broken_lines, broken_safetensors, broken_toml
from tests.tiny import at_step, finished_run, no_pictures, texts, write_config

HERE = Path(__file__).parent
REFERENCE = HERE.parent / "reference"
EXPERIMENTS = HERE.parents[1] / "experiments"
CHECKPOINTS = sorted(path.parent for path in REFERENCE.glob("*/expected.safetensors"))


class Wrong(Exception):
    """A result that is not what the file says."""


@dataclass(frozen=True)
class Case:
    """One kind of file."""

    name: str
    weight: int  # how often it is drawn, beside the others
    make: Callable[[Path, random.Random], None]  # writes a whole example into an empty folder
    damage: Callable[[Path, random.Random], None]  # breaks it
    read: Callable[[Path, random.Random, bool], None]  # reads it; the last argument: compare with another reader


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def command(*arguments: object) -> str:
    """The command in this process: what it prints. Raises UserError for its one line, and whatever else escapes it."""
    with no_pictures():
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], input="")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code:
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1 and len(result.stderr) < 20_000, result.stderr
        raise UserError(errors[0])
    return str(result.stdout)


# --- Checkpoints, their configs, tokenizers, adapters ---


def make_checkpoint(folder: Path, rng: random.Random) -> None:
    for path in rng.choice(CHECKPOINTS).iterdir():
        shutil.copy(path, folder)


def damage_weights(folder: Path, rng: random.Random) -> None:
    paths = [*folder.glob("model*.safetensors"), *folder.glob("*.index.json")]
    path = rng.choice(sorted(paths))
    rewrite(path, lambda data: (broken_json if path.suffix == ".json" else broken_safetensors)(data, rng))


def damage_config(folder: Path, rng: random.Random) -> None:
    rewrite(folder / "config.json", lambda data: broken_json(data, rng))


def damage_tokenizer(folder: Path, rng: random.Random) -> None:
    rewrite(folder / "tokenizer.json", lambda data: broken_json(data, rng))


def read_checkpoint(folder: Path, rng: random.Random, compare: bool) -> None:
    """Open it and compute; the reference implementation must compute the same, if it opens the files."""
    expected = read_tensors(folder / "expected.safetensors")
    mask = torch.arange(expected["ids"].shape[1]) < expected["lengths"][:, None]
    batch = Batch(expected["ids"], mask, expected.get("segments"), decoder_ids=expected.get("decoder_ids"))
    model = load_model(folder, dtype=torch.float32)
    with torch.no_grad():
        try:
            output = model(batch)
        except (IndexError, RuntimeError) as error:  # fewer positions or tokens than the texts have
            if "out of range" in str(error) or "positions" in str(error):
                return
            raise
    if not compare:
        return
    from tests.fuzzing.reference import reference_output

    other = reference_output(folder, expected, mask)
    if other is None or other.shape != output.shape:
        return
    real = mask if output.dim() == 3 and batch.decoder_ids is None else ...
    if not torch.allclose(output[real], other[real], rtol=1e-3, atol=1e-4, equal_nan=True):
        raise Wrong(f"differs from the reference by {(output[real] - other[real]).abs().max():.3g}")


def read_tokenizer(folder: Path, rng: random.Random, compare: bool) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.encode("hot and cold", "mild")


def make_adapter(folder: Path, rng: random.Random) -> None:
    for path in (adapted_run() / "model").iterdir():
        shutil.copy(path, folder)


def damage_adapter(folder: Path, rng: random.Random) -> None:
    path = rng.choice([folder / "adapter_config.json", folder / "adapter_model.safetensors"])
    rewrite(path, lambda data: (broken_json if path.suffix == ".json" else broken_safetensors)(data, rng))


def read_adapter(folder: Path, rng: random.Random, compare: bool) -> None:
    model = load_model(folder)
    with torch.no_grad():
        model(torch.zeros(1, 3, dtype=torch.int64))


# --- TOML ---


def make_config(folder: Path, rng: random.Random) -> None:
    paths = [*EXPERIMENTS.glob("*.toml"), *EXPERIMENTS.glob("finetune/*.toml")]
    (folder / "config.toml").write_bytes(rng.choice(sorted(paths)).read_bytes())


def make_study(folder: Path, rng: random.Random) -> None:
    shutil.copytree(EXPERIMENTS, folder / "experiments")
    path = rng.choice(sorted((folder / "experiments" / "studies").glob("*.toml")))
    path.rename(path.with_name("study.toml"))


def damage_toml(folder: Path, rng: random.Random) -> None:
    path = next(folder.rglob("study.toml"), folder / "config.toml")
    table = read_toml(path)
    rewrite(path, lambda data: broken_toml(data, rng, table))


def read_toml_file(folder: Path, rng: random.Random, compare: bool) -> None:
    """Every key of the file has its value in the config."""
    path = folder / "config.toml"
    found, table = flat(as_table(load_config(path))), flat(read_toml(path))
    for key, value in table.items():
        value = found[key] if isinstance(value, int) and found.get(key) == float(value) else value  # 1e30 is no integer
        if isinstance(value, int | float | str) and found.get(key) != value and key != "data.split_seed":
            raise Wrong(f"{key} = {found.get(key)!r}, the file says {value!r}")


def read_study_file(folder: Path, rng: random.Random, compare: bool) -> None:
    load_study(folder / "experiments" / "studies" / "study.toml", runs=folder / "runs")


# --- Runs ---


def make_run(folder: Path, rng: random.Random) -> None:
    shutil.copytree(finished_run(), folder / "run")


RUN_FILES = ("config.toml", "environment.json", "results.json", "metrics.jsonl", "predictions.csv", "summary.txt")


def damage_run(folder: Path, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2))):
        _damage_file(folder / "run" / rng.choice((*RUN_FILES, "model/config.json", "model/model.safetensors")), rng)


def _damage_file(path: Path, rng: random.Random) -> None:
    if not path.exists():
        return
    if rng.random() < 0.1:
        path.unlink()
    elif path.suffix == ".json" and rng.random() < 0.8:
        rewrite(path, lambda data: broken_json(data, rng))
    elif path.suffix == ".toml" and rng.random() < 0.5:
        try:
            table = read_toml(path)
        except UserError:  # it was broken before
            table = {}
        rewrite(path, lambda data: broken_toml(data, rng, table))
    elif path.suffix == ".jsonl":
        rewrite(path, lambda data: broken_lines(data, rng, broken_json))
    elif path.suffix == ".csv":
        rewrite(path, lambda data: broken_lines(data, rng, broken_bytes))
    elif path.suffix == ".safetensors":
        rewrite(path, lambda data: broken_safetensors(data, rng))
    else:
        rewrite(path, lambda data: broken_bytes(data, rng))


def read_finished(folder: Path, rng: random.Random, compare: bool) -> None:
    """Every command that reads a run."""
    run = folder / "run"
    ways = (
        ("compare", run), ("compare", run, "--html", folder / "page.html"), ("compare", run, "--markdown"),
        ("predict", run, "it was good"), ("evaluate", run), ("export", run, folder / "exported"), ("info", run),
        ("train", run / "config.toml", "--resume", "--runs", folder),
    )  # fmt: skip
    refused: list[UserError] = []
    for way in ways:
        try:
            command(*way)
        except UserError as error:
            refused.append(error)
    try:
        found = as_table(read_run(run).results)
    except UserError:
        found = None
    if found is not None and flat(found) != flat(_without_null(read_json(run / "results.json"))):
        raise Wrong("results.json reads back otherwise")
    if refused:
        raise refused[0]


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(inner) for key, inner in value.items() if inner is not None}
    return [_without_null(inner) for inner in value] if isinstance(value, list) else value


def make_interrupted(folder: Path, rng: random.Random) -> None:
    shutil.copytree(interrupted_run(), folder / "run")


def damage_checkpoint(folder: Path, rng: random.Random) -> None:
    files = [path for path in sorted((folder / "run" / "checkpoints").rglob("*")) if path.is_file()]
    path = rng.choice([*files, *([path for path in files if path.name == "progress.json"] * 3)])
    _damage_file(path, rng)


def read_interrupted(folder: Path, rng: random.Random, compare: bool) -> None:
    command("train", folder / "run" / "config.toml", "--resume", "--runs", folder)


# --- Data ---


def make_data(ending: str) -> Callable[[Path, random.Random], None]:
    def make(folder: Path, rng: random.Random) -> None:
        rows = [{"id": i, "text": text, "label": label} for i, (text, label) in enumerate(texts(60))]
        rows[3]["text"], rows[4]["text"], rows[5]["text"] = 'a "quoted", text 3', "żółć\tand a tab 4", "two\nlines 5"
        path = folder / f"data.{ending}"
        if ending == "json":
            path.write_text(json.dumps(rows))
        elif ending == "jsonl":
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        elif ending == "parquet":
            _write_parquet(path, rows, rng)
        else:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), delimiter="," if ending == "csv" else "\t")
                writer.writeheader()
                writer.writerows(rows)

    return make


def _write_parquet(path: Path, rows: list[dict[str, Any]], rng: random.Random) -> None:
    """A table with a column of whatever Arrow has, which may be called "text" or "label"."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(rows)
    odd = [
        pa.array([i * 10**9 + 1 for i in range(60)], pa.timestamp("ns")), pa.array(range(60), pa.duration("ns")),
        pa.array([[{"a": i}] for i in range(60)]), pa.array([b"\xff"] * 60), pa.nulls(60), pa.array([0.5, None] * 30),
        pa.array([True, False] * 30), pa.array(range(60), pa.decimal128(20, 2)), pa.array([{"a": 1}] * 60),
        pa.array(["x", None] * 30).dictionary_encode(), pa.array(["x", "y"] * 30, pa.large_string()),
        pa.array(range(60), pa.time64("ns")), pa.array(range(60), pa.date32()), pa.array([1, 2] * 30, pa.uint64()),
    ]  # fmt: skip
    table = table.append_column(rng.choice(("odd", "text", "odd.text", "")), rng.choice(odd))
    if rng.random() < 0.3:
        table = table.set_column(2, "label", rng.choice(odd))
    pq.write_table(
        table, path, compression=rng.choice(("snappy", "zstd", "none")), use_dictionary=rng.random() < 0.5,
        row_group_size=rng.choice((7, 1000)),
    )  # fmt: skip


def damage_data(folder: Path, rng: random.Random) -> None:
    path = next(folder.glob("data.*"))
    if path.suffix in (".csv", ".tsv") and rng.random() < 0.5:
        rewrite(path, lambda data: broken_lines(data, rng, broken_bytes))
    elif path.suffix == ".jsonl" and rng.random() < 0.8:
        rewrite(path, lambda data: broken_lines(data, rng, broken_json))
    elif path.suffix == ".json" and rng.random() < 0.7:
        rewrite(path, lambda data: broken_json(data, rng))
    elif path.suffix != ".parquet" or rng.random() < 0.6:
        rewrite(path, lambda data: broken_bytes(data, rng))


def read_data(folder: Path, rng: random.Random, compare: bool) -> None:
    """Its texts, with their labels, are those that the format's usual reader finds."""
    path = next(folder.glob("data.*"))
    data = load_dataset(DataSection(source=str(path), empty=rng.choice(("error", "skip"))))  # type: ignore[arg-type]
    found = Counter(
        (text, data.label_names[label])
        for rows in (data.train, data.validation, data.test)
        for text, label in zip(rows.texts, rows.labels.tolist(), strict=True)
    )
    try:
        others = usual_rows(path)
    except Exception:
        return
    if any(not label for other in others for _, label in other):  # numbers and the like, which become names
        found, others = _texts(found), [_texts(other) for other in others]
    if others and not any(found == other for other in others):
        raise Wrong(f"the usual reader finds {[sorted((other - found).elements())[:3] for other in others]}")


def usual_rows(path: Path) -> list[Counter[tuple[str, str]]]:
    """The texts with their labels as csv, json or pyarrow read them; of CSV, with each delimiter."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        tables = [pq.read_table(path, columns=["text", "label"]).to_pylist()]
    elif path.suffix == ".json":
        rows = json.loads(path.read_text("utf-8-sig"))
        tables = [rows] if isinstance(rows, list) else []
    elif path.suffix == ".jsonl":
        tables = [[json.loads(line) for line in path.read_text("utf-8-sig").split("\n") if line.strip()]]
    else:
        content = path.read_bytes().decode("utf-8-sig")
        tables = [list(csv.DictReader(io.StringIO(content, ""), delimiter=mark)) for mark in ",\t;|"]
        tables += [list(csv.DictReader(content.split("\n"), delimiter=m, quoting=csv.QUOTE_NONE)) for m in ",\t;|"]
    tables = [[row for row in table if _clean(row.get("text")) and row.get("label") != ""] for table in tables]
    return [Counter((_clean(row["text"]), _label(row["label"])) for row in table) for table in tables if _whole(table)]


def _texts(rows: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    return Counter((text, "") for text, _ in rows.elements())


def _whole(table: list[dict[str, Any]]) -> bool:
    return bool(table) and all("label" in row for row in table)


def _clean(text: Any) -> str:
    return text.strip() if isinstance(text, str) else ""


def _label(label: Any) -> str:
    return label.strip() if isinstance(label, str) else ""


# --- The runs that are read ---


def adapted_run() -> Path:
    """A finished run that trained a LoRA adapter on a checkpoint."""
    folder = finished_run().parents[1] / "adapted"
    if not folder.exists():
        folder.mkdir()
        path = write_config(folder)
        text = path.read_text().partition("[data]")
        source = f'name = "tiny"\n[model]\nsource = "{REFERENCE / "bert-classify"}"\n[lora]\nrank = 2\n'
        path.write_text(source + text[1] + text[2].replace("max_tokens = 32", "max_tokens = 20"))
        command("train", path, "train.epochs=1", "--runs", folder / "runs")
    return folder / "runs" / "tiny"


def interrupted_run() -> Path:
    """A run that a signal stopped."""
    folder = finished_run().parents[1] / "interrupted"
    if not folder.exists():
        import os
        import signal

        with at_step(11, lambda: os.kill(os.getpid(), signal.SIGINT)), no_pictures():
            arguments = ["train", str(finished_run() / "config.toml"), "--runs", str(folder)]
            assert CliRunner().invoke(main, arguments).exit_code == 130
    return folder / "tiny"


CASES = (
    Case("checkpoint", 5, make_checkpoint, damage_weights, read_checkpoint),
    Case("config.json", 5, make_checkpoint, damage_config, read_checkpoint),
    Case("tokenizer.json", 2, make_checkpoint, damage_tokenizer, read_tokenizer),
    Case("adapter", 2, make_adapter, damage_adapter, read_adapter),
    Case("config.toml", 3, make_config, damage_toml, read_toml_file),
    Case("study.toml", 2, make_study, damage_toml, read_study_file),
    Case("finished run", 4, make_run, damage_run, read_finished),
    Case("interrupted run", 2, make_interrupted, damage_checkpoint, read_interrupted),
    *(
        Case(f"data.{ending}", 2, make_data(ending), damage_data, read_data)
        for ending in ("csv", "tsv", "jsonl", "json", "parquet")
    ),
)
