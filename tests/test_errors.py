"""What the user can fix is named with its place, once."""

from __future__ import annotations

import pytest

from minilm.connection import Unreachable
from minilm.errors import UserError, located, nearest


def test_an_error_gets_the_place_in_front_and_the_outer_place_before_that() -> None:
    with pytest.raises(UserError, match=r"^a\.toml: \[adapt\]: no texts$"), located("a.toml"), located("[adapt]"):
        raise UserError("no texts")


def test_it_stays_the_same_error() -> None:
    error = Unreachable("a/model", "no network", "give a folder")
    with pytest.raises(Unreachable) as caught, located("a.toml"):
        raise error
    assert caught.value is error and error.why == "no network" and str(error).startswith("a.toml: a/model: ")


def test_a_fault_of_ours_is_left_as_it_is() -> None:
    with pytest.raises(KeyError, match=r"^'key'$"), located("a.toml"):
        raise KeyError("key")


def test_the_nearest_choice_is_named_if_it_is_near() -> None:
    assert nearest("bret", ["bert", "gpt2"]) == ' (did you mean "bert"?)' and nearest("x", ["bert", "gpt2"]) == ""


@pytest.mark.parametrize("quote", ['"', "'", ""])
def test_a_message_cuts_long_values_in_their_middle_and_nothing_else(quote: str) -> None:
    value = "start" + "x" * 5000 + "end" if not quote else "start " + "x y " * 2000 + "end"
    before, after = f"file.toml: the model's key must be {'a number ' * 50}, got", f"; it's the {'end ' * 100}"
    message = str(UserError(f"{before} {quote}{value}{quote}{after}"))
    assert message.startswith(f"{before} {quote}start") and message.endswith(f"end{quote}{after}")
    assert len(message) < len(before) + len(after) + 300
    path = "/".join(["folder"] * 50)
    assert str(UserError(f'{path}: no "{path}"')) .startswith(f"{path}: ")
