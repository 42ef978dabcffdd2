"""What `make` would do, as the shell would read it, also where the tests are run by another make."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def dry_make(*arguments: str, target: str = "finetune") -> subprocess.CompletedProcess[str]:
    """``make --dry-run``."""
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--no-print-directory", "--dry-run", target, *arguments]
    return subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True, check=False)


def made(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The words of the one `minilm train` or `minilm finetune` command among what make would run."""
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if "/minilm " in line]
    return shlex.split(line)
