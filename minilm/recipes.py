"""The recipes and studies that come with minilm, by name: ``minilm train scratch_sample``, ``minilm study seeds``.

They are the TOML files in ``experiments/``. In a checkout, this folder is beside the package; in a wheel, inside it.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from minilm.callers import training
from minilm.errors import UserError, nearest
from minilm.hints import config_file
from minilm.textfiles import read_toml

FINETUNE = "finetune"  # the folder of recipes that start from a published checkpoint


def experiments() -> Path:
    """The folder of recipes and studies."""
    package = Path(__file__).parent
    inside = package / "experiments"
    return inside if inside.is_dir() else package.parent / "experiments"


def recipes() -> dict[str, Path]:
    """Every recipe for ``minilm train`` by name: scratch_sample, ..., bert, bielik, ..."""
    return _files(experiments()) | fine_tuning()


def fine_tuning() -> dict[str, Path]:
    """The recipes for ``minilm finetune``, by the name of the model that they start from."""
    return _files(experiments() / FINETUNE)


def studies() -> dict[str, Path]:
    """Every study for ``minilm study``, by name."""
    return _files(experiments() / "studies")


def _files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_recipe(source: str | Path) -> Path:
    """The file of a config: a path, a run's folder, or the name of a recipe.

    Raises UserError for an unknown name, and for a data file.
    """
    return _find(config_file(Path(source)), recipes(), "recipe")


def find_study(source: str | Path) -> Path:
    """The file of a study: a path, or the name of a study. Raises UserError for an unknown name."""
    return _find(source, studies(), "study")


def _find(source: str | Path, known: dict[str, Path], kind: str) -> Path:
    path, name = Path(source), str(source).replace("-", "_")
    if path.is_file() or path.suffix == ".toml" or path.name != str(source):
        return path
    found = {known_name.replace("-", "_"): file for known_name, file in known.items()}
    if name not in found:
        hint = nearest(str(source), known)
        message = f'no {kind} "{source}"{hint}; give the path of a TOML file, or one of {", ".join(known)}'
        raise UserError(message + (f"; {other_model(str(source))}" if kind == "recipe" and not hint else ""))
    return found[name]


def other_model(source: str, verb: str = "train") -> str:
    """What to type for a model without a recipe."""
    return f"for another model, use a recipe of its family: {training('bert', {'model.source': source}, verb)}"


def listing() -> list[tuple[str, str]]:
    """Each recipe and study: the command that runs it, and a description."""
    rows = [(f"minilm train {name}", _about(path)) for name, path in _files(experiments()).items()]
    rows += [(f"minilm finetune {name}", _about(path)) for name, path in fine_tuning().items()]
    rows += [(f"minilm study {name}", str(read_toml(path).get("question", ""))) for name, path in studies().items()]
    return rows


def _about(path: Path) -> str:
    """The first sentence of the comment that a file begins with."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return " ".join(line.removeprefix("#").strip() for line in comment).partition(". ")[0].rstrip(".") + "."
