"""Run the notebooks of this folder from top to bottom, and store what they show: ``python docs/make_notebooks.py``.

Needs nbclient and ipykernel, which the extra ``dev`` has. Each runs in an empty folder, without the network.
"""

from __future__ import annotations

import base64
import io
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = sorted(Path(__file__).parent.glob("*.ipynb"))


def main() -> None:
    """Run all notebooks. Raises nbclient's CellExecutionError if a cell fails."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times, which differ from run to run
            if cell.cell_type == "code":
                cell.outputs = tidied(cell.outputs)
        notebook.metadata["language_info"] = {"name": "python"}
        nbformat.write(notebook, path)
        print(f"{path}: {path.stat().st_size // 1000} kB")


def tidied(outputs: list[Any]) -> list[Any]:
    """The outputs with small pictures and without progress bars; what was printed in pieces is one text."""
    kept: list[Any] = []
    for output in outputs:
        if output.output_type == "stream":
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
            else:
                kept.append(nbformat.from_dict({**output, "name": "stdout"}))
            continue
        if "image/png" in (data := output.get("data", {})):
            data["image/png"] = smaller(data["image/png"])
        if "text/html" in data:
            data["text/html"] = re.sub(
                r"(?<=data:image/png;base64,)[\w+/=]+", lambda found: smaller(found[0]), data["text/html"]
            )
        kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = re.sub(r"[^\n]*\r| *\d+%\|[^\n\]]*\]", "", output.text)  # what was overwritten, and bars
    return kept


def smaller(picture: str) -> str:
    """A PNG in base64, with at most 256 colours."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image.thumbnail((900, 900))
    file = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(file, format="PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    main()
