"""Every study of the project runs from end to end at a tiny size: embedded samples, tiny checkpoints, no network."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch

from minilm.checkpoints.configs import from_plain
from minilm.checkpoints.models import new_model, save_model
from minilm.config import FamilyHeadSection, SimilaritySection
from minilm.data.sources import load_dataset
from minilm.data.tokenization import train_bpe
from minilm.models import ARCHITECTURES
from minilm.schema import write_table
from minilm.studies.plan import load_study
from tests.data.loading import listed
from tests.tiny import minilm

STUDIES = Path(__file__).parents[2] / "experiments" / "studies"
COMPARED = [path for path in sorted(STUDIES.glob("*.toml")) if "analysis =" not in path.read_text()]
REFERENCE = Path(__file__).parents[1] / "reference"
SMALL = ("data.sample=true", "data.train_rows=48", "data.validation_rows=24", "data.test_rows=24")
SHORT = ("train.epochs=1", "axes.seed=[1]", "train.max_minutes=0", "train.evaluate_every=0", "train.cache_mib=1")
# What stands for a published checkpoint.
TINY = {
    "distilbert": "distilbert-classify",
    "albert": "albert-classify",
    "flan-t5": "t5-classify",
    "bielik": "llama-classify",
}
SCRATCH = [
    "tokenizer.source=bpe",
    "tokenizer.vocab_size=300",
    "model.config={ width=16, depth=1, heads=2, context=32 }",
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    """A BERT of width 12 with six layers, and a tokenizer with a mask token."""
    folder = tmp_path_factory.mktemp("bert")
    texts = load_dataset(listed("mrpc", sample=True)).train.texts
    tokenizer = train_bpe(texts, 300)
    tokenizer.add_special_tokens(["[MASK]"])
    torch.manual_seed(0)
    sizes = {"width": 12, "depth": 6, "heads": 2, "mlp_width": 16, "context": 130, "vocab_size": 304}
    model = new_model("bert", from_plain(ARCHITECTURES["bert"].config, sizes, "sizes"), "lm")
    return save_model(model, folder, tokenizer=tokenizer)


def tiny_study(path: Path, folder: Path, bert: Path) -> Path:
    """The study with tiny checkpoints in place of the published ones."""
    table = tomllib.loads(path.read_text())
    for variant, planned in {run.variant: run for run in reversed(load_study(path).runs)}.items():
        settings = next(settings for settings in table["runs"] if settings["name"] == variant)
        base = settings.get("base") or table["base"]
        if isinstance(base, str):
            settings["base"] = str(path.parent / base)
        source = planned.config.model.source
        model = REFERENCE / TINY[source] if source in TINY else bert
        settings.setdefault("changes", []).extend([f"model.source={model}"] if source else SCRATCH)
        if planned.config.freeze.part == "all-but-last":
            settings["changes"].append("freeze.layers=1")
    written = folder / path.name
    written.write_text(write_table(table))
    return written


@pytest.mark.parametrize("path", COMPARED, ids=lambda path: path.stem)
def test_every_study_runs_from_end_to_end(path, tmp_path, bert, monkeypatch):
    for name in ("bars", "curves"):
        monkeypatch.setattr(f"minilm.reporting.group_plots.{name}", lambda *arguments, **options: arguments[2])
    monkeypatch.setattr("minilm.studies.page_parts.dashboard", lambda *arguments, **options: arguments[2])
    monkeypatch.setattr("minilm.runs.conclude.time_inference", lambda classifier, rows: 1.0)
    monkeypatch.setattr("minilm.studies.study_page.html", lambda page: page.answer)
    adapts = ("adapt.train.epochs=1", "adapt.block=16") if "adapt." in path.read_text() else ()
    pairs = path.stem in ("medical", "mrpc_freezing")
    study = tiny_study(path, tmp_path, bert)
    result = minilm(
        "study", study, *SMALL, *SHORT, *adapts, f"data.max_tokens={120 if pairs else 20}", "--runs", tmp_path / "runs"
    )
    assert result.exit_code == 0, result.output
    planned = load_study(study, ("axes.seed=[1]",))
    folder = tmp_path / "runs" / planned.config.name
    for run in planned.runs:
        results = json.loads((folder / run.name / "results.json").read_text())
        assert planned.config.metric in results["test"] if run.config.train else results["adaptation"]["perplexity"]
    answer = (folder / "study.html").read_text()
    assert answer.count("over 24 test rows") == 2 or planned.config.metric == "jaccard"
    assert "one seed only" in answer
    assert planned.config.question in (folder / "study.md").read_text().replace("\\", "")


def test_a_change_of_one_word_is_for_the_runs_that_read_words():
    study = load_study(STUDIES / "zero_shot.toml", [*SMALL, "zero_shot.words.World=earth"])
    *prompts, similarity = (run.config.zero_shot for run in study.runs)
    assert isinstance(similarity, SimilaritySection) and {section.words["World"] for section in prompts} == {"earth"}


def test_a_choice_for_all_runs_wins_over_what_one_of_them_says_of_another():
    study = load_study(STUDIES / "zero_shot.toml", [*SMALL, "model.head.kind=family"])
    assert {run.config.model.head for run in study.runs} == {FamilyHeadSection()}
