from __future__ import annotations

from pathlib import Path

from tests.tiny import minilm, write_config

ROOT = Path(__file__).parents[2]

STUDY = """
name = "sizes"
question = "Which is smaller?"
base = "tiny.toml"

[axes]
seed = [1, 2]

[[runs]]
name = "small"

[[runs]]
name = "wide"
changes = ["model.config.width=32", "train.batch_size=8"]

[[runs]]
name = "absent"
changes = ["model.architecture=", "model.config={}", "tokenizer.source=", "model.source=no/such", "train.lr=1e-4"]
"""


def test_of_a_study_each_size_is_one_row_and_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_config(tmp_path)
    (tmp_path / "sizes.toml").write_text(STUDY)
    shown = minilm("info", tmp_path / "sizes.toml", "train.epochs=1").stdout
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line[:1].isalpha()}
    assert rows["small"][1:4] == ["2", "8,930", "8,930"] and int(rows["wide"][2].replace(",", "")) > 8930
    assert rows["absent"][2] == "-" and "absent: no/such" in shown


def test_a_run_that_starts_from_an_adapted_checkpoint_has_the_size_of_the_one_before(tmp_path: Path) -> None:
    model = ROOT / "tests" / "reference" / "bert-lm"
    changes = [f"model.source={model}", "data.sample=true", "data.max_tokens=16", "adapt.block=16"]
    shown = minilm("info", ROOT / "experiments" / "studies" / "medical.toml", *changes).stdout
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line[:1].strip()}
    assert list(rows)[1:] == ["head", "full", "adapt", "Memory"] and rows["adapt"][3] == "-"
    assert rows["full"][1] == "6"  # full, and adapted-full, which starts from another checkpoint of its size
