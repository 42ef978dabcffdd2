"""Requests and answers: what ``minilm predict`` gives, in the form of the Hub's API; what is refused, in one line."""

from __future__ import annotations

import csv
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from huggingface_hub import InferenceClient

from minilm.evaluation.decisions import Decision
from minilm.evaluation.ensemble import load_predictor
from minilm.evaluation.predictor import Predictor
from minilm.serving import app as web
from minilm.serving import server as listening
from minilm.serving.api import Limits
from tests.evaluation.classifiers import TEXTS, classifier
from tests.serving.serving import Served, serving
from tests.tiny import finished_run, minilm


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(load_predictor([finished_run()], "cpu"), finished_run(), limits=Limits(2**16, 1000, 50)) as found:
        yield found


def scores_of(labels: list[dict[str, Any]]) -> dict[str, float]:
    return {each["label"]: each["score"] for each in labels}


# --- /predict ---


def test_answers_are_those_of_minilm_predict(served: Served) -> None:
    found = served.post("/predict", {"inputs": TEXTS}).json
    lines = minilm("predict", finished_run(), "--json", stdin="\n".join(TEXTS)).stdout.splitlines()
    for labels, line in zip(found, map(json.loads, lines), strict=True):
        assert scores_of(labels) == pytest.approx(line["scores"], abs=1e-6)
        assert [labels[0]["label"]] == line["labels"]
    assert scores_of(served.post("/", {"inputs": TEXTS[3]}).json[0]) == pytest.approx(scores_of(found[3]), abs=1e-6)


def test_the_hubs_own_client_reads_them(served: Served) -> None:
    client = InferenceClient(model=f"{served.url}/predict")
    best, other = client.text_classification(TEXTS[0])
    assert best.score > other.score and best.score + other.score == pytest.approx(1)
    [only] = client.text_classification(TEXTS[0], top_k=1)
    assert (only.label, only.score) == (best.label, best.score)
    both = client.text_classification(TEXTS[0], function_to_apply="sigmoid")
    assert sum(each.score for each in both) != pytest.approx(1)


def test_every_request_gets_its_own_answer_and_none_is_lost(served: Served) -> None:
    alone = [scores_of(labels) for labels in served.post("/predict", {"inputs": TEXTS}).json]
    order = np.random.default_rng(0).integers(len(TEXTS), size=200).tolist()
    with ThreadPoolExecutor(16) as clients:
        found = list(clients.map(lambda i: served.post("/predict", {"inputs": TEXTS[i]}).json, order))
    for i, [labels] in zip(order, found, strict=True):
        assert scores_of(labels) == pytest.approx(alone[i], abs=1e-6)
    batches = [line for line in served.get("/metrics").body.decode().splitlines() if "batch_texts_count" in line]
    assert int(batches[0].split()[1]) < 200  # texts that came together were answered together


def ask(predictor: Predictor, inputs: Any, **parameters: Any) -> Any:
    with serving(predictor, finished_run()) as found:
        return found.post("/predict", {"inputs": inputs, "parameters": parameters}).json


def test_temperature_and_thresholds_of_several_labels_are_applied() -> None:
    model = classifier(several=True, threshold=[0.4, 0.6, 0.5], temperature=[2.0, 1.0, 0.5])
    [given] = ask(model, TEXTS[0], only_predicted=True)
    [scores] = model.predict([TEXTS[0]])
    assert sorted(each["label"] for each in given) == sorted(model.decide(scores))
    assert scores_of(given).items() <= {name: pytest.approx(p, abs=1e-6) for name, p in scores.items()}.items()
    [everything] = ask(model, TEXTS[0])
    assert [each["label"] for each in everything] == sorted(scores, key=lambda name: -scores[name])


def test_the_label_that_a_threshold_gives_comes_first() -> None:
    predictor = load_predictor([finished_run()], "cpu")
    [scores] = predictor.predict([TEXTS[0]])
    less = min(scores, key=lambda name: scores[name])
    threshold = 0.999999 if less == "bad" else 1e-6  # of the second class, "good"
    predictor.decision = predictor.decision.with_threshold(threshold, 2)
    [labels] = ask(predictor, TEXTS[0])
    assert labels[0]["label"] == less and labels[0]["score"] < labels[1]["score"]
    [only] = ask(predictor, TEXTS[0], only_predicted=True)
    assert [each["label"] for each in only] == [less]


def test_an_unsure_answer_has_no_label() -> None:
    predictor = load_predictor([finished_run()], "cpu")
    predictor.decision = predictor.decision.with_unsure_below(1.0)
    assert ask(predictor, TEXTS[:2], only_predicted=True) == [[], []]


