"""Write ``docs/checkpoints.md``, what is opened and how that was tried: ``python -m docs.make_checkpoints``.

Needs the development tools: each configuration is compared with ``transformers``. A test holds the page to this.
"""

from __future__ import annotations

import inspect
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from minilm.checkpoints.configs import architecture_of, read_config
from minilm.checkpoints.relatives import instead_of
from minilm.errors import UserError
from minilm.models import ARCHITECTURES
from tests.models.published import Published, published
from tests.models.test_against_transformers import compare, shrunk
from tests.reference.make_references import family_of

PAGE = Path(__file__).parent / "checkpoints.md"
EQUAL = "equal"
HEAD = """# Checkpoints

This page is made by `python -m docs.make_checkpoints`, which compares with `transformers`.

## Families

A family is a `model_type` of `config.json`. These are the settings of `config.json` that each reads. Any other
changes no number: `tests/models/test_single_settings.py` changes one setting at a time, over all families, and the
result equals the reference's or is refused.
"""
CHECKPOINTS = """## Sixty checkpoints

Well-known checkpoints for text classification, and base models. **Equal** means: this configuration, with smaller
sizes and all its flags, and with random weights, gives the vectors, scores and gradients of `transformers` within
1e-5. That speaks of the configuration, not of the published weights, nor of the tokenizer's class
(`minilm/data/tokenizer_parts.py` has those that are built from their parts; any `tokenizer.json` is read). Most
configurations are from memory; a few are the defaults of a class of `transformers` whose documentation names the
checkpoint.
"""


class Recorder(dict[str, Any]):
    """A config.json that remembers which of its settings were asked for."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)


def settings_of(family: str) -> list[str]:
    """The settings of config.json that a family's reader looks at."""
    architecture = ARCHITECTURES[family]
    asked = {key for _, *keys in architecture.settings for key in keys}
    config_class = getattr(transformers, f"{family_of(architecture.classes['encode'])}Config")
    # With the class's own defaults, and with nothing: some settings are looked at only if others are there.
    for given in (config_class().to_dict(), {}):
        recorder = Recorder({**architecture.defaults, **given, "model_type": family})
        architecture.read(recorder)
        asked |= recorder.asked
    return sorted(asked)


def families() -> list[str]:
    """A table of the families."""
    lines = ["| `model_type` | name | published classes |", "|---|---|---|"]
    for name, architecture in sorted(ARCHITECTURES.items()):
        classes = ", ".join(f"`{kind}`" for kind in dict.fromkeys(architecture.classes.values()))
        lines.append(f"| `{name}` | {architecture.title} | {classes} |")
    lines.append("")
    for name in sorted(ARCHITECTURES):
        lines += [f"`{name}`: {', '.join(settings_of(name))}", ""]
    return lines


def source_of(row: Published) -> str:
    """Where the configuration was read."""
    if row.config["model_type"] not in ARCHITECTURES:
        return ""
    config_class = getattr(transformers, f"{family_of(row.kind)}Config")
    documented = f'checkpoint="{row.name}"' in Path(inspect.getfile(config_class)).read_text(encoding="utf-8")
    if documented and read_config(config_class().to_dict()) == read_config(row.config):
        return f"defaults of `{config_class.__name__}`"
    return "from memory"


def refusal_of(row: Published) -> str:
    """Why a checkpoint is not opened, and what to take; "" if it is."""
    kind = row.config["model_type"]
    try:
        architecture_of(row.config, "config.json")
    except UserError:
        return f"`{kind}` is not one of the families{instead_of(kind)}"
    return ""


def outcome_of(row: Published) -> str:
    """What comes of a checkpoint's configuration."""
    if refusal := refusal_of(row):
        return refusal
    with tempfile.TemporaryDirectory() as folder:
        try:
            compare(row.kind, shrunk(row.config), random.Random(0), 0, Path(folder))
        except UserError as error:
            return f"refused: {str(error).removeprefix(folder)}"
        except AssertionError as error:
            return f"DIFFERENT: {' '.join(str(error).split())[:100]}"
    return EQUAL


def page(outcomes: dict[str, str]) -> str:
    """The whole page. ``outcomes``: of each checkpoint."""
    lines = [HEAD, *families(), CHECKPOINTS]
    equal = sum(outcome == EQUAL for outcome in outcomes.values())
    lines += [f"{equal} of {len(outcomes)} are equal.", ""]
    lines += ["| checkpoint | use | class | configuration | outcome |", "|---|---|---|---|---|"]
    for row in published():
        cells = (f"`{row.name}`", row.use, f"`{row.kind}`", source_of(row), outcomes[row.name])
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Compare all, and write the page."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    outcomes = {row.name: outcome_of(row) for row in published()}
    PAGE.write_text(page(outcomes), encoding="utf-8")
    wrong = [f"{name}: {outcome}" for name, outcome in outcomes.items() if outcome.startswith(("DIFF", "refused"))]
    print("\n".join([*wrong, f"{PAGE}: {sum(outcome == EQUAL for outcome in outcomes.values())} equal"]))


if __name__ == "__main__":
    main()
