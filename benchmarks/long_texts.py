"""Long texts: does it pay to read all of them in windows? ``python -m benchmarks.long_texts [FOLDER]``

Texts as IMDB has them, of 100 to 800 words, are made of news items (AG News): the first two are of other topics, most
of the rest, as many as make the length, of the topic that is the label. So the beginning misleads. all-MiniLM-L6-v2
reads 128 tokens of them, whose last layer is trained: the beginning (cut), beginning and end (head-tail), or all in
windows. Five seeds each, the same texts; beside the accuracies, McNemar's test on the answers of all seeds' majority.
"""

from __future__ import annotations

import csv
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from minilm.evaluation.statistics import mcnemar
from minilm.runs.shared_cache import shared_cache
from minilm.runs.train import train_run

NEWS = Path(__file__).parents[2] / "shared" / "data" / "ag_news"
WEIGHTS = Path(__file__).parents[1] / "weights" / "minilm"
SIZES = {"train": 240, "dev": 60, "test": 240}
WAYS, SEEDS = ("cut", "head-tail", "windows"), (1, 2, 3, 4, 5)
CONFIG = """
name = "long"
[model]
source = "{weights}"
[model.head]
pooling = "mean"
[data]
source = "{data}"
max_tokens = 128
[freeze]
part = "all-but-last"
layers = 1
[train]
epochs = 3
batch_size = 16
lr = 1e-3
warmup = 0.1
best = "macro_f1"
threads = 1
"""


def items(split: str) -> dict[str, list[str]]:
    """News items by topic."""
    found: dict[str, list[str]] = {}
    with (NEWS / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["label"], []).append(row["text"])
    return found


def write_texts(path: Path, rows: int, news: dict[str, list[str]], seed: int) -> None:
    """A file of long texts."""
    chance = random.Random(seed)
    short = {topic: [text for text in texts if len(text.split()) < 30] for topic, texts in news.items()}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(rows):
            topic = sorted(news)[i % len(news)]
            others = [other for other in sorted(news) if other != topic]
            parts = [chance.choice(short[other]) for other in chance.sample(others, 2)]
            length = chance.randint(100, 800)
            while sum(len(part.split()) for part in parts) < length:
                own = len(parts) == 2 or chance.random() < 0.8
                parts.append(chance.choice(news[topic if own else chance.choice(others)]))
            writer.writerow([" ".join(parts), topic])


def train(config: Path, way: str, seed: int, runs: Path) -> tuple[float, np.ndarray]:
    """The test accuracy of a run, and its answers."""
    name = f"{way}-{seed}"
    changes = [f"name={name}", f"seed={seed}", f"data.long_texts={way}"]
    changes += ["data.window_stride=100"] if way == "windows" else []
    folder = train_run(config, changes, runs=runs)
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    accuracy = json.loads((folder / "results.json").read_text())["test"]["accuracy"]
    return accuracy, np.array([(row["label"], row["predicted"]) for row in rows])


def main(folder: Path) -> None:
    """Print the accuracies of each way, and how the ways compare."""
    for stream, (split, rows) in enumerate(SIZES.items()):
        write_texts(folder / f"{split}.csv", rows, items("test" if split == "test" else "train"), stream)
    config = folder / "long.toml"
    config.write_text(CONFIG.format(weights=WEIGHTS, data=folder))
    right: dict[str, np.ndarray] = {}
    for way in WAYS:
        with shared_cache():
            accuracies, answers = zip(*(train(config, way, seed, folder / "runs") for seed in SEEDS), strict=True)
        labels = answers[0][:, 0]
        voted = [Counter(row).most_common(1)[0][0] for row in np.stack([a[:, 1] for a in answers], axis=1)]
        right[way] = np.array(voted) == labels
        shown = " ".join(f"{accuracy:.4f}" for accuracy in accuracies)
        mean, majority = np.mean(accuracies), right[way].mean()
        print(f"{way:<10} accuracy {mean:.4f} (seeds {shown}), by majority {majority:.4f}", flush=True)
    for first, second in (("windows", "cut"), ("windows", "head-tail"), ("head-tail", "cut")):
        only, other = (right[first] & ~right[second]).sum(), (right[second] & ~right[first]).sum()
        p = mcnemar(right[first], right[second])
        print(f"{first} alone right {only}, {second} alone right {other}: McNemar p = {p:.2g}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as place:
            main(Path(place))