def test_a_score_is_a_score_and_pairs_are_pairs() -> None:
    model = classifier(pairs=True)
    model.decision = Decision("score", raw=True)
    pair = {"text": TEXTS[0], "text_pair": TEXTS[1]}
    with serving(model, finished_run()) as found:
        [labels] = found.post("/predict", {"inputs": pair}).json
        assert scores_of(labels) == pytest.approx(model.predict([(TEXTS[0], TEXTS[1])])[0], abs=1e-6)
        assert "gives a score and no labels" in found.post(
            "/predict", {"inputs": [pair], "parameters": {"only_predicted": True}}
        ).error  # fmt: skip
        assert "this model reads pairs of texts" in found.post("/predict", {"inputs": TEXTS[0]}).error


# --- Refused ---


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "the body is not JSON (Expecting property name"),
        (b"[" * 50_000, 400, "the body is not JSON (maximum recursion"),
        (b"\xff", 400, "the body is not JSON"),
        (["text"], 400, "the body must be an object"),
        ({"text": "a"}, 400, 'has no key "text"'),
        ({}, 400, 'needs the key "inputs"'),
        ({"inputs": []}, 400, "inputs is empty"),
        ({"inputs": ["a", 3]}, 400, "inputs, text 2 must be a text"),
        ({"inputs": [" "]}, 400, "inputs, text 1 is empty"),
        ({"inputs": ["a"] * 51}, 413, "inputs has 51 texts, more than 50"),
        ({"inputs": "x" * 1001}, 413, "inputs, text 1 has 1,001 characters, more than 1,000"),
        ({"inputs": "a \ud800"}, 400, "invalid Unicode surrogate"),
        ({"inputs": ["a", {"text": "a", "text_pair": "b"}]}, 400, "either single texts or pairs"),
        ({"inputs": {"text": "a", "text_pair": "b"}}, 400, "this model reads single texts"),
        ({"inputs": "a", "parameters": {"topk": 1}}, 400, 'topk is not a known key (did you mean "parameters.top_k"?)'),
        ({"inputs": "a", "parameters": {"top_k": 0}}, 400, "top_k must be a whole number of at least 1"),
        ({"inputs": "a", "parameters": {"function_to_apply": "tanh"}}, 400, "function_to_apply must be"),
        ({"inputs": "a", "parameters": 3}, 400, "parameters must be an object"),
        (b'{"inputs": "' + b"x" * 2**17, 413, "the body has more than 0.0625 MiB"),
    ],
)
def test_a_request_that_cannot_be_answered_gets_one_line(served: Served, body: Any, status: int, message: str) -> None:
    found = served.post("/predict", body)
    assert found.status == status and message in found.error


def test_other_addresses_are_refused_too(served: Served) -> None:
    assert served.get("/nothing").status == 404 and "GET /nothing: not found" in served.get("/nothing").error
    assert served.get("/predict").status == 405


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, open_gate = classifier(), threading.Event()
    scores = predictor.scores_of_clean
    monkeypatch.setattr(predictor, "scores_of_clean", lambda *given: (open_gate.wait(10), scores(*given))[1])
    with serving(predictor, finished_run(), room=3, batch=2) as found, ThreadPoolExecutor(8) as clients:
        waiting = [clients.submit(found.post, "/predict", {"inputs": TEXTS[i]}) for i in range(2)]
        while not found.service.metrics.batch_sizes.sum:
            time.sleep(0.01)
        refused = found.post("/predict", {"inputs": TEXTS[:4]})
        assert refused.status == 503 and int(refused.headers["retry-after"]) >= 1 and "try again in" in refused.error
        open_gate.set()
        assert all(each.result().status == 200 for each in waiting)


def test_a_text_without_tokens_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from minilm.data.tokenization import NoTokens

    predictor = classifier()
    scores = predictor.scores_of_clean

    def without(texts: list[str], pairs: list[str] | None) -> np.ndarray:
        if rows := [i for i, text in enumerate(texts) if text == "none"]:
            raise NoTokens("no tokens", rows)
        return scores(texts, pairs)

    monkeypatch.setattr(predictor, "scores_of_clean", without)
    with serving(predictor, finished_run()) as found, ThreadPoolExecutor(4) as clients:
        good, bad = (clients.submit(found.post, "/predict", {"inputs": x}) for x in (TEXTS[:2], [TEXTS[2], "none"]))
        assert good.result().status == 200
        assert "inputs, text 2: the tokenizer finds no token" in bad.result().error


