"""Sources: one label set, checked rows, splits given or made, and every defect told in one error."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minilm import hub
from minilm.config import DataSection
from minilm.data import catalog
from minilm.data.other_files import load_rows, load_texts
from minilm.data.sources import load_dataset
from minilm.errors import UserError
from tests.data.loading import ROWS, listed, load, refusal

# Defects


def test_all_defects_of_all_files_are_in_one_error(data):
    data(
        "train.tsv",
        [*ROWS[:6], ("", "bad"), ("x", ""), ("  ", "good"), ("y",), ("z", "good", 1), ("ok", "good")],
    )
    message = refusal(data("test.csv", [("x", "great"), ("", "good")]))
    assert message.startswith("x.toml: 7 defects") and message.endswith("and 2 more")
    lines = [line.split("/")[-1] for line in message.split("\n")[1:-1]]
    assert [line.split(":")[0] for line in lines] == [
        "test.csv, line 2", "test.csv, line 3",
        "train.tsv, line 8", "train.tsv, line 9", "train.tsv, line 10",
    ]  # fmt: skip
    assert 'the text (column "text") is empty' in message and 'the label (column "label") is missing' in message


def test_a_row_that_starts_after_a_text_of_several_lines_is_named_by_its_line(data, tmp_path):
    (tmp_path / "train.csv").write_text('text,label\n"one\ntwo\nthree",a\n"",b\n')
    assert "train.csv, line 5: the text" in refusal(str(tmp_path))


def test_a_cell_of_a_label_column_must_be_0_or_1(data):
    rows = [("a", 1, 0), ("b", 2, 1), ("c", 0, None)]
    message = refusal(data("train.jsonl", rows, ("text", "joy", "fear")), label_columns=["joy", "fear"])
    assert 'line 2: column "joy" must be 0 or 1, got "2"' in message
    assert 'line 3: column "fear" is missing' in message


def test_a_text_that_is_no_text_is_a_defect(data):
    message = refusal(data("train.jsonl", [(5, "a"), ("\ud800", "a"), (None, "b")]))
    assert 'line 1: the text (column "text") is 5, not text' in message
    assert "line 2: the text" in message and "contains an invalid Unicode surrogate" in message
    assert 'line 3: the text (column "text") is empty' in message


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"text": "txt"}, "data.text"), ({"text_pair": "txt"}, "data.text_pair"), ({"group": "who"}, "data.group"),
        ({"label": "y"}, "data.label"), ({"label_columns": ["joy"]}, "data.label_columns"),
    ],
)  # fmt: skip
def test_a_missing_column_is_named_with_its_key(data, section, key):
    message = refusal(data("train.csv", ROWS), **section)
    assert f"({key})" in message and 'its columns are "text", "label"' in message


def test_a_header_that_is_not_utf8_is_told_as_such(tmp_path):
    (tmp_path / "train.csv").write_bytes("treść,label\nx,a\n".encode("cp1250"))
    assert "line 1: not UTF-8" in refusal(str(tmp_path), text="treść")


def test_texts_are_cleaned_and_stripped(data):
    rows = [(" <b>A</b>  B ", "x"), ("c", "y")] * 10
    assert set(load(data("train.csv", rows)).train.texts) == {"<b>A</b>  B", "c"}
    assert "a   b" in set(load(data("train.csv", rows), clean=["tags", "lower"]).train.texts)
    assert "is empty after cleaning" in refusal(data("train.csv", [("<b>", "x"), *rows]), clean=["tags"])


# Splits


def test_splits_are_made_of_the_shares_stratified_and_by_the_seed(data):
    folder = data("train.csv", ROWS * 10)
    found = load(folder)
    assert [len(found.train), len(found.validation), len(found.test)] == [240, 30, 30]
    for rows in (found.train, found.validation, found.test):
        assert len(set(np.bincount(rows.labels))) == 1
    assert load(folder).fingerprint == found.fingerprint
    assert load(folder, split_seed=1).fingerprint != found.fingerprint
    assert found.name == Path(folder).name


def test_a_split_that_is_given_is_not_made(data):
    data("train.csv", ROWS)
    found = load(data("valid.tsv", [("new", "good")]))
    assert found.validation.texts == ["new"] and len(found.test) == 3 and len(found.train) == 27


def test_paths_of_the_splits_do_for_a_source(data, tmp_path):
    data("a.csv", ROWS)
    data("b.tsv", [("new", "good")])
    section = DataSection(train=str(tmp_path / "a.csv"), test=str(tmp_path / "b.tsv"))
    found = load_dataset(section)
    assert (found.name, len(found.train), found.test.texts) == ("a", 27, ["new"])


def test_a_column_tells_the_splits_of_one_file(data):
    splits = ["train"] * 20 + ["dev"] * 6 + ["Test"] * 4
    rows = [(*row, split) for row, split in zip(ROWS, splits, strict=True)]
    folder = data("all.csv", rows, ("text", "label", "split"))
    found = load(f"{folder}/all.csv")
    assert (found.name, found.train.texts, found.test.texts[0]) == (
        "all",
        [row[0] for row in ROWS[:20]],
        "text 26",
    )
    assert found.notes == [
        f'{folder}/all.csv: its column "split" decides the splits: 20 train, 6 validation, 4 test (data.split_column= '
        "ignores the column)"
    ]
    ignored = load(f"{folder}/all.csv", split_column="")
    assert (len(ignored.train), len(ignored.test), ignored.notes) == (24, 3, [])
    data("all.csv", rows, ("text", "label", "part"))
    assert load(f"{folder}/all.csv", split_column="part").train.texts == found.train.texts
    assert 'no column "prat" (data.split_column) (did you mean "part"?)' in refusal(
        f"{folder}/all.csv", split_column="prat"
    )
    data("all.csv", [*rows, ("t", "good", "holdout")], ("text", "label", "split"))
    assert 'line 32: column "split" must be train' in refusal(f"{folder}/all.csv")
    data("all.csv", [(*row, "test") for row in ROWS], ("text", "label", "split"))
    assert 'column "split" assigns no row to train' in refusal(f"{folder}/all.csv")


def test_a_column_that_tells_of_another_split_than_its_file_is_refused(data, tmp_path):
    columns = ("text", "label", "split")
    data("train.csv", [(*row, "training") for row in ROWS], columns)
    folder = data("test.csv", [("new", "good", "Test")], columns)
    assert len(load(folder).train) == 27  # both say what they are
    data("train.csv", [(*ROWS[0], "train"), (*ROWS[1], "test"), *((*row, "train") for row in ROWS[2:])], columns)
    assert refusal(folder) == (
        f'x.toml: {tmp_path / "train.csv"}, line 3: column "split" is "test", but the config gives the file as '
        "the train split; give only this file (data.source), or ignore the column: data.split_column="
    )
    data("train.csv", [(*row, "train" if i else "holdout") for i, row in enumerate(ROWS)], columns)
    assert 'train.csv, line 2: column "split" is "holdout"' in refusal(folder)
    data("train.csv", [(*row, "banana split") for row in ROWS], columns)
    assert len(load(folder).train) == 27  # a column about something else
    data("test.csv", [(*row, "dev") for row in ROWS[:4]], columns)
    assert "test split; give the file as data.validation, or" in refusal(folder)
    data("test.csv", [("new", "good", "dev"), ("", "good", "dev")], columns)
    assert "test.csv, line 3" in refusal(folder)  # bad rows are told first, all of them


def test_rows_of_a_group_stay_together_in_pairs_of_texts(data):
    rows = [(f"q{i // 2}", f"r{i}", i % 2) for i in range(200)]
    section = {"text": "q", "text_pair": "r", "group": "q"}
    found = load(data("train.csv", rows, ("q", "r", "label")), **section)
    questions = [set(part.texts) for part in (found.train, found.validation, found.test)]
    assert sum(map(len, questions)) == 100 == len(set.union(*questions))
    assert found.train.pairs and found.train.pairs[1] == f"r{2 * int(found.train.texts[1][1:]) + 1}"
    assert 16 <= len(found.test) <= 24 and found.warnings == []


def test_groups_on_both_sides_of_given_splits_are_a_warning(data):
    data("train.csv", [("a", "x", "1"), ("b", "y", "2")], ("text", "label", "who"))
    data("dev.csv", [("c", "x", "1")], ("text", "label", "who"))
    folder = data("test.csv", [("d", "x", "3")], ("text", "label", "who"))
    shared = '1 values of "who" have rows in both the train and the validation split'
    assert load(folder, group="who").warnings[-1] == shared
    data("test.csv", [("d", "x", "")], ("text", "label", "who"))
    assert 'column "who" (data.group) is empty' in refusal(folder, group="who")


def test_too_few_rows_for_a_split_is_an_error(data):
    assert "4 rows are too few to make a test split" in refusal(data("train.csv", ROWS[:4]))
    one_group = [(*row, "g") for row in ROWS]
    message = refusal(data("train.csv", one_group, ("text", "label", "g")), group="g")
    assert '30 rows in groups of "g" are too few' in message
    assert refusal(data("train.csv", ROWS), folds=50, fold=50).endswith("too few for 50 folds; lower data.folds")


def test_subsets_are_stratified_and_seeded(data):
    folder = data("train.csv", ROWS * 10)
    found = load(folder, train_rows=12, test_rows=6)
    assert np.bincount(found.train.labels).tolist() == [4, 4, 4] and len(found.test) == 6
    assert load(folder, train_rows=12, test_rows=6).fingerprint == found.fingerprint
    few = load(folder, train_rows=1000)
    assert len(few.train) == 240 and "data.train_rows asks for 1,000 rows" in few.warnings[-1] + few.warnings[0]


def test_shots_are_balanced_and_few_are_among_more(data):
    folder = data("train.csv", [*ROWS * 10, ("odd", "odd")])
    found = load(folder, shots=5, train_rows=200)
    assert np.bincount(found.train.labels).tolist() == [5, 5, 1, 5]
    assert "data.shots asks for 5 rows per class, but there are fewer of odd" in found.warnings
    assert set(load(folder, shots=2, train_rows=200).train.texts) <= set(found.train.texts)
    assert load(folder, shots=5, train_rows=200, split_seed=1).train.texts != found.train.texts


def test_a_file_names_the_rows_and_may_rename_their_labels(data, tmp_path):
    folder = data("train.csv", ROWS)
    whole, listed = load(folder).train, tmp_path / "rows.txt"
    listed.write_text("7\n2\n4\tso-so\n")
    found = load(folder, rows=str(listed))
    assert found.train.texts == [whole.texts[i] for i in (7, 2, 4)]
    assert found.train.labels.tolist() == [*whole.labels[[7, 2]], 2] and found.label_names[2] == "so-so"
    assert found.validation.texts == load(folder).validation.texts
    for text, words in [
        ("24", "rows.txt, line 1: must be the number of a training row, 0 to 23"),
        ("-1", "0 to 23"),
        ("3\n3", "line 2: row 3 is already in line 1"),
        ("3\tsoso", 'unknown label "soso" (did you mean "so-so"?)'),
        ("", "lists no rows"),
    ]:
        listed.write_text(text)
        assert words in refusal(folder, rows=str(listed))
    assert "data.rows: " in (missing := refusal(folder, rows=str(tmp_path / "none.txt"))) and "no such file" in missing


def test_a_pattern_is_several_files_of_one_split(data, tmp_path):
    data("part-1.csv", ROWS[:20])
    data("part-2.tsv", [*ROWS[20:], ("", "good")])
    data("test.csv", ROWS[:3])
    message = refusal(f"{tmp_path}/part-*")
    assert f"{tmp_path / 'part-2.tsv'}, line 12: the text" in message
    found = load(f"{tmp_path}/part-*", empty="skip")
    assert sum(map(len, (found.train, found.validation, found.test))) == 30 and found.name == "part"
    section = DataSection(train=f"{tmp_path}/part-?.*", test=f"{tmp_path}/test.csv", empty="skip")
    assert len(load_dataset(section).train) == 27
    assert "no-*.csv: no file matches this pattern" in refusal(f"{tmp_path}/no-*.csv")


def test_a_set_is_named_after_its_folder_where_its_file_is_named_after_a_split(data, tmp_path):
    (tmp_path / "reviews").mkdir()
    data("reviews/train.csv", ROWS)
    data("reviews/some.csv", ROWS)
    assert load("", train=str(tmp_path / "reviews" / "train.csv")).name == "reviews"
    assert load(str(tmp_path / "reviews" / "train.csv")).name == "reviews"
    assert load(str(tmp_path / "reviews" / "some.csv")).name == "some"


def test_a_folder_of_texts_and_labels_apart_is_refused_with_the_command_that_joins_them(tmp_path):
    for name in ("train_text.txt", "train_labels.txt", "test_text.txt", "test_labels.txt"):
        (tmp_path / name).write_text("a\n")
    assert f"paste {tmp_path / 'train_text.txt'} {tmp_path / 'train_labels.txt'} > joined.tsv" in refusal(str(tmp_path))


# Across rows


def test_duplicates_across_splits_and_contradictions_within_are_warnings(data, tmp_path):
    data("train.csv", [*ROWS, ("text 0", "good"), ("text 0", "bad")])
    data("dev.csv", [("text 0", "bad"), ("text 1 ", "good"), ("new", "bad")])
    found = load(data("test.csv", [("new", "good")]))
    warnings = [warning.replace(str(tmp_path) + os.sep, "") for warning in found.warnings]
    remedy = "; remove them from one file, or give all rows in one file (data.source), which minilm splits itself"
    high = "scores are too high"
    assert warnings[-3:] == [
        f"2 of 3 validation texts are also in the train split, so validation {high}: dev.csv, lines 2, 3{remedy}",
        f"1 of 1 test texts are also in the validation split, so test {high}: test.csv, line 2{remedy}",
        "3 training rows share a text with a row of a different label: train.csv, lines 2, 32, 33",
    ]
    data("dev.csv", ROWS[:8])
    assert any("dev.csv, lines 2, 3, 4, 5, 6, ...;" in warning for warning in load(str(tmp_path)).warnings)


def test_the_fingerprint_is_of_the_content_alone(data, tmp_path):
    first = load(data("train.csv", ROWS))
    (tmp_path / "train.csv").unlink()
    assert load(data("train.jsonl", ROWS)).fingerprint == first.fingerprint
    changed = [("text  0", "bad"), *ROWS[1:]]
    assert load(data("train.jsonl", changed)).fingerprint != first.fingerprint
    relabelled = [("text 0", "good"), *ROWS[1:]]
    assert load(data("train.jsonl", relabelled)).fingerprint != first.fingerprint


# Where the rows are


def test_a_folder_must_have_one_train_file(data, tmp_path):
    assert "no train file" in refusal(data("tran.csv", ROWS)) and "the folder has tran.csv" in refusal(str(tmp_path))
    data("train.csv", ROWS)
    assert "two train files, train.csv and train.tsv" in refusal(data("train.tsv", ROWS))


def test_a_source_that_is_nowhere_is_told(tmp_path):
    assert 'no data set is named "ag-new" (did you mean "ag-news"?)' in refusal("ag-new")
    assert "reviews.csv: no such file" in refusal(str(tmp_path / "reviews.csv"))
    assert "no such file or folder" in refusal(str(tmp_path / "a" / "b"))
    assert 'no data set is named "mprc" (did you mean "mrpc"?)' in refusal("mprc", sample=True)
    assert "data.sample: there is no sample for data.source = " in refusal(str(tmp_path), sample=True)
    assert "data.sample: there is no sample" in refusal("", train=str(tmp_path / "reviews.csv"), sample=True)


class Hub:
    """The Hub's data sets: files of a folder, whatever the repository."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names, self.asked = folder, names, []

    def dataset_files(self, repo_id: str, files: Sequence[str], revision: str = "") -> dict[str, Path]:
        self.asked.append((repo_id, list(files), revision))
        return {name: self.folder / name.replace("/", "-") for name in files}

    def dataset_listing(self, repo_id: str, revision: str = "") -> list[str]:
        return sorted(self.names)


