"""The catalogue: every entry is whole, and speaks of fields that a config has."""

import subprocess
import sys
from dataclasses import fields

import pytest

from minilm.config import SPLITS, DataSection
from minilm.data import catalog
from minilm.errors import UserError

KEYS = {f.name for f in fields(DataSection)}


@pytest.mark.parametrize("entry", catalog.entries().values(), ids=lambda entry: entry.name)
def test_entries_are_whole(entry):
    assert entry.about.endswith(".") and entry.licence and entry.origin
    assert set(entry.data) < KEYS
    splits = entry.files or {"train": entry.source}
    assert set(entry.rows) == set(splits) <= set(SPLITS) and "train" in splits
    assert entry.source.count("/") == 1 and (entry.files or entry.file.is_file())


def test_the_studies_sets_are_there():
    known = catalog.entries()
    assert known["polish-slang"].rows == {"train": 4337, "validation": 542, "test": 543}
    assert {"polish-slang-sample", "ag-news", "mrpc", "medical-questions", "tweet-emotions"} <= set(known)


def test_a_configuration_differs_where_it_says_so():
    known = catalog.entries()
    set_, configuration = known["tweet-emotions"], known["tweet-emotions:spanish"]
    assert configuration.source == set_.source and configuration.data == set_.data
    assert configuration.files["train"] != set_.files["train"]


def test_a_name_is_an_entry_and_a_path_or_a_hub_id_is_none(tmp_path):
    assert catalog.find("mrpc") is catalog.entries()["mrpc"]
    assert catalog.find("user/set") is catalog.find("reviews.csv") is catalog.find(str(tmp_path)) is None
    with pytest.raises(UserError, match=r'^data\.source: no data set is named "tweet-emotion" .did you mean "tweet-'):
        catalog.find("tweet-emotion")


def test_the_catalogue_is_told_in_words():
    assert [line.split()[0] for line in catalog.listing().split("\n")] == list(catalog.entries())
    told = catalog.describe("tweet-emotions")
    for fact in ("train 6,838, test 886", "text: Tweet", "column of 0 and 1", "anger, ant", "tweet-emotions:spanish"):
        assert fact in told, fact
    assert "label: label" in catalog.describe("mrpc") and "polish_slang.tsv" in catalog.describe("polish-slang-sample")
    with pytest.raises(UserError, match=r'no data set is named "mprc" .did you mean "mrpc"'):
        catalog.describe("mprc")


def test_the_catalogue_is_read_without_numpy():
    code = "import sys, minilm.data.catalog as c; c.entries(); print({'numpy', 'torch'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
