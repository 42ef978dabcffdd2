import pytest

from minilm.errors import UserError
from minilm.reporting.compare import compare_markdown, compare_text, load_runs


def two_runs(make_run, results):
    first = make_run(results, name="zwei")
    results["test"]["macro_f1"] = 0.63
    return load_runs([first, make_run(results, name="eins", config='[model]\nsource = "bielik"\n')])


def test_runs_stand_side_by_side_in_the_order_given(make_run, results):
    quality, cost = compare_text(two_runs(make_run, results)).split("\n\n")
    splits, names, _, *rows = [line.split() for line in quality.splitlines()]
    assert splits == ["test"] * 4 + ["validation"] * 4
    assert names == ["run", "model", *["loss", "accuracy", "macro", "F1", "MCC"] * 2]
    assert rows[0][:5] == ["zwei", "GPT-2,", "from", "scratch", "0.9800"]
    assert rows[0][5:] == ["0.5833", "0.5120", "0.2900", "0.9700", "0.5500", "0.4800", "0.2500"]
    assert rows[1][:5] == ["eins", "bielik", "0.9800", "0.5833", "0.6300"]
    assert cost.splitlines()[-1].split() == ["eins", "5.73M", "5.73M", "4", "min", "12", "s", "15.3k", "0.21", "s"]


def test_markdown_has_the_same_tables(make_run, results):
    text = compare_markdown(two_runs(make_run, results))
    assert "| run | model | test loss | test accuracy | test macro F1 | test MCC | validation loss |" in text
    assert "| eins | bielik | 0.9800 | 0.5833 | 0.6300 | 0.2900 |" in text
    assert "| eins | 5.73M | 5.73M | 4 min 12 s | 15.3k | 0.21 s |" in text


def test_runs_on_other_data_are_said_not_to_compare(make_run, results):
    first = make_run(results, name="one")
    results["data"]["fingerprint"] = "ff" * 32
    runs = load_runs([first, make_run(results, name="two")])
    note = "Not the same data, so the metrics do not compare: one: polish_slang ab12ab12, two: polish_slang ffffffff."
    assert compare_text(runs).endswith(note) and compare_markdown(runs).endswith(note)


def test_one_label_and_several_labels_a_text_share_a_table(make_run, results, several_results):
    runs = load_runs([make_run(results, name="one"), make_run(several_results, name="several")])
    header, _, one, several = (line.split(" | ") for line in compare_markdown(runs).splitlines()[:4])
    assert "test MCC" in header and "test Jaccard" in header
    assert one[header.index("test Jaccard")] == several[header.index("test MCC")] == "-"
    assert (one[header.index("test MCC")], several[header.index("test Jaccard")]) == ("0.2900", "0.5000")


def test_what_a_run_did_not_measure_is_left_open(make_run, results):
    del results["test"], results["times"]["train_seconds"]
    quality, cost = compare_text(load_runs([make_run(results)])).split("\n\n")
    assert quality.split()[-8:] == ["-"] * 4 + ["0.9700", "0.5500", "0.4800", "0.2500"]
    assert cost.split()[-4:] == ["-", "15.3k", "0.21", "s"]


def test_a_folder_that_is_no_run_is_named_and_nothing_is_an_error(tmp_path):
    with pytest.raises(UserError, match="not a run's folder"):
        load_runs([tmp_path])
    with pytest.raises(UserError, match="nothing to compare"):
        load_runs([])
