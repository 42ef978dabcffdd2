"""A model card has the Hub's metadata, and shows only ways to use the model that work."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, ModelCardData, constants

from minilm.checkpoints.adapter_saving import save_adapter
from minilm.checkpoints.models import load_model
from minilm.data.tokenization import load_tokenizer
from minilm.evaluation.decisions import Decision
from minilm.evaluation.metrics import classification_metrics
from minilm.evaluation.predictor import Classifier
from minilm.evaluation.reading import Reading
from minilm.finetuning.lora import LoRAConfig, add_lora
from minilm.models.architecture import Card
from minilm.reporting.model_card import Exported, base_name, model_card
from minilm.reporting.record import read_run
from minilm.schema import as_table
from tests.tiny import minilm

REFERENCE = Path(__file__).parents[1] / "reference"
NEWS = '[model]\nsource = "distilbert"\n\n[data]\nsource = "ag-news"\n'
SINGLE = Exported(
    name="me/news",
    source="distilbert",
    model=Card("distilbert", "classify", ["negative", "neutral", "positive"]),
    labels=["negative", "neutral", "positive"],
    decision=Decision("single", temperature=np.array([1.5])),
    reading=Reading(max_tokens=128),
)


def metadata(text: str) -> ModelCardData:
    return ModelCard(text).data  # as the Hub reads it


def test_the_metadata_name_base_data_and_metrics(
    make_run: Callable[..., Path], results: dict[str, Any]
) -> None:
    found = metadata(model_card(SINGLE, read_run(make_run(results, config=NEWS))))
    assert (found.license, found.language, found.pipeline_tag) == (None, ["en"], "text-classification")
    assert found.base_model == "distilbert/distilbert-base-uncased" and found.datasets == ["fancyzhx/ag_news"]
    assert found.library_name == "transformers" and found.tags == ["text-classification", "minilm"]
    assert found.to_dict()["base_model_relation"] == "finetune" and found.eval_results is not None
    values = {each.metric_name: each.metric_value for each in found.eval_results}
    test = results["test"]
    assert values == pytest.approx({"Accuracy": test["accuracy"], "Macro F1": test["macro_f1"], "MCC": test["mcc"]})
    assert {(each.dataset_type, each.dataset_name, each.dataset_split) for each in found.eval_results} == {
        ("fancyzhx/ag_news", "ag-news", "test")
    }


def test_the_text_has_labels_metrics_with_intervals_and_sources(
    make_run: Callable[..., Path], results: dict[str, Any]
) -> None:
    text = model_card(SINGLE, read_run(make_run(results, config=NEWS)))
    assert "\n# news\n" in text and "A text gets one of these labels: “negative”, “neutral” and “positive”." in text
    assert re.search(r"\| Accuracy \| 0\.\d{4} \| 0\.\d{4} to 0\.\d{4} \|", text)
    assert "The intervals are over 120 test rows: Accuracy by Wilson's method, the others by the bootstrap." in text
    assert "Its owner chooses the licence of this model; that of the base model is Apache-2.0." in text
    assert "licence Apache-2.0" in text and "Licence of the texts: non-commercial use." in text


def test_six_of_six_right_is_not_shown_as_certain(make_run: Callable[..., Path], results: dict[str, Any]) -> None:
    truth = np.array([0, 0, 1, 1, 2, 2])
    results["test"] = as_table(classification_metrics(truth, 9 * np.eye(3)[truth]))
    results["data"]["sizes"]["test"] = 6
    text = model_card(SINGLE, read_run(make_run(results, config=NEWS)))
    assert "| Accuracy | 1.0000 | 0.6097 to 1.0000 |" in text and "between 61.0% and 100.0%" in text
    assert "| Macro F1 | 1.0000 | - |" in text and "| MCC | 1.0000 | - |" in text
    assert "Macro F1 and MCC: no interval, as all draws of the bootstrap from these rows have the same value." in text


def test_what_is_not_known_and_where_files_lie_is_left_out(
    make_run: Callable[..., Path], results: dict[str, Any], tmp_path: Path
) -> None:
    found = metadata(model_card(replace(SINGLE, source=""), read_run(make_run(results)))).to_dict()
    assert not found.keys() & {"license", "base_model", "datasets", "language", "base_model_relation"}
    folder = tmp_path / "private" / "mine"
    folder.mkdir(parents=True)
    config = f'[model]\nsource = "{folder}"\n'
    text = model_card(replace(SINGLE, source=str(folder)), read_run(make_run(results, "other", config)))
    assert "private" not in text and "**mine** (" in text and "base_model" not in text


def test_without_test_texts_the_values_are_those_of_validation_and_it_says_that_they_are_too_high(
    make_run: Callable[..., Path], results: dict[str, Any]
) -> None:
    del results["test"]
    results["data"]["sizes"]["test"] = 0
    for baseline in results["baselines"].values():
        baseline.pop("test", None)
    text = model_card(SINGLE, read_run(make_run(results, config=NEWS)))
    assert "These values are too high, as the weights were chosen by them." in text
    assert {each.dataset_split for each in metadata(text).eval_results or []} == {"held out by minilm"}


@pytest.mark.parametrize(("source", "name"), [
    ("minilm", "sentence-transformers/all-MiniLM-L6-v2"),
    ("weights/minilm", "sentence-transformers/all-MiniLM-L6-v2"),
    ("owner/cached", "owner/cached"), ("owner/name", "owner/name"), ("google-bert/bert-base-uncased",) * 2,
    ("models/removed", ""), ("elsewhere/minilm", ""), ("", ""),
])  # fmt: skip
def test_the_base_model_is_named_as_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("weights/minilm", "elsewhere/minilm"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "hub" / "models--owner--cached" / "snapshots").mkdir(parents=True)
    (tmp_path / "weights" / "owner" / "name").mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        (tmp_path / "weights" / "owner" / "name" / file).touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert base_name(source) == name
    assert base_name("models/removed", "main") == "models/removed"  # folders have no revision


@pytest.mark.parametrize("source", ["/home/me/secret/mine", "secret/mine", r"C:\secret\mine"])
def test_a_folder_that_was_removed_is_only_its_name(
    make_run: Callable[..., Path], results: dict[str, Any], source: str
) -> None:
    run = read_run(make_run(results, config=f"[model]\nsource = '{source}'\n"))
    text = model_card(replace(SINGLE, source=source), run)
    assert "secret" not in text and "**mine** (" in text and "base_model" not in text


def test_the_split_is_that_of_the_published_files(make_run: Callable[..., Path], results: dict[str, Any]) -> None:
    def splits(name: str, data: str) -> set[str | None]:
        run = make_run(results, name, f'[model]\nsource = "distilbert"\n\n[data]\n{data}\n')
        return {each.dataset_split for each in metadata(model_card(SINGLE, read_run(run))).eval_results or []}

    for i, data in enumerate(['source = ""\ntrain = "texts.tsv"', 'source = "a.csv"', 'source = "medical-questions"']):
        assert splits(f"held{i}", data) == {"held out by minilm"}
    assert splits("folder", 'source = "folder"') == {"test"}
    assert splits("emotions", 'source = "tweet-emotions"') == {"validation"}  # its test texts: the Hub's validation
    assert splits("files", 'source = ""\ntrain = "texts.tsv"\ntest = "test.tsv"') == {"test"}


def test_only_a_licence_that_the_base_demands_is_set() -> None:
    assert metadata(model_card(replace(SINGLE, source="gemma-3-270m"), None)).license == "gemma"


def test_a_linear_models_card_has_its_own_metrics(make_run: Callable[..., Path], results: dict[str, Any]) -> None:
    pairs = Reading(pairs=True)
    linear = Exported(name="lin", labels=["a", "b", "c"], decision=Decision("single"), reading=pairs)
    text = model_card(linear, read_run(make_run(results, config=NEWS)))
    test = results["baselines"]["linear"]["test"]
    found = {each.metric_name: each.metric_value for each in metadata(text).eval_results or []}
    assert found == pytest.approx({"Accuracy": test["accuracy"], "Macro F1": test["macro_f1"], "MCC": test["mcc"]})
    assert f"| Accuracy | {test['accuracy']:.4f} |" in text and f"{results['test']['accuracy']:.4f}" not in text
    assert "torch" not in text and "minilm predict lin $'first text\\tsecond text'" in text
    for baseline in results["baselines"].values():
        del baseline["test"]
    text = model_card(linear, read_run(make_run(results, "without", config=NEWS)))
    assert f"| Accuracy | {results['baselines']['linear']['validation']['accuracy']:.4f} |" in text
    assert "These values may be too high, as its threshold was chosen by them." in text
    del results["baselines"]["linear"]
    assert "## Results" not in model_card(linear, read_run(make_run(results, "none", config=NEWS)))


def test_only_ways_that_work_are_shown() -> None:
    assert 'pipeline("text-classification", model="me/news")' in model_card(SINGLE, None)
    own = model_card(replace(SINGLE, model=Card("distilbert", "classify", own_head=True)), None)
    assert "pipeline(" not in own and "are trained with `model.head.kind=family`" in own
    assert metadata(own).library_name == "minilm"
    adapter = model_card(replace(SINGLE, adapter=True), None)
    assert "pipeline(" not in adapter and "AutoPeftModelForSequenceClassification" in adapter
    assert metadata(adapter).library_name == "peft" and "lora" in (metadata(adapter).tags or [])
    assert "onnx" not in model_card(SINGLE, None)
    linear = model_card(Exported(name="lin", labels=["a", "b"], decision=Decision("single")), None)
    assert "minilm predict lin" in linear and "transformers" not in linear


def test_what_other_programs_must_do_is_said() -> None:
    decision = Decision("multi", np.array([0.25, 0.5, 0.75]), np.array([2.0, 1.0, 1.0]))
    reading = Reading(clean=["urls", "lower"], long_texts="windows", pairs=True)
    text = model_card(replace(SINGLE, decision=decision, reading=reading), None)
    assert "Texts were cleaned (data.clean: urls and lower)." in text and "minilm reads all of a long text" in text
    assert "on: negative 0.25, neutral 0.5, positive 0.75." in text and "the temperature 2, 1, 1," in text
    assert '{"text": "first text", "text_pair": "second text"}, truncation=True, top_k=None' in text


def blocks(folder: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_code_for_minilm_and_transformers_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert minilm("export", REFERENCE / "bert-classify", "out").exit_code == 0
    here, there = blocks(tmp_path / "out")
    names: dict[str, Any] = {}
    exec(here, names)
    [ours] = names["classifier"].predict(["some text"])
    exec(there, names)
    [theirs] = names["classify"]("some text")
    assert ours[theirs["label"]] == max(ours.values()) == pytest.approx(theirs["score"], abs=1e-5)


def test_the_code_for_peft_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = load_model(REFERENCE / "bert-classify")
    add_lora(model, LoRAConfig(rank=2, alpha=4, targets=("query", "value")))
    for name, parameter in model.named_parameters():
        if "lora_b" in name:
            torch.nn.init.normal_(parameter)
    tokenizer = load_tokenizer(REFERENCE / "bert-classify")
    save_adapter(model, tmp_path / "adapter", base=str(REFERENCE / "bert-classify"), tokenizer=tokenizer)
    assert minilm("export", "adapter", "out").exit_code == 0
    _, there = blocks(tmp_path / "out")
    names: dict[str, Any] = {}
    exec(there, names)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        wanted = Classifier.load("out", "cpu").model(ids)
        torch.testing.assert_close(names["model"](input_ids=ids).logits, wanted, rtol=1e-4, atol=1e-5)
