"""``minilm serve``: answers over HTTP. Needs the extra ``serve``."""

from __future__ import annotations

from importlib.util import find_spec

from minilm.errors import UserError
from minilm.hints import install


def check_installed() -> None:
    """Raise UserError if a package is missing that serving needs."""
    if missing := [name for name in ("starlette", "uvicorn") if find_spec(name) is None]:
        raise UserError(f"`minilm serve` needs {' and '.join(missing)}; to install: {install('serve')}")
