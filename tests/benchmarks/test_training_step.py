"""The benchmark of training steps compares equal models on equal texts."""

from __future__ import annotations

from benchmarks.training_step import StudyModel, our_model, our_steps, steps_of_study, study_texts
from minilm.data.batching import make_batches
from minilm.reporting.summary import parameter_counts


def test_the_model_is_the_studys_in_size() -> None:
    assert parameter_counts(our_model())[0] == sum(p.numel() for p in StudyModel().parameters()) == 5_728_003


def test_both_sides_take_steps() -> None:
    texts, labels = study_texts(64)
    batches = make_batches(texts.lengths, 4, seed=1, epoch=0)[:1]
    our_steps(texts, labels, batches)()
    steps_of_study(texts, labels, batches)()
