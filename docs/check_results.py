"""``python -m docs.check_results``: compare the numbers of experiments/RESULTS.md, and of the pages that it links to in
experiments/results, with the files they come from. ``--write`` corrects the pages.

A number of a page that comes from a study is followed by a comment, which a browser does not show:

    0.866<!-- precision-news mean test_accuracy variant=float32 -->

It names a file of experiments/results (without ".csv"), a statistic, a column, and the rows it is taken over:
``key=value`` for each column that must have this value, with "_" for a space. Statistics are

    mean, sd, min, max, count, value      of the rows; ``value`` needs exactly one row
    low, high                             the ends of the 95% interval of the mean (Student's t)
    difference, difference-low,           of the rows after "minus" from those before it, paired by seed: its mean,
    difference-high, p                    its 95% interval, and the p value of the paired t test
    ratio                                 the mean of the rows before "over" divided by that of the rows after it
    ratio-low, ratio-high                 the 95% interval of the mean of the ratios, paired by seed
    crossing, crossing-min, crossing-max  along=AXIS above=OTHER: the value of an axis from which on a column is above
                                          another one, between two values by the logarithm; over the seeds

A number is right if it is the statistic rounded to the digits that the page shows; "%" makes it a percentage.
"""

from __future__ import annotations

import csv
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path

from minilm.evaluation import statistics
from minilm.evaluation.statistics import deviation, mean, t_interval

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
PAGES = [EXPERIMENTS / "RESULTS.md", *sorted((EXPERIMENTS / "results").glob("*.md"))]
NUMBER = r"[+-]?[0-9][0-9,]*(?:\.[0-9]+)?(?:e-?[0-9]+)?"
CLAIM = re.compile(rf"(?P<number>{NUMBER})(?P<percent>%?)\**<!-- (?P<source>[^>]*?) -->")
PLAIN: dict[str, Callable[[list[float]], float]] = {
    "mean": mean, "sd": deviation, "min": min, "max": max, "count": len, "value": lambda values: _only(values),
    "low": lambda values: _interval(values)[0], "high": lambda values: _interval(values)[1],
}  # fmt: skip
UNKNOWN = (ValueError, KeyError, OSError, ArithmeticError)  # what ``evaluate`` raises if a comment has no value
Row = Mapping[str, str]


def check(page: str, folder: Path) -> list[str]:
    """The numbers of a page that are not those of the files in ``folder``, one line each."""
    wrong = []
    for found in CLAIM.finditer(page):
        place = f"line {page.count(chr(10), 0, found.start()) + 1}: {found['number']}{found['percent']}"
        try:
            value = evaluate(found["source"], folder)
        except UNKNOWN as error:
            wrong.append(f"{place}: {found['source']}: {error}")
            continue
        shown = rounded(value * (100 if found["percent"] else 1), found["number"])
        if shown != Decimal(found["number"].replace(",", "")):
            wrong.append(f"{place} is {shown}: {found['source']}")
    return wrong


def rounded(value: float, like: str) -> Decimal:
    """A value with the digits of a number on the page."""
    exponent = Decimal(like.replace(",", "")).as_tuple().exponent
    assert isinstance(exponent, int)
    return Decimal(repr(value)).quantize(Decimal(1).scaleb(exponent))


def corrected(page: str, folder: Path) -> str:
    """The page with the numbers of the files, each with the digits, the sign and the commas that it has on the page."""

    def number(found: re.Match[str]) -> str:
        try:
            value = evaluate(found["source"], folder) * (100 if found["percent"] else 1)
        except UNKNOWN:  # ``check`` names it
            return found[0]
        if rounded(value, found["number"]) == Decimal(found["number"].replace(",", "")):
            return found[0]
        sign = "+" if found["number"].startswith("+") else "-"
        comma = "," if "," in found["number"] else ""
        shown = format(rounded(value, found["number"]), f"{sign}{comma}f")
        return shown + found[0].removeprefix(found["number"])

    return CLAIM.sub(number, page)


