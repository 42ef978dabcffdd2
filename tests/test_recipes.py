"""Recipes and studies are found by name, from a checkout and from a wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from minilm.errors import UserError
from minilm.loading import load_config
from minilm.recipes import experiments, find_recipe, find_study, listing, recipes, studies
from minilm.studies.plan import load_study
from tests.tiny import minilm, refused

ROOT = Path(__file__).parents[1]


def test_every_file_of_the_experiments_has_a_name_of_its_own() -> None:
    assert experiments() == ROOT / "experiments"
    found = [*recipes().values(), *studies().values()]
    measured = sorted((experiments() / "results").glob("*.toml"))  # see tests/studies/test_measured.py
    assert sorted([*found, *measured]) == sorted(experiments().rglob("*.toml"))


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_found_by_its_name_and_can_be_read(name: str) -> None:
    assert load_config(find_recipe(name)).name.replace("-", "_").endswith(name.replace("-", "_"))
    assert find_recipe(name.replace("_", "-")) == find_recipe(name.replace("-", "_")) == recipes()[name]


@pytest.mark.parametrize("name", studies())
def test_a_study_is_found_by_its_name_and_can_be_planned(name: str) -> None:
    assert load_study(find_study(name)).runs


def test_a_path_is_a_path_whether_a_file_is_there_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("mine.toml", "scratch.toml", "folder/scratch", str(tmp_path / "seeds")):
        assert find_recipe(path) == find_study(path) == Path(path)
    Path("seeds").touch()
    assert find_study("seeds") == Path("seeds")


def test_an_unknown_name_is_answered_with_the_nearest_and_all_others() -> None:
    said = r'^no recipe "bret" \(did you mean "bert"\?\); .* one of scratch, .*albert, bert, '
    with pytest.raises(UserError, match=said):
        find_recipe("bret")
    assert 'no recipe "scrach" (did you mean "scratch"?)' in refused("train", "scrach")
    assert 'no study "seed" (did you mean "seeds"?)' in refused("study", "seed", "--dry-run")


def test_the_list_has_a_line_for_each_with_the_command_that_runs_it() -> None:
    lines = minilm("recipes").stdout.splitlines()
    assert len(lines) == len(listing()) == len(recipes()) + len(studies())
    for line in lines:
        verb, name = re.match(r"minilm (train|finetune|study) (\S+)  +\S.*[.?]$", line).groups()  # type: ignore[union-attr]
        assert name in (studies() if verb == "study" else recipes())


def test_a_wheel_has_them_inside_the_package(tmp_path: Path) -> None:
    included = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert included["wheel"]["force-include"] == {"experiments": "minilm/experiments"}
    assert "experiments" in included["sdist"]["include"]
    shutil.copytree(ROOT / "minilm", tmp_path / "minilm", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "experiments", tmp_path / "minilm" / "experiments")  # as the wheel is built
    code = "from minilm.recipes import *; print(find_recipe('bert'), find_study('seeds'), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": str(tmp_path)})  # fmt: skip
    names = ["finetune/bert.toml", "studies/seeds.toml"]
    assert done.stdout.split() == [str(tmp_path / "minilm" / "experiments" / name) for name in names]


def test_python_m_minilm_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "minilm", "recipes"], capture_output=True, text=True, check=True)
    assert "minilm train scratch_sample" in done.stdout
