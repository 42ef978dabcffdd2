"""The numbers of experiments/RESULTS.md and of the pages in experiments/results are those of the files beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.check_results import CLAIM, EXPERIMENTS, PAGES, check, corrected

PAGE = (EXPERIMENTS / "RESULTS.md").read_text(encoding="utf-8")
FILE = """run,variant,seed,accuracy
a 1,a,1,0.5
a2,a,2,0.6
a3,a,3,0.7
b1,b,1,0.4
b2,b,2,0.55
b3,b,3,0.6
"""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_pages_numbers_are_those_of_the_files(path: Path) -> None:
    assert check(path.read_text(encoding="utf-8"), EXPERIMENTS / "results") == []


def test_every_file_of_results_is_used_by_a_page() -> None:
    used = {source.split()[0] for path in PAGES for *_, source in CLAIM.findall(path.read_text(encoding="utf-8"))}
    assert {path.stem for path in (EXPERIMENTS / "results").glob("*.csv")} == used


def test_the_page_is_short_and_links_to_all_the_others() -> None:
    assert len(PAGE.splitlines()) < 300
    assert all(f"(results/{path.name})" in PAGE for path in PAGES[1:])


@pytest.mark.parametrize(
    ("claim", "right"),
    [
        ("0.6<!-- one mean accuracy variant=a -->", True),
        ("**0.600**<!-- one mean accuracy variant=a -->", True),
        ("60%<!-- one mean accuracy variant=a -->", True),
        ("0.61<!-- one mean accuracy variant=a -->", False),
        ("0.1<!-- one sd accuracy variant=a -->", True),
        ("0.352<!-- one low accuracy variant=a -->", True),  # 0.6 - 4.303 * 0.1 / sqrt(3)
        ("0.848<!-- one high accuracy variant=a -->", True),
        ("3<!-- one count accuracy variant=a -->", True),
        ("0.7<!-- one value accuracy variant=a seed=3 -->", True),
        ("0.7<!-- one value accuracy variant=a -->", False),  # three rows
        ("0.083<!-- one difference accuracy variant=a minus variant=b -->", True),
        ("+0.083<!-- one difference accuracy variant=a minus variant=b -->", True),
        ("0.012<!-- one difference-low accuracy variant=a minus variant=b -->", True),
        ("0.038<!-- one p accuracy variant=a minus variant=b -->", True),  # scipy.stats.ttest_rel
        ("1.16<!-- one ratio accuracy variant=a over variant=b -->", True),
        ("0.972<!-- one ratio-low accuracy variant=a over variant=b -->", True),
        ("1.37<!-- one ratio-high accuracy variant=a over variant=b -->", True),
        ("0.5<!-- one value accuracy run=a_1 -->", True),  # "_" for a space
        ("0.6<!-- one mean accuracy variant=c -->", False),
        ("0.6<!-- one mean loss variant=a -->", False),
        ("0.6<!-- two mean accuracy -->", False),
        ("0.1<!-- one sd accuracy variant=a seed=1 -->", False),  # one row has none
    ],
)
def test_a_number_is_right_if_it_is_the_statistic_as_rounded(claim: str, right: bool, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text(FILE, encoding="utf-8")
    wrong = check(f"words\n{claim}\n", tmp_path)
    assert (wrong == []) == right
    assert right or wrong[0].startswith("line 2: ")


def test_a_crossing_is_between_the_last_value_below_and_the_next_one_above(tmp_path: Path) -> None:
    rows = ["1,1,0.5,0.6", "1,10,0.6,0.7", "1,100,0.8,0.7", "2,1,0.5,0.4", "2,10,0.6,0.5", "2,100,0.9,0.5"]
    (tmp_path / "few.csv").write_text("\n".join(["seed,shots,ours,theirs", *rows]), encoding="utf-8")
    crossings = {"crossing": 5.6, "crossing-min": 1, "crossing-max": 31.6}  # seed 1: 10^1.5; seed 2: the first value
    for statistic, right in crossings.items():
        assert check(f"{right}<!-- few {statistic} ours along=shots above=theirs -->", tmp_path) == []
    assert "ends at or below 0" in check("1<!-- few crossing theirs along=shots above=ours -->", tmp_path)[0]


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("0.00<!-- one mean accuracy variant=a -->", "0.60<!-- one mean accuracy variant=a -->"),
        ("**0.5**<!-- one mean accuracy variant=b -->", "**0.5**<!-- one mean accuracy variant=b -->"),
        ("+0.000<!-- one difference accuracy variant=a minus variant=b -->",
         "+0.083<!-- one difference accuracy variant=a minus variant=b -->"),
        ("0%<!-- one mean accuracy variant=a -->", "60%<!-- one mean accuracy variant=a -->"),
        ("6e-1<!-- one mean accuracy variant=a -->", "6e-1<!-- one mean accuracy variant=a -->"),
        ("0.6<!-- none mean accuracy -->", "0.6<!-- none mean accuracy -->"),  # left for ``check`` to name
    ],
)  # fmt: skip
def test_a_page_can_be_corrected_from_the_files(written: str, right: str, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text(FILE, encoding="utf-8")
    assert corrected(written, tmp_path) == right


def test_the_pages_are_as_they_would_be_corrected() -> None:
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        assert corrected(page, EXPERIMENTS / "results") == page
