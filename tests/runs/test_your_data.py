"""What a person sees in the terminal who trains on files of their own."""

from __future__ import annotations

import json
from pathlib import Path

from tests.tiny import minilm, refused, texts, write_config


def test_standard_input_is_trained_on_and_resumed_with(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    rows = "\n".join(json.dumps({"text": text, "label": label}) for text, label in texts())
    command = ["train", config, "data.source=-", "train.epochs=1", "--runs", tmp_path]
    result = minilm(*command, stdin=rows)
    assert result.exit_code == 0, result.output
    assert "standard input: it is JSON" in result.stderr
    assert "standard-input, 48 / 6 / 6 texts" in result.stderr
    assert "this run has finished already" in minilm(*command, "--resume", stdin=rows).stderr


def test_what_was_found_and_how_many_texts_have_each_label_is_shown_before_training(tmp_path: Path) -> None:
    lines = ["text;label", *(f"{text};{label}" for text, label in texts())]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    config = write_config(tmp_path)
    result = minilm("train", config, f"data.source={tmp_path / 'mine.csv'}", "train.epochs=1", "--runs", tmp_path)
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'mine.csv'}: its fields are separated by semicolons (data.delimiter)" in result.stderr
    shown = [line.split() for line in result.stderr.splitlines()]
    assert ["label", "train", "validation", "test", "of", "train"] in shown
    assert ["bad", "24", "3", "3", "50.0%"] in shown


def test_a_wrong_column_is_refused_with_the_changes_that_work(tmp_path: Path) -> None:
    lines = ["id,review,stars", *(f'{i},"{text}",{label}' for i, (text, label) in enumerate(texts()))]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    command = ["train", write_config(tmp_path), f"data.source={tmp_path / 'mine.csv'}", "--runs", tmp_path]
    message = refused(*command)
    assert message.endswith("data.text=review data.label=stars")
    assert minilm(*command, "data.text=review", "data.label=stars", "train.epochs=1").exit_code == 0


def test_class_weights_by_name_train_and_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    command = ["train", config, "train.epochs=1", "--runs", tmp_path]
    assert minilm(*command, "train.class_weights.bad=2").exit_code == 0
    message = refused(*command, "train.class_weights.bat=2")
    assert 'train.class_weights: no label "bat" (did you mean "bad"?); there are bad, good' in message


def test_data_in_place_of_a_config_or_a_model_is_answered_with_the_command(tmp_path: Path) -> None:
    data = tmp_path / "reviews.csv"
    assert f"minilm finetune minilm --data {data}" in refused("train", data)
    assert f"minilm finetune minilm --data {data}" in refused("finetune", data)
    message = refused("finetune", "bret")
    assert '(did you mean "bert"?)' in message and "there are recipes for" in message


def test_a_runs_folder_in_place_of_its_config_is_trained_again(tmp_path: Path) -> None:
    assert minilm("train", write_config(tmp_path), "train.epochs=1", "--runs", tmp_path).exit_code == 0
    assert minilm("train", tmp_path / "tiny", "name=again", "--runs", tmp_path).exit_code == 0
    assert (tmp_path / "again" / "results.json").exists()
