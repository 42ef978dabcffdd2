"""A dry run says what a study needs and which of its runs would fail, and trains nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from minilm.runs.check import ModelSize
from minilm.studies import preview
from minilm.studies.execution import RunNote, write_note
from minilm.studies.plan import load_study
from minilm.studies.preview import StudyPreview, describe_preview, preview_study
from tests.studies.test_engine import STUDY, write_study
from tests.studies.test_experiments import bert  # noqa: F401 (a fixture)
from tests.tiny import minilm, write_config, write_data

MODEL = "model.architecture=", "model.config={}", "tokenizer.source="


def frozen_study(folder: Path, model: Path, more: str = "") -> Path:
    """A study of a head, of the whole model, and of adapters."""
    write_config(folder)
    path = folder / "study.toml"
    text = f'name = "frozen"\nquestion = "How?"\nbase = "tiny.toml"\n{more}[axes]\nseed = [1, 2]\n'
    for name, changes in (("full", []), ("head", ["freeze.part=backbone"]), ("lora", ["lora.rank=2"])):
        text += f'[[runs]]\nname = "{name}"\nchanges = {[f"model.source={model}", *MODEL, *changes]}\n'
    path.write_text(text.replace("'", '"'))
    return path


def test_a_dry_run_lists_the_runs_and_what_they_need_and_does_nothing(tmp_path):
    path = write_study(tmp_path)
    result = minilm("study", path, "--runs", tmp_path / "runs", "--dry-run", "axes.seed=[7]")
    listed, _, rest = result.stdout.partition("\n\n")
    assert [line.split()[1] for line in listed.splitlines()[2:]] == ["low_seed-7", "high_seed-7"]
    runs, disk, time = rest.splitlines()
    assert runs == "Runs:  2 to run, 0 finished" and time == "Time:  unknown until the first run has finished"
    assert disk == "Disk:  2 MB for the runs, and less than 1 MB more while they train"
    assert result.exit_code == 0 and not (tmp_path / "runs").exists()


def test_what_would_fail_is_named_once_for_all_its_runs(tmp_path):
    text = STUDY.replace('["train.lr=1e-4"]', '["data.label=lable"]')
    text += '[[runs]]\nname = "lost"\nchanges = ["model.source=nobody/nothing", "model.architecture=", '
    text += '"model.config={}", "tokenizer.source="]\n'
    result = minilm("study", write_study(tmp_path, text), "--runs", tmp_path / "runs", "--dry-run")
    assert result.exit_code == 1 and not (tmp_path / "runs").exists()
    label, model = (line for line in result.stdout.splitlines() if line.startswith("Would fail: "))
    assert label.startswith("Would fail: low_seed-1, low_seed-2: ") and 'no column "lable"' in label
    assert model.startswith("Would fail: lost_seed-1, lost_seed-2: ") and "nobody/nothing" in model
    assert "high" not in label + model


def test_too_few_texts_to_adapt_to_are_found_before_anything_trains(tmp_path, bert):  # noqa: F811
    path = frozen_study(tmp_path, bert)
    changes = ["adapt.train.epochs=1", "adapt.train.lr=1e-3", "adapt.train.batch_size=500"]
    path.write_text(path.read_text().replace('"lora.rank=2"', ", ".join(f'"{change}"' for change in changes)))
    result = minilm("study", path, "--runs", tmp_path / "runs", "--dry-run")
    assert result.exit_code == 1 and "Would fail: lora_seed-1, lora_seed-2: " in result.stdout
    assert "fewer than one batch (adapt.train.batch_size = 500)" in result.stdout


def test_a_run_that_starts_from_what_another_adapts_is_checked_with_the_checkpoint_below(tmp_path, bert):  # noqa: F811
    path = frozen_study(tmp_path, bert)
    text = path.read_text() + '[[runs]]\nname = "adapted"\nafter = "full"\n'
    path.write_text(text + f"changes = {list(MODEL)}".replace("'", '"'))
    found = preview_study(study := load_study(path, runs=tmp_path / "runs"), study.runs)
    assert not found.failing and found.left == 8


def test_every_round_after_an_adapted_run_is_checked_with_the_checkpoint_below(tmp_path, monkeypatch):
    text = STUDY.partition("[[runs]]")[0].replace("[1, 2]", "[1]")
    changes = ["model.source=below", *MODEL, "adapt.train.epochs=1", "adapt.train.lr=1e-3", "adapt.train.batch_size=4"]
    text += f'[[runs]]\nname = "adapt"\nwithout = ["train"]\nchanges = {changes}\n'
    text += f'[[runs]]\nname = "full"\nafter = "adapt"\nchanges = {list(MODEL)}\n'
    text += '[active]\nrules = ["random"]\nlabels = [8, 16, 24]\n'
    study = load_study(write_study(tmp_path, text.replace("'", '"')), runs=tmp_path / "runs")
    sources = set()
    monkeypatch.setattr(preview, "check_run", lambda run, _: sources.add(run.model.source) or ModelSize(1, 1))
    assert preview_study(study, study.runs).left == 4 and sources == {"below"}


def test_a_pool_that_is_too_small_is_found_for_every_round(tmp_path):
    text = STUDY + '[active]\nrules = ["random"]\nlabels = [8, 500]\n'
    study = load_study(write_study(tmp_path, text), runs=tmp_path / "runs")
    found = preview_study(study, study.runs)
    assert set(found.failing) == {run.name for run in study.runs}
    assert "the pool has 48 rows, but the study would label 500" in next(iter(found.failing.values()))


def test_a_missing_word_list_or_model_of_an_augmentation_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    augment = '["augment.method=masked-words", "augment.model=nobody/nothing"]'
    study = load_study(write_study(tmp_path, STUDY.replace('["train.lr=1e-4"]', augment)), runs=tmp_path / "runs")
    found = preview_study(study, study.runs)
    assert set(found.failing) == {"low_seed-1", "low_seed-2"} and "[augment]: " in found.failing["low_seed-1"]


def test_disk_is_what_the_runs_keep(tmp_path, bert):  # noqa: F811
    path, megabyte = frozen_study(tmp_path, bert), 2**20
    sizes, kept = {}, {}
    for keep in ("all", "trained", "none"):
        study = load_study(path, (f"keep_model={keep}",), runs=tmp_path / "runs")
        found = preview_study(study, study.runs)
        sizes[keep], working = found.stored_bytes - 6 * megabyte, found.working_bytes
        kept[keep] = {run.keep_model for run in study.runs}
    full = 4 * sum(size.total for size in [_size(study, "full")]) * 2
    head, lora = (8 * _size(study, name).trained for name in ("head", "lora"))
    assert sizes == {"all": 2 * full + lora, "trained": full + head + lora, "none": 0}
    assert working == 4 * 4 * _size(study, "full").trained and kept["none"] == {"none"}


def _size(study, name: str) -> ModelSize:
    run = next(run for run in study.runs if run.variant == name)
    return preview.check_run(run.config)


def test_time_is_that_of_the_finished_runs_in_as_many_processes(tmp_path, monkeypatch):
    study = load_study(write_study(tmp_path), runs=tmp_path / "runs")
    monkeypatch.setattr(preview, "state_of", lambda folder, run: "finished" if "low" in run.name else "to do")
    monkeypatch.setattr(preview, "check_run", lambda *given: ModelSize(10**9, 10**8))
    for run, seconds in zip(study.runs, (10, 30), strict=False):
        write_note(study.folder, run, RunNote(seconds=seconds))
    assert preview_study(study, study.runs).seconds == 2 * 20
    assert preview_study(study, study.runs, jobs=2).seconds == 20
    assert preview_study(study, study.runs, jobs=2).working_bytes == 2 * 16 * 10**8


@pytest.mark.parametrize(
    ("number", "text"), [(0, "less than 1 MB"), (1e6, "1 MB"), (723e6, "723 MB"), (999e6, "999 MB"), (1e9, "1.0 GB")]
)
def test_bytes_are_readable(number, text):
    lines = describe_preview(StudyPreview(1, 0, {}, number, number, 60.0))
    assert lines[1:] == [
        f"Disk:  {text} for the runs, and {text} more while they train",
        "Time:  about 1 min 00 s, at the rate of the finished runs",
    ]
    assert describe_preview(replace(StudyPreview(0, 3, {}, 0, 0, 0.0), left=0)) == ["Runs:  0 to run, 3 finished"]


def test_other_data_are_checked_by_themselves(tmp_path):
    write_data(tmp_path / "empty.tsv", [("one", "good"), ("two", "bad")])
    text = STUDY.replace('["train.lr=1e-4"]', f'["data.source={tmp_path / "empty.tsv"}"]')
    study = load_study(write_study(tmp_path, text), runs=tmp_path / "runs")
    assert set(preview_study(study, study.runs).failing) == {"low_seed-1", "low_seed-2"}
