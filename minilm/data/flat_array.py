"""A long array that is built piece by piece: in memory, or in a file if it becomes too large.

The tokens of a million texts are hundreds of megabytes, and joining a list of pieces needs twice that for a moment. So
above ``BUDGET`` the pieces are appended to a temporary file without a name, which ends with the process, and the array
is a view of it (Linux loads pages when they are read, and can drop them again).
"""

from __future__ import annotations

import tempfile
from typing import IO

import numpy as np

BUDGET = 2**29  # bytes of an array in memory
JOINED = 4096  # pieces that are joined at once


class FlatArray:
    """The values of all pieces that were added, in order."""

    def __init__(self, dtype: np.dtype | type, budget: int = BUDGET) -> None:
        self.dtype, self.budget = np.dtype(dtype), budget
        self.pieces: list[np.ndarray] = []  # small ones, which are joined now and then: each takes 100 bytes more
        self.joined_pieces: list[np.ndarray] = []
        self.size = 0  # values
        self.file: IO[bytes] | None = None

    def add(self, piece: np.ndarray) -> None:
        """Append a 1-d array of this dtype."""
        self.pieces.append(piece)
        self.size += len(piece)
        if len(self.pieces) >= JOINED:
            self._join()

    def _join(self) -> None:
        """Join the small pieces, and write all if they need too much memory."""
        if self.pieces:
            self.joined_pieces.append(np.concatenate(self.pieces))
            self.pieces.clear()
        if self.file is not None or self.size * self.dtype.itemsize > self.budget:
            # Not closed here: it lives as long as the array.
            self.file = self.file or tempfile.TemporaryFile(prefix="minilm-")  # noqa: SIM115
            for piece in self.joined_pieces:
                self.file.write(piece.tobytes())
            self.joined_pieces.clear()

    def whole(self) -> np.ndarray:
        """All values (n,), to be read only. Nothing can be added afterwards."""
        self._join()
        if self.file is not None:
            self.file.flush()
            return np.memmap(self.file, self.dtype, mode="r", shape=(self.size,))
        return np.concatenate(self.joined_pieces) if self.joined_pieces else np.zeros(0, self.dtype)
