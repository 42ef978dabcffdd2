"""The pages of docs/ that are made from the code are current, and what they and the README show can be run."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import minilm as package
from minilm.cli import main
from minilm.config import RunConfig
from minilm.data.cleaning import STEPS
from minilm.loading import load_config
from minilm.recipes import fine_tuning, studies
from minilm.schema import hints_of

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def make_config() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_config", ROOT / "docs" / "make_config.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_configs_keys_is_current(make_config: ModuleType) -> None:
    assert make_config.PAGE.read_text(encoding="utf-8") == make_config.page(), "run `make docs`"


def test_every_key_on_it_has_a_meaning(make_config: ModuleType) -> None:
    rows = [line for line in make_config.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 80 and all(len(row.split(" | ")[-1].rstrip("| ")) > 3 for row in rows)


def test_the_readme_has_at_most_250_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 250


RESULTS = [ROOT / "experiments" / "RESULTS.md", *sorted((ROOT / "experiments" / "results").glob("*.md"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *RESULTS]


def test_every_command_that_a_page_shows_is_a_verb_with_such_options() -> None:
    pattern = r"(?:\.venv/bin/|`)minilm ([a-z][^`#\n]*)"
    shown = [words for page in PAGES for words in re.findall(pattern, page.read_text("utf-8"))]
    assert len(shown) > 20
    for command in shown:
        verb, *words = command.split()
        options = {option for parameter in main.commands[verb].params for option in parameter.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= {*options, "--help"}, command


def test_the_commands_of_the_first_steps_name_the_columns_of_their_file() -> None:
    page = (ROOT / "docs" / "first_steps.md").read_text()
    assert "\nreview,stars\n" in page
    commands = [line for line in re.findall(r"`(minilm [^`]+)`", page) if "reviews.csv" in line]
    assert len(commands) == 2 and all("data.text=review data.label=stars" in command for command in commands)


def test_every_section_of_a_config_that_a_page_shows_has_such_keys() -> None:
    blocks = [text for page in PAGES for text in re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    assert len(blocks) > 4
    for block in blocks:
        table = tomllib.loads(block)
        for name, section in table.items():
            if "question" not in table and isinstance(section, dict):
                assert set(section) <= set(hints_of(hints_of(RunConfig)[name])), name


def test_every_call_that_a_page_shows_is_a_public_name_with_such_keywords() -> None:
    blocks = [text for page in PAGES for text in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    called = [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    seen = []
    for call in called:
        match call.func:
            case ast.Attribute(ast.Name("minilm"), name):
                assert name in package.__all__, name
                known = inspect.signature(getattr(package, name)).parameters
                assert {keyword.arg for keyword in call.keywords} <= set(known), ast.unparse(call)
                seen.append(name)
            case ast.Attribute(ast.Attribute(ast.Name("minilm"), name), method):
                assert callable(getattr(getattr(package, name), method)), ast.unparse(call)
    assert {"train", "study", "load_model"} <= set(seen)


def test_the_changes_on_the_page_give_the_defaults_of_trainer() -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.TrainingArguments(output_dir="unused")
    text = (ROOT / "docs" / "coming_from.md").read_text("utf-8")
    command = re.search(r"minilm train reviews\.toml ((?:.*\\\n)*.*)\n", text)
    assert command is not None
    changes = command[1].replace("\\\n", " ").split()
    assert all(f"`{change}`" in text for change in changes)  # each is in the table too
    config = load_config(fine_tuning()["minilm"], ["train.min_steps=200", *changes])
    ours = config.train
    assert ours is not None and ours.min_steps == 0 and not ours.group_by_length and ours.precision == "float32"
    assert config.model.head.kind == "family" and config.seed == theirs.seed
    assert (ours.lr, ours.epochs, ours.batch_size) == (
        theirs.learning_rate, theirs.num_train_epochs, theirs.per_device_train_batch_size,
    )  # fmt: skip
    assert (ours.schedule, ours.warmup, ours.weight_decay, ours.clip) == (
        theirs.lr_scheduler_type, theirs.warmup_steps, theirs.weight_decay, theirs.max_grad_norm,
    )  # fmt: skip
    assert (ours.beta1, ours.beta2, ours.eps) == (theirs.adam_beta1, theirs.adam_beta2, theirs.adam_epsilon)
    assert theirs.train_sampling_strategy == "random" and not theirs.bf16 and not theirs.fp16


def test_the_cleaning_steps_are_on_the_page_in_their_order() -> None:
    page = (ROOT / "docs" / "data.md").read_text("utf-8")
    table = page[page.index("| step |") :].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(STEPS)


def test_the_page_of_keys_keeps_names_as_they_are_written(make_config: ModuleType) -> None:
    page = make_config.page()
    for name in ("| CPU threads", "| LayerNorm after", "| T5: the mean", "| between the fields of a row"):
        assert name in page
    assert not re.search(r"``|\| (cPU|layerNorm|t5)\b", page)


SECTIONS = "data|train|lora|freeze|model|augment|adapt|zero_shot|tokenizer"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_key_that_a_page_names_is_a_key(page: Path) -> None:
    endings = ("md", "csv", "py", "tsv", "json", "toml", "onnx", "safetensors")  # of files with a section's name
    text = page.read_text("utf-8")
    commands = re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL)
    for span in (*re.findall(r"`([^`\n]+)`", text), *commands):
        for section, key in re.findall(rf"(?<![\w.])({SECTIONS})\.([a-z_0-9]+)", span):
            assert key in (*hints_of(hints_of(RunConfig)[section]), *endings), f"{section}.{key}"


def headings(page: Path) -> set[str]:
    """What a link to a heading of a page ends with, after "#"."""
    lines = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        name, _, heading = link.partition("#")
        if not name.startswith(("http:", "https:")):
            target = (page.parent / name) if name else page
            assert target.exists(), link
            assert not heading or heading in headings(target), link


def test_every_study_and_recipe_is_on_its_page() -> None:
    page = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in studies())
    page = (ROOT / "docs" / "finetuning.md").read_text(encoding="utf-8")
    assert all(name in page for name in fine_tuning())


@pytest.mark.parametrize("word", ["told", "said", "goes"])
def test_the_package_explains_itself_without_this_word(word: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "minilm").rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(rf"\b{word}\b", line, re.IGNORECASE)
    ]
    assert found == []


def test_the_numbers_by_which_to_choose_a_method_are_those_of_the_results() -> None:
    page = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    results = (ROOT / "experiments" / "RESULTS.md").read_text(encoding="utf-8")
    numbers = re.findall(r"\b0\.\d{3,4}\b|\b\d{2,3}\.\d\b", page)
    assert len(numbers) > 30 and {number for number in numbers if number not in results} <= {"22.7"}
