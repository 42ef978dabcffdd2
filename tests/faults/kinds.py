"""The kinds of runs, each once without faults: a model from scratch, LoRA, a frozen backbone, adaptation, a study."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tests.faults.running import Running
from tests.tiny import write_config

REFERENCE = Path(__file__).parents[1] / "reference"
KINDS = ("scratch", "LoRA", "frozen", "adaptation", "study")
STUDY = """
name = "tiny"
question = "Does a higher rate help?"
base = "config.toml"
[axes]
seed = [1, 2]
"""


@dataclass(frozen=True)
class Kind:
    """A run without faults, and how to start one like it."""

    name: str
    config: Path
    outcome: Any
    events: int
    seconds: float
    largest: int  # bytes of its largest file

    def command(self, runs: Path, *, resume: bool) -> list[str]:
        """What starts it, or resumes it."""
        if self.name == "study":
            return ["study", str(self.config), "--jobs", "2", "--runs", str(runs)]
        return ["train", str(self.config), "--runs", str(runs), *(["--resume"] if resume else [])]


def make_kind(name: str, folder: Path) -> Kind:
    """Run it once without faults."""
    folder.mkdir()
    config = write_config(folder)
    text, model = config.read_text(), f'[model]\nsource = "{REFERENCE / "bert-classify"}"\n'
    data = text[text.index("[data]") :].replace("max_tokens = 32", "max_tokens = 20")
    if name == "LoRA":
        text = f'name = "tiny"\n{model}[lora]\nrank = 2\ndropout = 0.1\n{data}'
    elif name == "frozen":
        text = f'name = "tiny"\n{model}[freeze]\npart = "backbone"\n{data}'
    elif name == "adaptation":
        text = f'name = "tiny"\n[model]\nsource = "{_masked_checkpoint(folder)}"\n{data}\n[adapt]\nblock = 16\n'
        text += "[adapt.train]\nepochs = 3\nlr = 1e-2\nbatch_size = 4\nevaluate_every = 5\ncheckpoint_minutes = 0\n"
    path = folder / "config.toml"
    path.write_text(text)
    if name == "study":
        path = folder / "study.toml"
        path.write_text(STUDY)
    kind = Kind(name, path, None, 0, 0.0, 0)
    attempt = Running(kind.command(folder / "runs", resume=False)).end()
    assert attempt.code == 0, attempt
    sizes = [file.stat().st_size for file in (folder / "runs").rglob("*") if file.is_file()]
    return Kind(name, path, outcome_of(folder / "runs"), attempt.events, attempt.seconds, max(sizes))


def _masked_checkpoint(folder: Path) -> Path:
    place = shutil.copytree(REFERENCE / "bert-lm", folder / "bert-lm", ignore=shutil.ignore_patterns("expected*"))
    tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
    tokenizer.add_special_tokens(["[MASK]"])
    tokenizer.save(str(place / "tokenizer.json"))
    return Path(place)


TIMED = {"seconds", "tokens_per_second", "times", "baselines", "name"}


def outcome_of(runs: Path) -> Any:
    """What equal runs have in common, and the names of all files: of a run, or of all runs of a study."""
    folder = runs / "tiny"
    found: dict[str, Any] = {"files": sorted(str(path.relative_to(runs)) for path in runs.rglob("*"))}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors" or path.name == "predictions.csv":
            found[name] = path.read_bytes()
        elif path.name == "results.json":
            found[name] = _untimed(json.loads(path.read_text()))
        elif path.name == "metrics.jsonl":
            found[name] = [_untimed(json.loads(line)) for line in path.read_text().splitlines()]
    return found


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(inner) for key, inner in value.items() if key not in TIMED}
    return value
