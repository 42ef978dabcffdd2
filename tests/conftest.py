"""What holds for all tests: one CPU thread each, no windows, and in CI the same random examples always."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

signal.signal(signal.SIGINT, signal.default_int_handler)  # what started the tests may have had it ignored

settings.register_profile("minilm", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("minilm")
