"""Whatever is sent: a question, or a refusal in one line."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.errors import UserError
from minilm.runs.predict import Done
from minilm.serving.api import Limits, Question, Refusal, answers, read_question
from minilm.serving.tables import FORMS, SentTable
from tests.evaluation.classifiers import classifier

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=9), values, max_size=4),
    max_leaves=9,
)
TEXTS = st.text() | st.fixed_dictionaries({"text": st.text(), "text_pair": st.text() | VALUES})
PARAMETERS = st.fixed_dictionaries(
    {}, optional={"top_k": VALUES, "function_to_apply": VALUES, "only_predicted": VALUES, "more": VALUES}
)
BODIES = st.fixed_dictionaries(
    {"inputs": TEXTS | st.lists(TEXTS | VALUES, max_size=4)}, optional={"parameters": PARAMETERS | VALUES}
)
MODEL = classifier()


@settings(max_examples=60)
@given((BODIES | VALUES).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
def test_any_body_is_a_question_or_is_refused_in_one_line(body: bytes) -> None:
    try:
        found: Any = read_question(body, MODEL, Limits(characters=50, texts=3))
    except Refusal as refusal:
        assert refusal.status in (400, 413) and refusal.message and len(refusal.message.splitlines()) == 1
    else:
        assert isinstance(found, Question) and all(found.texts)
        if found.pairs is None:
            assert len(answers(MODEL, MODEL.scores_of_clean_texts(found.texts, None), found.parameters)) > 0


@settings(max_examples=40)
@given(st.binary(max_size=200) | st.text("a,\"\n\t;{}:[]text", max_size=80).map(str.encode), st.sampled_from([*FORMS]))
def test_any_table_is_answered_or_is_refused_under_its_own_name(content: bytes, suffix: str) -> None:
    sent = SentTable(f"mine{suffix}")
    sent.path.write_bytes(content)
    with contextlib.suppress(UserError):  # found while its rows are read, and named in the answer
        try:
            table = sent.open(MODEL, Path("no-run"), "")
        except Refusal as refusal:
            assert refusal.status == 400 and sent.folder.name not in refusal.message
            return
        list(table.blocks(Done(), 8, quiet=True))
    sent.folder.cleanup()
