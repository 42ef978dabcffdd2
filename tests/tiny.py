"""Runs small enough for tests: a GPT-2 of width 16 on 60 short texts, a second or so from start to end."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from click.testing import CliRunner, Result

from minilm.cli import main
from minilm.training.loop import _Loop

GOOD, BAD = ("good", "fine", "great", "lovely"), ("bad", "poor", "awful", "dull")
OTHER = ("film", "book", "song", "day", "really", "quite", "it", "was", "this")

CONFIG = """
name = "tiny"

[model]
architecture = "gpt2"

[model.config]
context = 32
width = 16
depth = 1
heads = 2
dropout = 0.2
attention_dropout = 0.2

[tokenizer]
source = "bpe"
vocab_size = 300

[data]
source = "{data}"
max_tokens = 32

[train]
epochs = 3
batch_size = 4
lr = 1e-2
accumulate = 2
evaluate_every = 4
checkpoint_minutes = 0
threads = 1
precision = "float32"
"""


def texts(number: int = 60, seed: int = 0) -> list[tuple[str, str]]:
    """Texts with a label, "good" or "bad", that one of their words gives away."""
    chance = random.Random(seed)
    rows = []
    for i in range(number):
        words = chance.choices(OTHER, k=chance.randint(2, 7))
        words[chance.randrange(len(words))] = chance.choice(BAD if i % 2 else GOOD)
        rows.append((f"{' '.join(words)} {i}", "bad" if i % 2 else "good"))
    return rows


def write_data(path: Path, rows: list[tuple[str, str]] | None = None) -> Path:
    """A TSV file of labelled texts."""
    lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in rows or texts())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_config(folder: Path, extra: str = "", rows: list[tuple[str, str]] | None = None) -> Path:
    """A config and its data in a folder; ``extra`` is more TOML, after the [train] section."""
    data = write_data(folder / "texts.tsv", rows)
    path = folder / "tiny.toml"
    path.write_text(CONFIG.format(data=data) + extra, encoding="utf-8")
    return path


@contextlib.contextmanager
def no_pictures() -> Iterator[None]:
    """Runs draw nothing: drawing takes most of their time."""
    drawn = ("learning_curves", "length_distribution", "class_distribution", "draw_confusion", "draw_confidence")
    drawn = (*drawn, "label_scores", "given_together", "explain_samples")
    names = (*(f"conclude.{name}" for name in drawn), "zero_shot.draw_confusion")
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch(f"minilm.runs.{name}"))
        yield


def minilm(*arguments: object, stdin: str | bytes | None = None, pictures: bool = False) -> Result:
    """The command in this process. A traceback fails the test; whatever else comes out is the test's business."""
    with contextlib.nullcontext() if pictures else no_pictures():
        result = CliRunner().invoke(main, [str(a) for a in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(*arguments: object, stdin: str | bytes | None = None) -> str:
    """What the command says in one line, its last, where it refuses to work."""
    result = minilm(*arguments, stdin=stdin)
    assert result.exit_code in (1, 2), result.output
    *before, last = result.stderr.strip().splitlines()
    assert last.startswith("Error: ") and not any(line.startswith("Error: ") for line in before), result.stderr
    return last


@contextlib.contextmanager
def at_step(number: int, action: Callable[[], object]) -> Iterator[None]:
    """Something happens in this step of training; the first is 1."""
    calls, step = [], _Loop._step

    def disturbed(self: _Loop, epoch: int, batches: Any) -> None:
        calls.append(batches)
        if len(calls) == number:
            action()
        step(self, epoch, batches)

    with mock.patch.object(_Loop, "_step", disturbed):
        yield


@functools.cache
def finished_run() -> Path:
    """The folder of a run that has finished, to be read only; one for all tests of a process."""
    folder = Path(tempfile.mkdtemp(prefix="minilm-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    result = minilm("train", write_config(folder), "--runs", folder / "runs")
    assert result.exit_code == 0, result.output
    return folder / "runs" / "tiny"


def outcome(run: Path) -> dict[str, Any]:
    """All that two equal runs must have in common, bit for bit: weights, evaluations, results; without times."""
    timed = {"seconds", "tokens_per_second", "times", "baselines", "name"}
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    results = json.loads((run / "results.json").read_text())
    return {
        "weights": {path.name: path.read_bytes() for path in (run / "model").iterdir()},
        "history": [{key: value for key, value in entry.items() if key not in timed} for entry in history],
        "results": {key: value for key, value in results.items() if key not in timed},
    }
