"""Reading, checking and splitting takes memory that grows by less than three times the file."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import resource, sys
from minilm.config import DataSection
from minilm.data.sources import load_dataset
load_dataset(DataSection(source=sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def write(path: Path, rows: int, letters: str) -> Path:
    chance = random.Random(0)
    words = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(5000)]
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for i in range(rows):
            file.write(f"{' '.join(chance.choices(words, k=38))},class {i % 20}\n")
    return path


def peak(path: Path) -> int:
    """Bytes at most that a process takes which loads the file."""
    result = subprocess.run([sys.executable, "-c", CODE, str(path)], capture_output=True, text=True, check=True)
    return int(result.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows tells no peak of memory")
@pytest.mark.parametrize(
    "rows", [40_000, pytest.param(1_000_000, marks=pytest.mark.slow(reason="it takes some minutes"))]
)
@pytest.mark.parametrize("letters", ["abcdefghijklmnoprstuwyz", "abcdefghijklmnoprstuwyząćęłńóśźż"])
def test_memory_grows_by_less_than_three_times_the_file(tmp_path, rows, letters):
    small, large = write(tmp_path / "small.csv", 1000, letters), write(tmp_path / "large.csv", rows, letters)
    assert peak(large) - peak(small) < 3 * large.stat().st_size
