"""``minilm serve`` under load: 1,000 requests from 32 clients, beside ``minilm predict --file`` on the same texts.

all-MiniLM-L6-v2 with an untrained head on single sentences of MRPC. Each client sends one text, waits for its answer,
and sends the next. Server and clients share the machine, and so the clients' work counts against the server. Both sides
load the model before the clock starts. The two take turns, so that a machine whose speed drifts favours neither.

No answer may be lost or be another text's. The throughput must be at least 0.8 of that of ``predict``: by the clock,
and by the CPU seconds of server and clients, which other programs on the machine do not change. The 95th percentile of
the times to an answer must be below 1.5 times 32 / throughput, which is the mean time if all wait in turn.
"""

from __future__ import annotations

import csv
import http.client
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import torch

from benchmarks.finetuning import WEIGHTS, write_texts
from benchmarks.timing import Result
from minilm.checkpoints.models import load_model, save_model
from minilm.data.tokenization import load_tokenizer
from minilm.evaluation.ensemble import load_predictor
from minilm.evaluation.predictor import Predictor
from minilm.runs.predict import TableJob, predict_file

REQUESTS, CLIENTS, ROUNDS = 1000, 32, 3
THROUGHPUT, LATE = 0.8, 1.5  # of predict's; of CLIENTS / throughput


@dataclass
class Load:
    """What the clients found in one round."""

    seconds: float = 0.0  # of all requests together
    cpu: float = 0.0  # CPU seconds of the server and the clients
    times: list[float] = field(default_factory=list)  # of each request
    answers: dict[int, str] = field(default_factory=dict)  # request -> the most probable label
    errors: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.answers) / self.seconds

    @property
    def p95(self) -> float:
        """Seconds in which 95% of the requests were answered."""
        return statistics.quantiles(self.times, n=20)[-1]


def run() -> Iterator[Result]:
    """Lost answers, throughput and lateness."""
    if not (WEIGHTS / "model.safetensors").exists():
        raise SystemExit("serving: needs all-MiniLM-L6-v2 in weights/minilm; get it with: make weights MODEL=minilm")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = make_texts(folder)
        predictor = load_predictor([folder / "model"])
        with server(folder / "model") as place:
            rounds = [(predict(predictor, folder), load(place, texts)) for _ in range(ROUNDS + 1)][1:]
    if errors := [error for _, served in rounds for error in served.errors]:
        print(f"serving: {len(errors):,} requests failed, the first with: {errors[0]}", file=sys.stderr)
    total = len(texts)
    right = sum(
        served.answers.get(i) == label for file, served in rounds for i, label in enumerate(file.labels)
    ) / (ROUNDS * total)  # fmt: skip
    yield Result(f"{ROUNDS} x {total} requests, {CLIENTS} clients: own answers", right, 1, right, 1.0, "of all")
    by_clock = [(total / served.seconds, total / file.seconds) for file, served in rounds]
    by_cpu = [(total / served.cpu, total / file.cpu) for file, served in rounds]
    yield beside("throughput, against minilm predict --file", by_clock, THROUGHPUT, "texts/s")
    yield beside("the same, with the clients' work", by_cpu, THROUGHPUT, "texts/CPU s")
    late = [(served.p95, LATE * CLIENTS / served.rate) for _, served in rounds]
    p95, allowed = (statistics.median(side) for side in zip(*late, strict=True))
    yield Result("95% answered within, the limit is", p95, allowed, allowed / p95, 1.0, "s")


def beside(words: str, rates: Sequence[tuple[float, float]], aim: float, unit: str) -> Result:
    """The medians of both sides, and of the ratios."""
    ours, peer = (statistics.median(side) for side in zip(*rates, strict=True))
    return Result(words, ours, peer, statistics.median(a / b for a, b in rates), aim, unit)


def make_texts(folder: Path) -> list[str]:
    """A model in a folder, and ``texts.csv`` with as many sentences as there are requests."""
    write_texts(folder)
    with (folder / "train.csv").open(newline="", encoding="utf-8") as file:
        found = [row[key] for row in csv.DictReader(file) for key in ("sentence1", "sentence2")]
    texts = [found[i % len(found)] for i in range(REQUESTS)]
    with (folder / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    torch.manual_seed(1)
    model = load_model(WEIGHTS, "classify", labels=["different", "same"])
    save_model(model, folder / "model", tokenizer=load_tokenizer(WEIGHTS))
    return texts


class Answered(NamedTuple):
    """What ``minilm predict --file`` took, without loading the model, and its labels."""

    seconds: float
    cpu: float
    labels: list[str]


def predict(predictor: Predictor, folder: Path) -> Answered:
    """Answer the texts as a table."""
    out = folder / "out.csv"
    started, cpu = time.perf_counter(), time.process_time()
    predict_file(predictor, folder / "model", TableJob(folder / "texts.csv", out, overwrite=True))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    with out.open(newline="", encoding="utf-8") as file:
        return Answered(seconds, cpu, [row["predicted"] for row in csv.DictReader(file)])


@contextmanager
def server(model: Path) -> Iterator[str]:
    """The address of ``minilm serve`` in a process of its own."""
    command = [sys.executable, "-m", "minilm", "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            found = re.search(r"http://\S+(?=;)", process.stderr.readline())
            assert found, "the server did not start"
            yield urlsplit(found[0]).netloc
        finally:
            process.send_signal(signal.SIGTERM)


def load(place: str, texts: list[str]) -> Load:
    """Send every text once, from all clients."""
    found, numbers, lock = Load(), iter(range(len(texts))), threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection(place, timeout=120)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            body = json.dumps({"inputs": texts[number], "parameters": {"top_k": 1}})
            started = time.perf_counter()
            connection.request("POST", "/predict", body)
            answer = connection.getresponse()
            content = answer.read()
            taken = time.perf_counter() - started
            with lock:
                found.times.append(taken)
                if answer.status == 200:
                    found.answers[number] = json.loads(content)[0][0]["label"]
                else:
                    found.errors.append(content.decode())

    started, cpu = time.perf_counter(), time.process_time() + server_cpu(place)
    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    found.seconds, found.cpu = time.perf_counter() - started, time.process_time() + server_cpu(place) - cpu
    return found


def server_cpu(place: str) -> float:
    """The CPU seconds of the server since its start."""
    connection = http.client.HTTPConnection(place, timeout=120)
    connection.request("GET", "/metrics")
    found = re.search(r"^process_cpu_seconds_total (\S+)", connection.getresponse().read().decode(), re.MULTILINE)
    assert found
    return float(found[1])
