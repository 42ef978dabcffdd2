"""``python -m minilm``: the ``minilm`` command."""

from __future__ import annotations

from minilm.cli import main

if __name__ == "__main__":
    main()
