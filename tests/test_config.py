"""A config is read strictly, changed from the command line, and written back equal."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm import config
from minilm.config import (
    AdaptSection,
    BackTranslationSection,
    BPETokenizerSection,
    CheckpointTokenizerSection,
    DataSection,
    EditWordsSection,
    FamilyHeadSection,
    FreezeAllButLast,
    FreezeBackbone,
    FreezeFirst,
    FreezeNothing,
    LoraSection,
    MaskedWordsSection,
    Metric,
    MLPHeadSection,
    ModelSection,
    PromptSection,
    RunConfig,
    SimilaritySection,
    TrainSection,
)
from minilm.errors import UserError
from minilm.loading import dump_config, load_config
from minilm.old_keys import OLD_KEYS
from minilm.schema import wanted

MINIMAL = """
name = "small"
[model]
architecture = "gpt2"
[model.config]
width = 64
[tokenizer]
source = "bpe"
[data]
source = "texts.csv"
[train]
epochs = 3
lr = 1
"""

FINE_TUNED = re.sub(r"(?s)architecture.*?(?=\[data)", 'source = "bert"\n', MINIMAL)
PRECISIONS = 'train.precision must be "auto", "float32", "bfloat16" or "float16"'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


def error(file: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(file, overrides)
    return str(caught.value)


def test_what_is_not_written_has_its_default(file: Path) -> None:
    assert load_config(file) == RunConfig(
        name="small",
        model=ModelSection(architecture="gpt2", config={"width": 64}),
        tokenizer=BPETokenizerSection(),
        data=DataSection(source="texts.csv"),
        train=TrainSection(epochs=3, lr=1.0),
    )


def test_whole_numbers_become_floats_where_floats_are_wanted(file: Path) -> None:
    train = load_config(file, ["train.class_weights=[1, 2.5]"]).train
    assert type(train.lr) is float
    assert isinstance(train.class_weights, list)
    assert [type(weight) for weight in train.class_weights] == [float, float]


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.lr=3e-4", "train", "lr", 3e-4),
        (" train.lr = 3e-4 ", "train", "lr", 3e-4),
        ("train.evaluate_every=50", "train", "evaluate_every", 50),
        ("train.decay_all=true", "train", "decay_all", True),
        ("train.class_weights=balanced", "train", "class_weights", "balanced"),
        ("train.device=cuda:1", "train", "device", "cuda:1"),
        ("data.source=../x", "data", "source", "../x"),
        ('data.source="../x y"', "data", "source", "../x y"),
        ("data.label=2024", "data", "label", "2024"),
        ("data.label=true", "data", "label", "true"),
        ("data.label=a=b # c", "data", "label", "a=b # c"),
        ("data.text_pair=", "data", "text_pair", ""),
        ('data.labels=["a", "b"]', "data", "labels", ["a", "b"]),
        ("data={source = 'y'}", "data", "source", "y"),
        ("model.config.width=128", "model", "config", {"width": 128}),
        ("model.config.rope.kind=yarn", "model", "config", {"width": 64, "rope": {"kind": "yarn"}}),
        ("model.head.dropout=0", "model", "head", MLPHeadSection(dropout=0.0)),
    ],
)
def test_the_command_line_changes_one_key(file: Path, override: str, section: str, key: str, value: object) -> None:
    before, after = load_config(file), load_config(file, [override])
    assert getattr(getattr(after, section), key) == value
    assert after == replace(before, **{section: replace(getattr(before, section), **{key: value})})


def test_the_last_of_several_changes_counts(file: Path) -> None:
    assert load_config(file, ["seed=2", "seed=3"]).seed == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr=fast", 'train.lr must be a number above 0, got "fast"'),
        ("train.lr=inf", "train.lr must be a number above 0, got inf"),
        ("train.lr=nan", "train.lr must be a number above 0, got nan"),
        ("train.lr=0", "train.lr must be a number above 0, got 0"),
        ("train.lr=true", "train.lr must be a number above 0, got true"),
        ("train.epochs=true", "train.epochs must be a whole number of at least 1, got true"),
        ("train.epochs=2.0", "train.epochs must be a whole number of at least 1, got 2.0"),
        ("train.decay_all=1", "train.decay_all must be true or false, got 1"),
        ("train.beta1=1", "train.beta1 must be a number of at least 0 and below 1, got 1"),
        ("train.clip=" + "9" * 400, "a whole number of more than 100 digits"),
        ("train.clip=" + "9" * 5000, "a whole number of more than 100 digits"),
        ("train.clip=" + "[" * 3000 + "]" * 3000, "values nested more than 100 levels deep"),
        (
            "train.schedule=cosin",
            'train.schedule must be "cosine", "linear" or "constant", got "cosin" (did you mean "cosine"?)',
        ),
        (
            "train.class_weights=[0, 1]",
            'train.class_weights must be "" or "balanced" or a list, each item a number above 0 or a table, got [0, 1]',
        ),
        (
            "train.class_weights=[1.0,inf]",
            'train.class_weights must be "" or "balanced" or a list, each item a number above 0 or a table, got '
            "[1.0, inf]",
        ),
        (
            "data.labels=[a, b]",
            'data.labels must be a list, each item a text, got "[a, b]"; write \'data.labels=["a", "b"]\'',
        ),
        ("data.clean=html", """data.clean must be a list, each item a text, got "html"; write 'data.clean=["tags"]'"""),
        ("data.labels=", 'data.labels must be a list, each item a text, got ""'),
        ("train.learning_rate=1", 'train.learning_rate is not a known key (did you mean "train.lr"?)'),
        ("learning_rate=1", 'learning_rate is not a known key (did you mean "train.lr"?)'),
        ("train.num_train_epochs=1", 'train.num_train_epochs is not a known key (did you mean "train.epochs"?)'),
        (
            "train.per_device_train_batch_size=1",
            'train.per_device_train_batch_size is not a known key (did you mean "train.batch_size"?)',
        ),
        ("train.best=f1", f"train.best must be {wanted(Metric)}, got \"f1\" (did you mean \"macro_f1\"?)"),
        ("train.precision=bf16", PRECISIONS + ', got "bf16" (did you mean "bfloat16"?)'),
        ("lora.r=8", 'lora.r is not a known key (did you mean "lora.rank"?)'),
        ("data.labels=[1]", "data.labels must be a list, each item a text, got [1]"),
        ("data.split_seed=-1", "data.split_seed must be a whole number from 0 to 4294967295, got -1"),
        ("data.text=", 'data.text must be the name of a column, got ""'),
        ('data.label_columns=[""]', 'data.label_columns must be a list, each item the name of a column, got [""]'),
        (
            "data.label=",
            'data.label = "" (texts without labels) needs [zero_shot], and the labels to choose from in data.labels',
        ),
        ("name=../up", 'name must be a name of at most 100 letters, digits, "-", "_" and ".", got "../up"'),
        ("model.config=3", "model.config must be a table, got 3"),
        (
            "model.config.width=inf",
            "model.config.width must be a text, a number, true, false, a list or a table, got inf",
        ),
        ("train=3", "train must be a section [train], got 3"),
        ("name.first=x", "name is a value and has no keys"),
        ("train={lr=1}", "train.epochs is missing; it must be a whole number of at least 1; add train.epochs=3"),
        ("train.lrr=1", 'train.lrr is not a known key (did you mean "train.lr"?)'),
        ("lr=1", 'lr is not a known key (did you mean "train.lr"?)'),
        (
            "zzz=1",
            "zzz is not a known key; the keys are: name, data, seed, model, tokenizer, freeze, lora, augment, adapt, "
            "train, zero_shot",
        ),
        ("seed=1\nname=2", 'seed must be a whole number from 0 to 4294967295, got "1\\nname=2"'),
        ("train.lr", "a change must have the form section.key=value, such as train.lr=3e-4"),
    ],
)
def test_a_bad_change_is_named_with_its_key_and_what_it_must_be(file: Path, override: str, message: str) -> None:
    assert error(file, override) == str(UserError(f"{override}: {message}"))  # which cuts what is very long


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lr = 1", 'lr = "fast"', 'train.lr must be a number above 0, got "fast"'),
        ("lr = 1", "", "train.lr is missing; it must be a number above 0"),
        ("epochs = 3", "", "train.epochs is missing; it must be a whole number of at least 1"),
        ("[train]\nepochs = 3\nlr = 1", "", "[train] is missing; add it with epochs and lr"),
        ('name = "small"', "", 'name is missing; it must be a name of at most 100 letters, digits, "-", "_" and "."'),
        ("epochs = 3", "epoch = 3", 'train.epoch is not a known key (did you mean "train.epochs"?)'),
        ("width = 64", "width = 1979-05-27", "model.config.width must be a text, a number, true, false, "),
        ("[train]", "[train", "not valid TOML: "),
    ],
)
def test_a_bad_file_is_named_with_the_key(file: Path, old: str, new: str, message: str) -> None:
    file.write_text(MINIMAL.replace(old, new), encoding="utf-8")
    assert error(file).startswith(f"{file}: {message}")


def test_an_error_names_the_file_though_another_key_was_changed(file: Path) -> None:
    file.write_text(MINIMAL.replace("lr = 1", "lr = 0"), encoding="utf-8")
    assert error(file, "train.epochs=2").startswith(f"{file}: train.lr must be")
    assert load_config(file, ["train.lr=1"]).train.lr == 1.0


def test_a_missing_key_comes_with_an_example(file: Path) -> None:
    missing = f"{file}: lora.rank is missing; it must be a whole number of at least 0; add lora.rank=8"
    assert error(file, "lora.alpha=16") == missing


def test_two_methods_at_once_are_answered_with_what_turns_one_off(file: Path) -> None:
    file.write_text(FINE_TUNED)
    message = error(file, "freeze.part=backbone", "lora.rank=4")
    assert message.endswith("as LoRA freezes the backbone; add lora.rank=0 or freeze.part=nothing")


def test_a_file_that_cannot_be_read_is_named(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "smal.toml"
    assert error(other) == f'{other}: no such file (did you mean "{file}"?)'
    assert error(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"
    file.write_bytes(b'name = "\xff"')
    assert error(file) == f"{file}: not UTF-8 text (byte 8)"


def test_what_is_redrawn_follows_the_seed(file: Path) -> None:
    config = load_config(file, ["data.redraw=true", "seed=7"])
    assert config.data.split_seed == 7 and load_config(file, ["seed=7"]).data.split_seed == 0
    file.write_text(dump_config(config))
    assert load_config(file) == config and load_config(file, ["seed=8"]).data.split_seed == 8


def medical(file: Path, *changes: str) -> DataSection:
    return load_config(file, ["data.source=medical-questions", *changes]).data


def test_what_the_catalogue_says_of_a_set_is_in_the_config_where_nothing_else_is_said(file: Path) -> None:
    data = medical(file)
    assert (data.text, data.text_pair, data.group) == ("question_1", "question_2", "question_1")
    assert (data.labels, data.test_fraction, data.label) == (["different", "same"], 0.07, "label")
    assert medical(file, "data.sample=true").test_fraction == 0.1 == load_config(file).data.test_fraction


def test_what_is_said_counts_before_the_catalogue_also_where_it_is_the_usual(file: Path) -> None:
    data = medical(file, "data.test_fraction=0.1", "data.text_pair=", "data.group=", "data.labels=[]")
    assert (data.test_fraction, data.text_pair, data.group, data.labels) == (0.1, "", "", [])
    assert data.text == "question_1"


@pytest.mark.parametrize("change", ["seed=1", "data.text_pair=", "data.test_fraction=0.1", "data.sample=true"])
def test_a_config_that_was_written_down_is_of_the_same_data(file: Path, change: str) -> None:
    config = load_config(file, ["data.source=medical-questions", change])
    file.write_text(dump_config(config))
    assert load_config(file) == config and 'text = "question_1"' in file.read_text()


def test_a_byte_order_mark_is_read_over(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load_config(file).name == "small"


def test_bytes_that_are_no_text_are_refused_on_the_command_line(file: Path) -> None:
    assert error(file, "data.source=\udcff") == r"'data.source=\udcff': must be UTF-8"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.source="], "give either data.source or data.train"),
        (["data.train=a.csv"], "give either data.source or data.train"),
        (
            ["data.source=my reviews.csv", "data.test=a.csv"],
            "data.validation and data.test need data.train instead of data.source; type: data.source= "
            "'data.train=my reviews.csv' data.test=a.csv",
        ),
        (["data.test_fraction=0.9"], "data.validation_fraction + data.test_fraction must be below 1"),
        (["data.shots=2", "data.rows=r.txt"], "data.shots and data.rows cannot be combined"),
        (["data.text_pair=text"], "data.text, data.text_pair and data.label (or data.label_columns) must be different"),
        (
            ["data.text_pair=label"],
            "data.text, data.text_pair and data.label (or data.label_columns) must be different",
        ),
        (["data.label=text"], "data.text, data.text_pair and data.label (or data.label_columns) must be different"),
        (['data.label_columns=["a", "text"]'], "data.text, data.text_pair and data.label (or data.label_columns) must"),
        (['data.labels=["a", "a"]'], "data.labels and data.label_columns must name each label once"),
        (
            ['data.label_columns=["a", "b"]', 'data.labels=["x"]'],
            "data.labels must name as many labels as data.label_columns has columns",
        ),
        (["model.source=bert"], "give either model.source (a checkpoint) or model.architecture"),
        (["model.architecture=", "model.source=bert"], "model.config is only for a model from scratch"),
        (["tokenizer.source="], "a model from scratch needs tokenizer.source"),
        (
            ["model.architecture=", "model.config={}", "model.source=bert"],
            'tokenizer.source = "bpe" is only for a model from scratch',
        ),
        (
            ["train.class_weights=[1, 2]", 'data.labels=["a", "b", "c"]'],
            "train.class_weights must contain one weight for each label",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused(file: Path, overrides: list[str], message: str) -> None:
    assert any(error(file, *overrides).startswith(f"{place}: {message}") for place in [*overrides, file])


def test_a_contradiction_is_laid_at_the_change_that_made_it(file: Path) -> None:
    assert error(file, "seed=3", "data.train=a.csv").startswith("data.train=a.csv: ")
    file.write_text(MINIMAL.replace('source = "texts.csv"', ""), encoding="utf-8")
    assert error(file, "seed=3").startswith(f"{file}: ")


# --- Choices: what a section's other keys are depends on one of them ---


SCRATCH = 'architecture = "gpt2"\n[model.config]\nwidth = 64\n[tokenizer]\nsource = "bpe"'
BERT = MINIMAL.replace(SCRATCH, 'source = "bert"')
CHOICES = {  # section -> a table of one choice, and a change to another that leaves a key of the first behind
    "model.head": ('pooling = "mean"\ndropout = 0.3', "model.head.kind=family", FamilyHeadSection()),
    "tokenizer": (
        'source = "bpe"\nvocab_size = 300',
        "tokenizer.source=herbert",
        CheckpointTokenizerSection("herbert"),
    ),
    "freeze": ('part = "first"\nlayers = 2', "freeze.part=backbone", FreezeBackbone()),
    "augment": ('method = "swap"\nfraction = 0.3', "augment.method=back-translation", None),
    "zero_shot": (
        'method = "cloze"\npattern = "{text} {label}"\ncontent_free = "N/A"\nwords = { a = "b" }',
        "zero_shot.method=similarity",
        SimilaritySection("similarity"),
    ),
}


def write_choice(file: Path, section: str) -> None:
    """A config with one choice of a section."""
    text = MINIMAL.replace('[tokenizer]\nsource = "bpe"\n', "") if section == "tokenizer" else BERT
    text = text.partition("[train]")[0] if section == "zero_shot" else text
    file.write_text(f"{text}[{section}]\n{CHOICES[section][0]}\n")


def value(c: RunConfig, section: str) -> object:
    return c.model.head if section == "model.head" else getattr(c, section)


@pytest.mark.parametrize("section", CHOICES)
def test_a_change_of_a_choice_drops_the_files_keys_of_the_other(file: Path, section: str) -> None:
    write_choice(file, section)
    _, change, wanted = CHOICES[section]
    load_config(file)
    if section == "augment":
        assert error(file, change).startswith(f"{file}: augment.model is missing; it must be a model: a folder, a name")
        changed = load_config(file, [change, "augment.model=flan-t5"])
        wanted = BackTranslationSection("back-translation", "flan-t5")
    else:
        changed = load_config(file, [change])
    assert value(changed, section) == wanted
    file.write_text(dump_config(changed))
    assert load_config(file) == changed


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("model.head", ["kind=family", "hidden=8"], 'hidden belongs to model.head.kind = "mlp", but'),
        ("model.head", ["kind=family", "norm=true"], 'norm belongs to model.head.kind = "mlp"'),
        ("tokenizer", ["source=herbert", "vocab_size=300"], 'vocab_size belongs to tokenizer.source = "bpe"'),
        ("freeze", ["part=nothing", "layers=2"], 'layers belongs to freeze.part = "first" or "all-but-last", but'),
        ("augment", ["model=bert"], 'model belongs to augment.method = "masked-words" or "back-translation", but'),
        ("zero_shot", ["method=similarity", "pattern={text} {label}"], 'pattern belongs to zero_shot.method = "cloze"'),
        ("zero_shot", ["method=similarity", 'words.good="fine"'], 'words belongs to zero_shot.method = "cloze"'),
        ("zero_shot", ['descriptions={a = "b"}'], 'descriptions belongs to zero_shot.method = "similarity", but'),
    ],
)  # fmt: skip
def test_a_key_of_another_choice_is_refused_with_the_name_of_its_choice(
    file: Path, section: str, changes: list[str], message: str
) -> None:
    write_choice(file, section)
    made = [f"{section}.{change}" for change in changes]
    assert error(file, *made).startswith(f"{made[-1]}: {section}.{message}")
    assert error(file, *made).isprintable()


@pytest.mark.parametrize(
    "key", ["hidden = 8", 'pooling = "auto"', "norm = true", 'activation = "gelu"', "dropout = 0.1"]
)
def test_a_key_of_another_choice_is_refused_in_a_file_even_if_it_has_its_default(file: Path, key: str) -> None:
    file.write_text(f'{MINIMAL}\n[model.head]\nkind = "family"\n{key}\n')
    assert error(file, "seed=2").startswith(f'{file}: model.head.{key.split()[0]} belongs to model.head.kind = "mlp"')
    assert isinstance(load_config(file, ["model.head.kind=mlp"]).model.head, MLPHeadSection)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("freeze.part=head", 'freeze.part must be "nothing", "backbone", "first" or "all-but-last", got "head"'),
        ("freeze.part=3", 'freeze.part must be "nothing", "backbone", "first" or "all-but-last", got "3"'),
        ("freeze.layers=2", 'freeze.layers belongs to freeze.part = "first" or "all-but-last", but'),
        ("freeze.part=all-but-last", "freeze.layers is missing; it must be a whole number of at least 1"),
        ("model.head.kind=famly", 'model.head.kind must be "mlp" or "family", got "famly" (did you mean "family"?)'),
        ("augment.ratio=0.5", 'augment.method is missing; it must be "insertion", "swap", "deletion", "syn'),
        ("augment.method=masked-words", "augment.model is missing; it must be a model: a folder, a name that"),
        ("zero_shot.pattern=x", 'zero_shot.method is missing; it must be "cloze", "likelihood", "sim'),
        ("zero_shot.method=cloze", 'zero_shot.pattern is missing; it must be a text with "{text}" and "{label}"'),
        ("lora.alpha=3", "lora.rank is missing; it must be a whole number of at least 0"),
        ("freeze=3", "freeze must be a section [freeze], got 3"),
        ("model.head.colour=3", "model.head.colour is not a known key; the keys are: kind, hidden, pooling"),
    ],
)  # fmt: skip
def test_a_choice_that_is_not_there_or_not_whole_is_named(file: Path, change: str, message: str) -> None:
    file.write_text(BERT.partition("[train]")[0] if change.startswith("zero_shot") else BERT)
    assert any(error(file, change).startswith(f"{place}: {message}") for place in (change, file))


def test_a_change_of_the_whole_section_is_a_change_of_its_choice(file: Path) -> None:
    write_choice(file, "freeze")
    assert load_config(file, ['freeze={part = "all-but-last", layers = 3}']).freeze == FreezeAllButLast(layers=3)
    assert load_config(file, ["freeze={}"]).freeze == FreezeNothing()


# --- Keys of an earlier version ---


@pytest.mark.parametrize(("old", "new"), OLD_KEYS["config.toml"].items())
def test_an_old_key_is_an_error_that_has_the_new_name_and_a_run_is_read_with_it(file: Path, old: str, new: str) -> None:
    text = BERT.partition("[train]")[0] if old.startswith("zero_shot") else BERT
    section, _, key = old.rpartition(".")
    values = {"by_length": "false", "recompute": "true", "decision": "0.3", "way": '"similarity"'}
    given = values.get(key, "0.3")
    if section == "augment":
        text += '[augment]\nmethod = "swap"\n'
    elif section.startswith("adapt"):
        text += "[adapt.train]\nepochs = 1\nlr = 1\n"
    message = f"{old} is an old name; rename it to {new}"
    file.write_text(text)
    assert error(file, f"{old}={given}") == f"{old}={given}: {message}"
    lines = text.replace(f"[{section}]\n", f"[{section}]\n{key} = {given}\n")
    file.write_text(lines if lines != text else f"{text}[{section}]\n{key} = {given}\n")
    assert error(file) == f"{file}: {message}"
    own = file.rename(file.with_name("config.toml"))
    assert error(own) == f"{own}: {message}"
    (file.parent / "environment.json").write_text("{}")  # a run wrote it
    if key == "decision" and section == "adapt.train":
        assert "adapt.train.decision_threshold is only for classification" in error(own)
    else:
        read = asdict(load_config(own))
        for part in new.split("."):
            read = read[part]
        assert read == tomllib.loads(f"x = {given}")["x"]
    assert error(own, f"{old}={given}") == f"{old}={given}: {message}"


def test_a_run_of_an_earlier_version_had_written_down_the_keys_of_all_choices(file: Path) -> None:
    own = file.parent / "config.toml"
    written = (
        BERT
        + """