@pytest.fixture
def on_hub(data, tmp_path, monkeypatch) -> Callable[..., Hub]:
    def put(*names: str, columns: tuple[str, str] = ("text", "label")) -> Hub:
        for name in names:
            data(name.replace("/", "-"), [(f"{name} {i}", i % 2) for i in range(40)], columns)
        fake = Hub(tmp_path, names)
        monkeypatch.setattr(hub, "dataset_files", fake.dataset_files)
        monkeypatch.setattr(hub, "dataset_listing", fake.dataset_listing)
        return fake

    return put


def test_what_the_config_says_counts_before_the_catalogue(on_hub, monkeypatch):
    entry = replace(catalog.entries()["polish-slang"], rows={"train": 40, "validation": 40, "test": 41})
    monkeypatch.setattr(catalog, "entries", lambda: {"polish-slang": entry})
    there = on_hub(*entry.files.values(), columns=("tekst", "sentyment"))
    found = load("polish-slang", labels=["no", "yes"])
    assert there.asked == [(entry.source, list(entry.files.values()), entry.revision)]
    assert (found.name, found.label_names, len(found.validation)) == ("polish-slang", ["no", "yes"], 40)
    assert len(found.warnings) == 1 and "40 rows, but the catalogue says 41" in found.warnings[0]
    assert load("polish-slang").label_names == ["negative", "neutral or ambiguous", "positive"]


