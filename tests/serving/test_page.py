"""The page of ``minilm serve`` in a browser: a text with its bars and words, a table that comes back, and no other
request."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilm.evaluation.ensemble import load_predictor
from minilm.serving.app import PAGE, content_policy
from tests.browser import Browser, browser, find_browser
from tests.evaluation.classifiers import TEXTS
from tests.serving.serving import Served, serving
from tests.tiny import finished_run, minilm

WITH_BROWSER = pytest.mark.skipif(find_browser() is None, reason="there is no Chromium or Chrome")


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(load_predictor([finished_run()], "cpu"), finished_run()) as found:
        yield found


def opened(tab: Browser, served: Served) -> None:
    tab.open(f"{served.url}/")
    tab.wait_for("document.getElementById('about').textContent")


def ask(tab: Browser, text: str) -> None:
    tab.value(f"document.getElementById('text').value = {text!r}; document.getElementById('form').requestSubmit()")


@WITH_BROWSER
def test_what_is_not_there_yet_is_not_shown(tab: Browser, served: Served) -> None:
    opened(tab, served)
    shown = "[...document.querySelectorAll('[hidden]')].filter(part => getComputedStyle(part).display !== 'none')"
    assert tab.value(f"{shown}.map(part => part.id)") == []


@WITH_BROWSER
def test_a_text_gets_bars_and_the_words_that_count_and_no_request_leaves_the_page(tab: Browser, served: Served) -> None:
    opened(tab, served)
    assert "one of the labels: bad, good" in tab.value("document.getElementById('about').textContent")
    ask(tab, TEXTS[0])
    tab.wait_for("!document.getElementById('why').hidden")
    best = served.post("/predict", {"inputs": TEXTS[0]}).json[0][0]
    assert tab.value("document.querySelector('.bar.given').innerText").split() == [
        best["label"], f"{100 * best['score']:.1f}%",
    ]  # fmt: skip
    width = tab.value("document.querySelector('.bar.given div div').style.width")
    assert float(width.rstrip("%")) == pytest.approx(100 * best["score"], abs=0.01)
    assert tab.value("document.getElementById('words').textContent") == TEXTS[0]
    assert tab.value("[...document.querySelectorAll('#words span')].every(word => word.style.background)")
    tab.value("document.querySelector('.bar:not(.given) button').click()")  # the other label is explained
    other = {"good": "bad", "bad": "good"}[best["label"]]
    tab.wait_for(f"document.getElementById('why-title').textContent.includes('\"{other}\"')")
    assert all(url.startswith((f"{served.url}/", "data:")) for url in tab.requests()) and tab.reported() == []


@WITH_BROWSER
def test_what_cannot_be_answered_is_shown_and_html_in_a_text_is_text(tab: Browser, served: Served) -> None:
    opened(tab, served)
    ask(tab, " ")
    tab.wait_for("!document.getElementById('error').hidden")
    assert "text 1 is empty" in tab.value("document.getElementById('error').textContent")
    ask(tab, "<b>good</b> <img src=x onerror=alert(1)>")
    tab.wait_for("!document.getElementById('why').hidden")
    assert tab.value("document.getElementById('words').textContent").startswith("<b>good</b> <img")
    assert tab.value("document.images.length") == 0 and tab.value("document.getElementById('error').hidden")


@WITH_BROWSER
def test_an_explanation_is_of_the_text_whose_bars_are_shown(tab: Browser, served: Served) -> None:
    opened(tab, served)
    ask(tab, TEXTS[0])
    tab.wait_for("!document.getElementById('why').hidden")
    title = tab.value("document.getElementById('why-title').textContent")
    tab.value("document.getElementById('text').value = 'another text'")
    tab.value("document.querySelector('.bar:not(.given) button').click()")
    tab.wait_for(f"document.getElementById('why-title').textContent !== {title!r}")
    assert tab.value("document.getElementById('words').textContent") == TEXTS[0]
    tab.value("document.querySelectorAll('.bar button').forEach((button) => button.click())")  # the last one counts
    last = tab.value("[...document.querySelectorAll('.bar button')].at(-1).textContent")
    tab.wait_for(f"document.getElementById('why-title').textContent.includes('\"{last}\"')")


@WITH_BROWSER
def test_every_label_that_is_given_has_a_bar(tab: Browser, served: Served) -> None:
    opened(tab, served)
    labels = "Array.from({ length: 14 }, (_, i) => ({ label: `l${i}`, score: (20 - i) / 20 }))"
    tab.value(f"showBars({labels}, ['l0', 'l11'], 'a text')")
    assert tab.value("[...document.querySelectorAll('.bar.given')].map((bar) => bar.innerText.split('\\n')[0])") == [
        "l0", "l11",
    ]  # fmt: skip
    assert "and 3 other labels" in tab.value("document.getElementById('bars').textContent")


@WITH_BROWSER
def test_a_table_is_sent_again_if_its_column_is_named(tab: Browser, served: Served) -> None:
    opened(tab, served)
    tab.value(
        """(() => {
            const files = new DataTransfer();
            files.items.add(new File(["review\\nit was good\\n"], "mine.csv"));
            document.getElementById("file").files = files.files;
            document.getElementById("file").dispatchEvent(new Event("change"));
        })()"""
    )
    tab.wait_for("!document.getElementById('table-error').hidden")
    assert 'no column "text"' in tab.value("document.getElementById('table-error').textContent")
    assert tab.value("document.getElementById('file').files.length") == 0  # the same file may be chosen again
    tab.value("document.getElementById('column').value = 'review'")
    tab.value("document.getElementById('column').dispatchEvent(new Event('change'))")
    tab.wait_for("!document.getElementById('download').hidden")
    assert tab.value("document.getElementById('table-error').hidden")
    assert tab.value("document.getElementById('table-state').textContent") == "1 of 1 rows"


@WITH_BROWSER
def test_a_dropped_table_comes_back_with_labels(tab: Browser, served: Served, tmp_path: Path) -> None:
    opened(tab, served)
    rows = [("id", "text"), *((str(i), text) for i, text in enumerate(TEXTS)), ("x", "")]
    path = tmp_path / "reviews.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "downloads"))
    tab.value(
        f"""(() => {{
            const files = new DataTransfer();
            files.items.add(new File([{path.read_text()!r}], "reviews.csv"));
            document.getElementById("drop").dispatchEvent(new DragEvent("drop", {{ dataTransfer: files }}));
        }})()"""
    )
    tab.wait_for("!document.getElementById('download').hidden")
    assert tab.value("document.getElementById('table-state').textContent") == "31 of 31 rows"
    tab.value("document.getElementById('download').click()")
    answered = tmp_path / "downloads" / "reviews-labelled.csv"
    for _ in range(200):
        if answered.exists():
            break
        time.sleep(0.05)
    shown = minilm("predict", finished_run(), "--file", path, "--out", tmp_path / "out.csv").stderr.splitlines()
    assert tab.value("document.getElementById('report').textContent").splitlines() == shown
    assert answered.read_text() == (tmp_path / "out.csv").read_text()
    assert tab.reported() == []


@WITH_BROWSER
@pytest.mark.parametrize(("width", "dark"), [(380, False), (1000, True)])
def test_the_page_fits_on_a_phone_and_in_the_dark(tab: Browser, served: Served, width: int, dark: bool) -> None:
    tab.open(f"{served.url}/", width, dark)
    tab.wait_for("document.getElementById('about').textContent")
    assert tab.value("document.documentElement.scrollWidth <= window.innerWidth")
    paper = tab.value("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(22, 22, 22)" if dark else "rgb(255, 255, 255)")


def test_the_pages_policy_names_its_own_script_and_style_alone() -> None:
    page = PAGE.read_text(encoding="utf-8")
    policy = content_policy(page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
    assert "http" not in page.replace('http-equiv="', "") and " on" + "click=" not in page and "style=" not in page
