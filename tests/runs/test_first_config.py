"""``minilm init``: a config from a file, whose guesses are shown, that trains as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from minilm.data.sources import load_dataset
from minilm.loading import load_config
from minilm.recipes import fine_tuning
from tests.tiny import minilm, refused, texts


def reviews(path: Path, header: str = "id,review,stars", labels: list[str] | None = None) -> Path:
    rows = [
        f'{i},"{text}, really",{labels[i % len(labels)] if labels else label}' for i, (text, label) in
        enumerate(texts(60), 1)
    ]  # fmt: skip
    path.write_text("\n".join([*([header] if header else []), *rows]) + "\n")
    return path


def test_columns_and_labels_are_guessed_shown_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = minilm("init", reviews(tmp_path / "my reviews.csv"))
    assert shown.exit_code == 0
    assert 'label: column "stars", 2 labels: bad (30), good (30)' in shown.stdout
    assert 'text:  column "review"' in shown.stdout and "not used: id" in shown.stdout
    assert shown.stdout.splitlines()[-1] == "  minilm train 'my reviews.toml'"
    config = load_config(tmp_path / "my reviews.toml")
    assert (config.name, config.data.text, config.data.label) == ("my-reviews", "review", "stars")
    data = load_dataset(config.data)
    assert data.label_names == ["bad", "good"] and len(data.train) + len(data.validation) + len(data.test) == 60
    settings = [line for line in (tmp_path / "my reviews.toml").read_text().splitlines() if " = " in line]
    assert all("  # " in line for line in settings)


def test_a_column_that_decides_the_splits_is_shown_and_written(tmp_path: Path) -> None:
    names = ["train"] * 40 + ["dev"] * 20
    lines = [f"{text},{label},{split}" for (text, label), split in zip(texts(60), names, strict=True)]
    table, out = tmp_path / "r.csv", tmp_path / "r.toml"
    table.write_text("\n".join(["text,label,split", *lines]) + "\n")
    shown = minilm("init", table, "-o", out).stdout
    held_out = "test texts are held out of the training rows"
    assert f'splits: column "split", 40 train, 20 validation ({held_out})' in shown and "not used" not in shown
    assert held_out in out.read_text() and 'split_column = "split"' in out.read_text()
    assert len(load_dataset(load_config(out).data).validation) == 20
    out.unlink()
    table.write_text("\n".join(["text,label,split", *(f"{line}-2" for line in lines)]) + "\n")
    assert "not used: split" in minilm("init", table, "-o", out).stdout
    assert len(load_dataset(load_config(out).data).train) == 48  # as its column cannot be used


def test_splits_are_counted_without_the_rows_that_are_left_out(tmp_path: Path) -> None:
    lines = [f"{text},{label},train" for text, label in texts(40)] + [f"{text},,test" for text, _ in texts(10)]
    table, out = tmp_path / "r.csv", tmp_path / "r.toml"
    table.write_text("\n".join(["text,label,split", *lines]) + "\n")
    assert 'splits: column "split", 40 train (validation and test' in minilm("init", table, "-o", out).stdout
    assert len(load_dataset(load_config(out).data).train) == 32


@pytest.mark.parametrize("model", fine_tuning())
def test_every_recipe_gives_a_valid_config(tmp_path: Path, model: str) -> None:
    out = tmp_path / "mine.toml"
    assert minilm("init", reviews(tmp_path / "r.csv"), "-o", out, "--model", model).exit_code == 0
    config, recipe = load_config(out), load_config(fine_tuning()[model])
    assert config.model == recipe.model and config.lora == recipe.lora and config.freeze == recipe.freeze
    assert config.train and recipe.train and config.train.lr == recipe.train.lr
    assert (config.train.best, config.train.min_steps, config.train.decision_threshold) == ("loss", 200, "auto")
    assert config.data.train_rows == 0 and config.data.max_tokens == recipe.data.max_tokens


def test_files_without_a_header_and_several_labels_in_a_cell_are_seen(tmp_path: Path) -> None:
    out = tmp_path / "o.toml"
    sets = ["late", "late; rude", "rude", "late; slow"]
    minilm("init", reviews(tmp_path / "a.csv", header="", labels=sets), "-o", out)
    section = load_config(out).data
    assert (section.header, section.text, section.label, section.label_separator) == (False, "2", "3", ";")
    assert load_dataset(section).label_names == ["late", "rude", "slow"]


def test_rows_without_a_text_or_a_label_are_counted_and_left_out(tmp_path: Path) -> None:
    out, path = tmp_path / "o.toml", reviews(tmp_path / "a.csv")
    path.write_text(path.read_text() + '61,"",good\n62,"no label here",\n63," ",\n')
    shown = minilm("init", path, "-o", out)
    assert shown.exit_code == 0 and f"{path}: 60 rows\n  3 rows have no text or label: left out" in shown.stdout
    assert "2 labels: bad (30), good (30)" in shown.stdout
    assert '  # 3 rows have no text or label; "error" would stop at them\n' in out.read_text()
    data = load_dataset(load_config(out).data)
    assert len(data.train) + len(data.validation) + len(data.test) == 60
    sets = reviews(tmp_path / "b.csv", labels=["late", "late; rude", "rude", ""])  # an empty cell: no label at all
    assert "b.csv: 60 rows\n  text" in minilm("init", sets, "-o", tmp_path / "b.toml").stdout
    assert load_config(tmp_path / "b.toml").data.empty == "error"


def test_the_file_says_how_to_get_a_number_of_epochs_and_a_head_for_transformers(tmp_path: Path) -> None:
    minilm("init", reviews(tmp_path / "r.csv"), "-o", tmp_path / "o.toml")
    lines = {line.split(" ")[0]: line for line in (tmp_path / "o.toml").read_text().splitlines()}
    assert lines["epochs"].endswith("at least; with few texts min_steps asks for more")
    assert lines["min_steps"].endswith("; 0: exactly epochs")
    assert '"family": the one that transformers can load' in lines["kind"]


def test_what_cannot_be_guessed_is_asked_for_and_nothing_is_replaced(tmp_path: Path) -> None:
    path, out = tmp_path / "r.csv", tmp_path / "o.toml"
    path.write_text("a,b\n" + "".join(f"{i},{i * 7}\n" for i in range(30)))
    assert 'no column reads as texts; its columns are "a", "b"; name it: --text' in refused("init", path, "-o", out)
    reviews(path)
    assert 'no column "reviews" (did you mean "review"?)' in refused("init", path, "-o", out, "--text", "reviews")
    assert "no such file" in refused("init", tmp_path / "none.csv")
    assert 'no recipe for the model "bret" (did you mean' in refused("init", path, "-o", out, "--model", "bret")
    assert not out.exists()
    assert minilm("init", path, "-o", out, "--label", "id").exit_code == 1  # as many labels as rows
    out.write_text("mine")
    assert f"{out}: exists already; give another file with --out" in refused("init", path, "-o", out)
    assert out.read_text() == "mine"


def test_it_imports_no_torch(tmp_path: Path) -> None:
    code = "import sys; from minilm.cli import main\nmain(sys.argv[1:], standalone_mode=False)\n"
    code += "assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, "init", reviews(tmp_path / "r.csv"), "-o", tmp_path / "r.toml"]
    assert subprocess.run(command, check=False).returncode == 0