def test_what_is_said_counts_though_it_is_the_usual():
    pairs, single = load("medical-questions-sample"), load("medical-questions-sample", text_pair="", labels=[])
    assert pairs.train.pairs and single.train.pairs is None
    assert (pairs.label_names, single.label_names) == (["different", "same"], ["0", "1"])


def test_any_set_of_the_hub_is_read_from_its_copy_as_parquet(on_hub):
    there = on_hub(".gitattributes.csv", "default/train/0000.parquet", "default/test/0000.parquet")
    found = load("user/set")
    assert (found.name, len(found.train), len(found.test)) == ("user/set", 36, 40)
    names = ["default/test/0000.parquet", "default/train/0000.parquet"]
    assert there.asked == [("user/set", names, "refs/convert/parquet")]


def test_a_configuration_of_a_set_of_the_hub_is_named_after_a_colon(on_hub):
    on_hub("cola/train/0000.parquet", "mrpc/train/0000.parquet", "mrpc/dev/0000.parquet", "wnli/test/0000.parquet")
    assert load("glue/set:mrpc").train.texts[0].startswith("mrpc/train")
    message = refusal("glue/set")
    assert "has the configurations cola, mrpc, wnli;" in message and "as in glue/set:cola" in message
    assert '(did you mean "mrpc"?)' in refusal("glue/set:mprc")
    assert "has no train split, only test" in refusal("glue/set:wnli")
    on_hub("only/train/0001.parquet", "only/train/0000.parquet")
    found = load("user/set")
    assert sum(map(len, (found.train, found.validation, found.test))) == 80