def test_a_fault_of_ours_is_an_error_500_and_the_next_request_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = classifier()
    with serving(predictor, finished_run()) as found:
        with monkeypatch.context() as patch:
            patch.setattr(predictor, "scores_of_clean", lambda *given: {}["key"])
            failed = found.post("/predict", {"inputs": "a"})
            assert failed.status == 500 and "an error of the server" in failed.error
        assert found.post("/predict", {"inputs": "a"}).status == 200


# --- Clients that are slow, or send too much ---


def test_a_body_of_100_megabytes_is_refused(served: Served) -> None:
    found = served.post("/predict", b"x" * 100_000_000)
    assert found.status == 413 and "the body has more than" in found.error
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10**8}\r\nExpect: 100-continue\r\n\r\n"
    assert b" 413 " in raw(served, head.encode())  # such a client sends no byte of it


def test_a_slow_body_and_a_slow_head_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.2)
    with serving(classifier(), finished_run()) as found:
        assert b" 408 " in raw(found, b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        assert raw(found, b"POST /pre") == b""
        assert found.post("/predict", {"inputs": TEXTS[0]}).status == 200


def raw(served: Served, data: bytes) -> bytes:
    """All that the server answers to these bytes until it closes the connection."""
    place = urlsplit(served.url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        connection.sendall(data)
        found = b""
        while chunk := connection.recv(1 << 16):
            found += chunk
        return found


def test_health_is_answered_while_a_large_request_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model, gate, begun = classifier(), threading.Event(), threading.Event()
    clean = model.clean
    monkeypatch.setattr(model, "clean", lambda text: (begun.set(), gate.wait(10), clean(text))[2])
    with serving(model, finished_run()) as found, ThreadPoolExecutor(2) as clients:
        waiting = [clients.submit(found.post, path, {"inputs": TEXTS[0]}) for path in ("/predict", "/explain")]
        assert begun.wait(10)
        started = time.monotonic()
        assert found.get("/health").status == 200 and time.monotonic() - started < 5
        gate.set()
        assert [each.result().status for each in waiting] == [200, 200]


# --- Where a request comes from ---


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:{port}", "", 200), ("[::1]:{port}", "", 200), ("127.0.0.1", "", 200), ("LOCALHOST", "", 200),
        ("evil.example:{port}", "", 403), ("127.0.0.1.evil.example", "", 403), ("[::2]", "", 403), ("", "", 403),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}", 200), ("localhost:9000", "http://localhost:9000", 200),
        ("127.0.0.1:{port}", "https://evil.example", 403), ("127.0.0.1:{port}", "null", 403),
        ("127.0.0.1:{port}", "http://127.0.0.1:1", 403),
    ],
)  # fmt: skip
def test_only_this_machines_own_addresses_are_answered(served: Served, host: str, origin: str, status: int) -> None:
    port = str(urlsplit(served.url).port)
    headers = {"Host": host.replace("{port}", port)} | ({"Origin": origin.replace("{port}", port)} if origin else {})
    found = served.post("/predict", {"inputs": TEXTS[0]}, **headers)
    assert found.status == status
    if status == 403:
        assert ("Origin" if origin else "Host") in found.error
    assert served.send("GET", "/health", **headers).status == (status if not origin else 200)


# --- /explain, /health, /metrics ---


def test_an_explanation_is_that_of_minilm_explain(served: Served) -> None:
    found = served.post("/explain", {"inputs": TEXTS[0], "label": "good"}).json
    shown = json.loads(minilm("explain", finished_run(), TEXTS[0], "--label", "good", "--json").stdout)
    assert [word["text"] for word in found["words"]] == [word["text"] for word in shown["words"]]
    assert found["words"][0]["attribution"] == pytest.approx(shown["words"][0]["attribution"], abs=1e-5)
    assert "".join(text for text, _ in found["pieces"]) == TEXTS[0]
    assert 'has no key "labels"' in served.post("/explain", {"inputs": "a", "labels": "bad"}).error
    assert 'has no label "bda" (did you mean "bad"?)' in served.post("/explain", {"inputs": "a", "label": "bda"}).error