def evaluate(source: str, folder: Path) -> float:
    """The value of a comment. Raises one of ``UNKNOWN`` if there is none."""
    name, statistic, column, *conditions = source.split()
    rows = read(folder / f"{name}.csv")
    if statistic in PLAIN:
        return PLAIN[statistic](numbers(chosen(rows, conditions), column))
    if statistic.startswith("crossing"):
        return _crossing(rows, statistic, column, conditions)
    word = "over" if statistic.startswith("ratio") else "minus"
    if word not in conditions:
        raise ValueError(f'{statistic} needs "{word}"')
    cut = conditions.index(word)
    first, second = chosen(rows, conditions[:cut]), chosen(rows, conditions[cut + 1 :])
    if statistic == "ratio":
        return mean(numbers(first, column)) / mean(numbers(second, column))
    a, b = ({row["seed"]: float(row[column]) for row in part} for part in (first, second))
    if a.keys() != b.keys() or len(a) != len(first) or len(b) != len(second):
        raise ValueError("the rows are not one pair for each seed")
    if statistic in ("ratio-low", "ratio-high"):
        return _interval([a[seed] / b[seed] for seed in a])[statistic == "ratio-high"]
    pair = statistics.paired([b[seed] for seed in a], [a[seed] for seed in a])
    if statistic == "difference":
        return pair.difference
    if statistic == "p":
        return pair.t_test
    if pair.interval is None or statistic not in ("difference-low", "difference-high"):
        raise ValueError(f"no {statistic}")
    return pair.interval.low if statistic == "difference-low" else pair.interval.high


def _crossing(rows: Sequence[Row], statistic: str, column: str, conditions: Sequence[str]) -> float:
    options = dict(condition.split("=", 1) for condition in conditions if condition.startswith(("along=", "above=")))
    found = chosen(rows, [c for c in conditions if not c.startswith(("along=", "above="))])
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in found:
        gain = float(row[column]) - float(row[options["above"]])
        lines.setdefault(row["seed"], []).append((math.log(float(row[options["along"]])), gain))
    logs = [_last_crossing(sorted(line)) for line in lines.values()]
    chooser = {"crossing": mean, "crossing-min": min, "crossing-max": max}[statistic]
    return math.exp(chooser(logs))


def _last_crossing(line: Sequence[tuple[float, float]]) -> float:
    """Where a line is above 0 from there on: its first point if it is always above 0."""
    if line[-1][1] <= 0:
        raise ValueError("the line ends at or below 0")
    below = [i for i, (_, gain) in enumerate(line) if gain <= 0]
    if not below:
        return line[0][0]
    (x, low), (right, high) = line[below[-1]], line[below[-1] + 1]
    return x + (right - x) * -low / (high - low)


@cache
def read(path: Path) -> list[Row]:
    """The rows of a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def chosen(rows: Sequence[Row], conditions: Sequence[str]) -> list[Row]:
    """The rows that meet all conditions."""
    wanted = [condition.split("=", 1) for condition in conditions]
    found = [row for row in rows if all(row[key].replace(" ", "_") == value for key, value in wanted)]
    if not found:
        raise ValueError("no such rows")
    return found


def numbers(rows: Sequence[Row], column: str) -> list[float]:
    """A column's values."""
    return [float(row[column]) for row in rows]


def _only(values: list[float]) -> float:
    if len(values) != 1:
        raise ValueError(f"{len(values)} rows")
    return values[0]


def _interval(values: list[float]) -> tuple[float, float]:
    interval = t_interval(values)
    if interval is None:
        raise ValueError("no interval")
    return interval.low, interval.high


def main(write: bool) -> int:
    """Check the pages, and print what is wrong; with ``write``, correct it first."""
    for path in PAGES if write else ():
        path.write_text(corrected(path.read_text(encoding="utf-8"), EXPERIMENTS / "results"), encoding="utf-8")
    pages = {path.name: path.read_text(encoding="utf-8") for path in PAGES}
    wrong = [f"{name}, {line}" for name, page in pages.items() for line in check(page, EXPERIMENTS / "results")]
    count = sum(len(CLAIM.findall(page)) for page in pages.values())
    print("\n".join(wrong) or f"{count} numbers are those of the files")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] == ["--write"]))
