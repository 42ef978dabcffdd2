"""The notebooks run from top to bottom without the network, and the answers of the tour's exercises are right."""

from __future__ import annotations

import doctest
import os
import re
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted(DOCS.glob("*.ipynb"))
ANSWER = re.compile(r"```python\n(>>>.*?)```", re.DOTALL)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_answers_are_right(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cells run in this process, which takes a third of the time of a kernel."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names: dict[str, Any] = {"__name__": "notebook"}
    failed, threads = [], torch.get_num_threads()
    try:
        for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
            if cell.cell_type == "code":
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", ".*FigureCanvasAgg is non-interactive")
                    exec(compile(cell.source, f"{path.name}, cell {number}", "exec"), names)
                plt.close("all")
            else:
                failed += [example for text in ANSWER.findall(cell.source) for example in wrong(text, names)]
    finally:
        torch.set_num_threads(threads)
    assert failed == []


def wrong(text: str, names: dict[str, Any]) -> list[str]:
    """The lines of an answer that give another value than it has. They do not change the notebook's variables."""
    test = doctest.DocTestParser().get_doctest(text, names, "answer", None, 0)
    reports: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=reports.append)
    return reports


def test_every_chapter_of_the_tour_has_an_exercise_with_an_answer() -> None:
    texts = [cell.source for cell in nbformat.read(DOCS / "tour.ipynb", as_version=4).cells]
    for chapter in range(1, 9):
        assert sum(text.startswith(f"## {chapter}. ") for text in texts) == 1
        [exercise] = [text for text in texts if f"**Exercise {chapter}.**" in text]
        assert "<details><summary>Answer</summary>" in exercise and ANSWER.search(exercise)


def test_notebooks_show_what_they_gave_and_are_small() -> None:
    assert [path.name for path in NOTEBOOKS] == ["notebook.ipynb", "tour.ipynb"]
    assert sum(os.path.getsize(path) for path in NOTEBOOKS) < 600_000
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "docs/make_notebooks.py"
        assert sum("image/png" in output.get("data", {}) for cell in code for output in cell.outputs) >= 2
        assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
        stored = path.read_text(encoding="utf-8")
        assert "/home/" not in stored and "/tmp/" not in stored
        prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        for link in re.findall(r"\]\(([\w.]+)\)", prose):
            assert (DOCS / link).exists()