def test_health_and_metrics_are_what_was_counted(served: Served) -> None:
    health = served.get("/health").json
    assert health["status"] == "ok" and health["labels"] == ["bad", "good"] and health["explains"]
    before = metrics_of(served)
    served.post("/predict", {"inputs": TEXTS[:3]})
    served.post("/predict", b"{")
    after = metrics_of(served)
    for name, more in (
        ("minilm_texts_total", 3), ("minilm_predict_seconds_count", 2), ("minilm_batch_texts_sum", 3),
        ('minilm_requests_total{path="/predict",status="200"}', 1), ('minilm_batch_texts_bucket{le="+Inf"}', 1),
    ):  # fmt: skip
        assert after[name] - before.get(name, 0) == more, name
    assert after["minilm_waiting_texts"] == 0


def metrics_of(served: Served) -> dict[str, float]:
    lines = served.get("/metrics").body.decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


# --- /table ---


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
def test_a_table_comes_back_as_minilm_predict_writes_it(served: Served, tmp_path: Path, form: str) -> None:
    rows = [{"id": f"{i:03}", "text": text} for i, text in enumerate([*TEXTS[:5], "", *TEXTS[5:]])]
    path = tmp_path / f"in.{form}"
    if form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["id", "text"], delimiter="\t" if form == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    found = served.post(f"/table?name=in.{form}", path.read_bytes())
    minilm("predict", finished_run(), "--file", path, "--out", tmp_path / f"out.{form}")
    assert found.body.decode() == (tmp_path / f"out.{form}").read_text()
    assert found.headers["content-disposition"] == f'attachment; filename="in-labelled.{form}"'


def test_a_page_gets_a_table_with_its_progress_and_its_report(served: Served) -> None:
    body = b"review\nit was good\n\"\"\ndull\n"
    found = served.post("/table?name=in.csv&column=review", body, Accept=web.LINES)
    lines = [json.loads(line) for line in found.body.splitlines()]
    assert lines[0] == {"rows": 3} and lines[-1] == {"report": ["3 rows: 1 without a text"]}
    table = list(csv.DictReader(io.StringIO("".join(line["text"] for line in lines if "text" in line))))
    assert [bool(row["predicted"]) for row in table] == [True, False, True]
    assert 'in.csv: no column "text"' in served.post("/table?name=in.csv", body).error
    assert "send a table that ends in .csv" in served.post("/table?name=in.xlsx", body).error
    assert served.post("/table?name=in.csv", b"x" * 2**17).status == 413


def test_tables_that_are_admitted_are_answered_to_the_last_row_and_others_get_503(served: Served) -> None:
    body = b"text\n" + b"it was good\n" * 200
    with ThreadPoolExecutor(14) as clients:
        found = list(clients.map(lambda _: served.post("/table?name=in.csv", body), range(14)))
    whole = [each for each in found if each.status == 200]
    assert all(each.body.count(b"\n") == 201 for each in whole) and len(whole) >= web.MOST_TABLES
    assert all(each.status == 503 and int(each.headers["retry-after"]) >= 1 for each in found if each not in whole)
    for _ in range(200):  # the last places are free soon after the answers
        if not served.service.tables:
            break
        time.sleep(0.02)
    assert served.service.tables == 0


def test_no_more_tables_than_the_limit_are_admitted(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MOST_TABLES", 0)
    found = served.post("/table?name=in.csv", b"text\nit was good\n")
    assert found.status == 503 and int(found.headers["retry-after"]) >= 1 and "busy" in found.error


# --- Several workers ---


def test_two_workers_and_an_explanation_use_the_model_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "share_cores", lambda predictor: 2)
    predictor = classifier()
    predictor.model.eval()
    alone = [predictor.predict([text])[0] for text in TEXTS]
    words = predictor.explain(TEXTS[0], "yes").words
    with serving(predictor, finished_run(), batch=4) as found, ThreadPoolExecutor(12) as clients:
        explained = [clients.submit(found.post, "/explain", {"inputs": TEXTS[0], "label": "yes"}) for _ in range(4)]
        order = [i % len(TEXTS) for i in range(120)]
        answered = list(clients.map(lambda i: found.post("/predict", {"inputs": TEXTS[i]}).json, order))
        for each in explained:
            found_words = [word["attribution"] for word in each.result().json["words"]]
            assert found_words == pytest.approx([word.attribution for word in words], abs=1e-6)
    for i, [labels] in zip(order, answered, strict=True):
        assert scores_of(labels) == pytest.approx(alone[i], abs=1e-6)


def test_a_classifier_on_several_cores_gets_two_workers_with_half_of_them_each(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(web.torch, "set_num_threads", set_to.append)
    for cores, workers in ((1, 1), (2, 2), (9, 2)):
        monkeypatch.setattr(web.torch, "get_num_threads", lambda cores=cores: cores)
        assert web.share_cores(classifier()) == workers
    assert set_to == [1, 4]