def test_one_more_file_is_read_with_the_columns_of_the_catalogue(data, tmp_path):
    data("more.csv", [("nowy", "positive"), ("stary", "0")], ("tekst", "sentyment"))
    section = listed("polish-slang", labels=["negative", "neutral", "positive"])
    rows = load_rows(tmp_path / "more.csv", section)
    assert (rows.texts, rows.labels.tolist()) == (["nowy", "stary"], [2, 0])
    with pytest.raises(UserError, match=r'unknown label "positive": the run\'s labels are a, b'):
        load_rows(tmp_path / "more.csv", replace(section, labels=["a", "b"]))


def test_a_number_in_one_more_file_is_a_place_only_where_the_config_gives_the_order(data, tmp_path):
    data("more.csv", [("a", "1"), ("b", "good")])
    listed = load_rows(tmp_path / "more.csv", DataSection(labels=["bad", "good"]), ["bad", "good"])
    assert listed.labels.tolist() == [1, 1]
    with pytest.raises(UserError, match=r'line 2: unknown label "1": the run\'s labels are bad, good') as error:
        load_rows(tmp_path / "more.csv", DataSection(), ["bad", "good"])
    assert str(error.value).startswith("1 defect ")
    with pytest.raises(UserError, match=r'line 2: unknown label "1" \(did you mean "01"\?\)'):
        load_rows(tmp_path / "more.csv", DataSection(labels=["01", "good"]))


