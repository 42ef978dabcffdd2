"""Which addresses are guarded."""

from __future__ import annotations

from starlette.applications import Starlette

from minilm.serving.guarding import Guarded, guarded


def test_a_server_for_others_answers_under_any_name() -> None:
    found = [isinstance(guarded(Starlette(), host), Guarded) for host in ("0.0.0.0", "::", "10.0.0.2")]
    assert found == [False] * 3
    assert all(isinstance(guarded(Starlette(), host), Guarded) for host in ("127.0.0.1", "::1"))