[model.head]
kind = "family"
pooling = "mean"
hidden = 9
[tokenizer]
source = ""
vocab_size = 8000
[freeze]
part = "backbone"
layers = 0
[lora]
alpha = 16.0
targets = ["query", "value"]
"""
    )
    own.write_text(written)
    assert "belongs to" in error(own)
    (file.parent / "environment.json").write_text("{}")
    read = load_config(own)
    assert (read.model.head, read.tokenizer) == (FamilyHeadSection(), CheckpointTokenizerSection())
    assert (read.freeze, read.lora) == (FreezeBackbone(), None)
    assert error(own, "model.head.hidden=8").startswith("model.head.hidden=8: model.head.hidden belongs to ")
    assert load_config(own, ["model.head.kind=mlp"]).model.head == MLPHeadSection()


def test_threads_have_a_limit(file: Path) -> None:
    assert error(file, "train.threads=1025") == (
        "train.threads=1025: train.threads must be a whole number from 0 to 1024, got 1025"
    )
    assert "from 0 to 1024" in error(file, "zero_shot.method=similarity", "zero_shot.threads=1000000")


# Any TOML text: no lone surrogates. Any value that a config of an architecture may hold.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.from_regex(r"\w[\w.-]{0,20}", fullmatch=True)
numbers = st.floats(allow_nan=False, allow_infinity=False)
label_lists = st.lists(texts, max_size=4, unique=True)
tables = st.recursive(
    st.dictionaries(texts, st.booleans() | st.integers() | numbers | texts, max_size=3),
    lambda inner: st.dictionaries(texts, inner | st.lists(inner, max_size=2) | label_lists, max_size=3),
    max_leaves=6,
)
rates = st.floats(0, 1, exclude_max=True)
heads = st.builds(MLPHeadSection, hidden=st.integers(0), norm=st.booleans(), dropout=rates) | st.just(
    FamilyHeadSection()
)
between = st.floats(0, 1, exclude_min=True, exclude_max=True)
data = st.builds(
    DataSection,
    source=names,
    group=texts,
    labels=label_lists,
    clean=st.lists(texts),
    test_fraction=st.floats(0.01, 0.4),
)
train = st.builds(
    TrainSection,
    epochs=st.integers(1),
    lr=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    class_weights=st.sampled_from(["", "balanced"]),
    decay_all=st.booleans(),
    device=st.sampled_from(["auto", "mps", "cuda:3"]),
    decision_threshold=st.just("validation") | between,
)
ratios = st.floats(0, 2)
augment = (
    st.builds(EditWordsSection, method=st.sampled_from(["swap", "synonyms"]), ratio=ratios, fraction=between)
    | st.builds(MaskedWordsSection, method=st.just("masked-words"), model=names, fraction=between)
    | st.builds(BackTranslationSection, method=st.just("back-translation"), model=names, ratio=ratios)
)
freeze = (
    st.just(FreezeBackbone())
    | st.builds(FreezeFirst, layers=st.integers(0))
    | st.builds(FreezeAllButLast, layers=st.integers(1))
)
lora = st.builds(LoraSection, rank=st.integers(1), targets=st.lists(texts), alpha=st.floats(1, 64))
patterns = st.builds(lambda a, b, c: f"{a}{{text}}{b}{{label}}{c}", texts, texts, texts)
words = st.dictionaries(texts, texts, max_size=3)
asked = st.builds(
    PromptSection, method=st.sampled_from(["cloze", "likelihood"]), pattern=patterns, words=words, content_free=texts
) | st.builds(SimilaritySection, method=st.just("similarity"), descriptions=words)
from_scratch = st.builds(
    RunConfig,
    model=st.builds(ModelSection, architecture=names, config=tables, head=heads),
    tokenizer=st.builds(BPETokenizerSection, vocab_size=st.integers(259))
    | st.builds(CheckpointTokenizerSection, source=names.filter(lambda name: name != "bpe")),
    name=names,
    seed=st.integers(0, 2**32 - 1),
    data=data,
    augment=st.none() | augment,
    train=train,
)
published = st.builds(ModelSection, source=names, revision=texts, head=heads)
fine_tuned = st.builds(
    RunConfig, model=published, name=names, data=data, train=train, freeze=freeze, augment=st.none() | augment
) | st.builds(RunConfig, model=published, name=names, data=data, train=train, lora=lora)
adapted = st.builds(
    RunConfig,
    model=published,
    name=names,
    data=data,
    adapt=st.builds(AdaptSection, st.just(TrainSection(1, 1.0)), texts=texts, mlm_probability=between),
)
configs = (
    from_scratch | fine_tuned | adapted | st.builds(RunConfig, model=published, name=names, data=data, zero_shot=asked)
)


@given(configs)
def test_what_is_written_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, c: RunConfig) -> None:
    path = tmp_path_factory.getbasetemp() / "written.toml"
    path.write_text(dump_config(c), encoding="utf-8")
    assert load_config(path) == c


@given(texts, texts)
def test_any_change_is_taken_or_refused_in_one_way(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "small.toml"
    path.write_text(MINIMAL, encoding="utf-8")
    for where in (key, "train.lr", "data.label", "model.config." + key):
        override = f"{where}={value}"
        try:
            assert isinstance(load_config(path, [override]), RunConfig)
        except UserError as error:
            assert error.args[0].startswith(f"{override}: ")


def test_every_default_is_what_its_field_accepts(file: Path) -> None:
    written = dump_config(load_config(file))
    for section in (MLPHeadSection, BPETokenizerSection, DataSection, TrainSection):
        assert all(f"\n{k.name} = " in written or f"\n[data.{k.name}]" in written for k in fields(section))
    file.write_text(written, encoding="utf-8")
    assert load_config(file) == load_config(file, ["seed=1"])


def test_reading_a_config_needs_no_torch() -> None:
    heavy = "{'torch', 'numpy', 'matplotlib', 'tokenizers'}"
    code = f"import sys, minilm.loading; sys.exit(bool({heavy} & set(sys.modules)))"
    root = Path(config.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["data.folds=1", "data.fold=1"], "data.folds must be at least 2"),
        (["data.folds=3"], "data.fold a number from 1"),
        (["data.folds=3", "data.fold=4"], "data.fold a number from 1"),
        (["data.label_separator=,", 'data.label_columns=["a", "b"]'], "cannot be combined; use one"),
        (["data.other=drop"], "list the labels to keep"),
        (["data.window_stride=4"], 'need data.long_texts = "windows"'),
        (["data.window_scores=max", "data.long_texts=cut"], 'need data.long_texts = "windows"'),
        (["data.delimiter=::"], 'data.delimiter must be one character, or "tab"'),
        (["train.class_weights.a=0"], "train.class_weights"),
    ],
)
def test_keys_about_data_that_cannot_go_together_are_refused(file: Path, changes: list[str], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        load_config(file, changes)


def test_class_weights_may_be_a_table_by_name(file: Path) -> None:
    config = load_config(file, ["train.class_weights.spam=3", "train.class_weights.ham=0.5"])
    assert config.train is not None and config.train.class_weights == {"spam": 3, "ham": 0.5}
    file.write_text(dump_config(config), encoding="utf-8")
    assert load_config(file) == config