@pytest.mark.parametrize("names", [["x", "y", "z"], ["0", "1", "2"]])
def test_one_more_file_may_have_a_number_per_label(data, tmp_path, names):
    section = DataSection(label_separator=",")
    data("more.csv", [("a", "[0, 1, 1]"), ("b", ""), ("c", "[0 0 0]")])
    assert load_rows(tmp_path / "more.csv", section, names).labels.tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 0]]
    data("more.csv", [("a", "[0, 1, 1]"), ("b", "[0, 1]")])
    with pytest.raises(UserError, match=r'line 3: column "label" must be a list of 3 numbers, 0 or 1, got \[0, 1\]'):
        load_rows(tmp_path / "more.csv", section, names)
    data("more.csv", [("a", json.dumps([names[0]])), ("b", json.dumps(names[:2]))])
    assert load_rows(tmp_path / "more.csv", section, names).labels.tolist() == [[1, 0, 0], [1, 1, 0]]


def test_an_empty_cell_among_lists_of_0_and_1_does_not_make_them_indices(data, tmp_path):
    data("more.csv", [(str(i), "[0, 1, 0]" if i % 2 else "[1, 0, 1]") for i in range(40)] + [("x", "")])
    found = load_dataset(
        DataSection(source=str(tmp_path / "more.csv"), label_separator=",", labels=["a", "b", "c"])
    )
    assert set(map(tuple, found.train.labels.tolist())) - {(0, 0, 0)} == {(0, 1, 0), (1, 0, 1)}


def test_texts_are_read_without_labels_and_pairs_as_pairs_but_checked_alike(data, tmp_path):
    path = tmp_path / "more.csv"
    data("more.csv", [(" A ", "b"), ("<i>c</i>", "d")], ("tekst", "other"))
    assert load_texts(path, DataSection(text="tekst", clean=["tags", "lower"]))[0] == [" A ", "<i>c</i>"]
    assert load_texts(path, DataSection(text="tekst", text_pair="other"))[0] == [(" A ", "b"), ("<i>c</i>", "d")]
    with pytest.raises(UserError, match=r'more\.csv: no column "text" \(data\.text in run\.toml\)'):
        load_texts(path, DataSection(), " in run.toml")
    data("more.csv", [("<i>", "b"), ("c", "d")], ("tekst", "other"))
    assert load_texts(path, DataSection(text="tekst", clean=["tags"]))[1].tolist() == [False, True]
    assert load_texts(path, DataSection(), column="other")[0] == ["b", "d"]
