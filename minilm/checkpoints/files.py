"""Read and write safetensors and JSON files: they are checked before use, memory-mapped, and written atomically.

A safetensors file consists of eight bytes (the length of its header), the header (JSON: name -> dtype, shape, first and
last byte), and the values of all tensors, without gaps. The ``safetensors`` package checks a file and maps its values.
This file adds: the dtypes and shapes of all tensors are known before memory is allocated, repeated names and very large
headers are errors, and the error about a damaged file is one line that names the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minilm.atomic import atomic
from minilm.errors import UserError
from minilm.model_files import PICKLES, refusal_of_pickles, shard_names
from minilm.textfiles import read_json
from minilm.world import whole

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# In bytes; enough for about 80,000 tensors. The package reads such a header in 1.1 s with 150 MiB. A header of 97 MB,
# which the format allows, takes 16 s and 1.4 GiB.
_MAX_HEADER = 10_000_000


@dataclass(frozen=True)
class Entry:
    """One tensor of a file, as the header describes it."""

    name: str
    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int  # its first byte, from the file's start


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one file, by name. Raises UserError if the file is missing, or not a complete safetensors file."""

    def broken(why: object) -> UserError:
        line = " ".join(str(why).removeprefix("Error while deserializing header: ").split())
        return UserError(f"{path}: not a complete safetensors file ({line[:100]}); replace it by a complete copy")

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_MAX_HEADER, size - 8):
            raise broken(f"its header has {length:,} bytes in a file of {size:,}; the limit is {_MAX_HEADER:,}")
        try:
            with safe_open(path, "pt"):  # raises an error if the format or the file's size is wrong
                header = json.loads(file.read(length).decode(), object_pairs_hook=_no_name_twice)
        except (SafetensorError, ValueError) as error:
            raise broken(error) from error
    header.pop("__metadata__", None)
    entries = {}
    for name, value in header.items():
        dtype, shape = value["dtype"], tuple(value["shape"])
        if dtype not in DTYPES or max(shape, default=0) >= 1 << 63:
            raise broken(f"the dtype {dtype} or the shape of {name} is not supported")
        entries[name] = Entry(name, path, DTYPES[dtype], shape, 8 + length + value["data_offsets"][0])
    return entries


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _of_pickles(folder: Path) -> str:
    """The message for a folder whose weights are pickles, with what to do; "" if there are no pickles."""
    found = [path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLES]
    if not found:
        return ""
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    classes = config.get("architectures") or ["AutoPeftModel" if "adapter" in found[0] else ""]
    return f"; {refusal_of_pickles(found[0], str(folder), str(classes[0]))}"


def read_folder(folder: Path, stem: str = "model") -> dict[str, Entry]:
    """The tensors of a checkpoint, in one file or in shards. Raises UserError if a file is missing or damaged."""
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if single.exists():
        return read_header(single)
    if not index.exists():
        raise UserError(f"{folder}: no {single.name}{_of_pickles(folder)}")
    listing = read_json(index)
    entries: dict[str, Entry] = {}
    for name in shard_names(listing, str(index)):
        shard = folder / name
        if not shard.is_file():
            raise UserError(f"{shard}: missing, although {index.name} names it; download it again")
        held = read_header(shard)
        if twice := entries.keys() & held.keys():
            raise UserError(f"{shard}: contains {min(twice)}, which another shard also contains; download both again")
        entries |= held
    for name, file in listing["weight_map"].items():
        if name not in entries or entries[name].file.name != file:
            raise UserError(f"{index}: says that {name} is in {file}, but it is not; download both again")
    return entries


class Reader:
    """Reads tensors from memory-mapped files. Tensors are in the pages of the file and need no other memory."""

    def __init__(self) -> None:
        self._open: dict[Path, safe_open] = {}

    def view(self, entry: Entry) -> Tensor:
        """The tensor as stored, in the pages of the file. Writing to it copies a page and does not change the file."""
        if entry.file not in self._open:
            self._open[entry.file] = safe_open(entry.file, "pt")
        tensor: Tensor = self._open[entry.file].get_tensor(entry.name)
        # Some programs do not pad the header, but tensors must be aligned in memory.
        return tensor.clone() if tensor.data_ptr() % entry.dtype.itemsize else tensor


def view_once(entry: Entry) -> Tensor:
    """As ``Reader.view``, but for a tensor that is read once, to convert or compare it. Its pages are freed with it.

    The pages of a mapping stay in memory as long as any of its tensors, so this tensor gets a separate mapping. Loading
    a GPT-2 of 475 MiB, whose weights are transposed, takes 480 MiB in this way, and 970 MiB with one mapping for all.
    """
    return Reader().view(entry)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one file, by name, in the pages of the file. Raises UserError if the file is missing or
    damaged."""
    reader = Reader()
    return {name: reader.view(entry) for name, entry in read_header(path).items()}


SAMPLE = 16  # values of each tensor that are compared to identify a checkpoint


def sample(tensor: Tensor) -> Tensor:
    """Some values of a tensor at equal distances, starting with the first."""
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, len(flat) // SAMPLE)][:SAMPLE]


def fingerprint(folder: Path) -> str:
    """A hash of a checkpoint's config, and of the name, dtype, shape and some values of each tensor. It is quick even
    for large checkpoints. Raises UserError as ``read_folder`` does."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for stem in ("model", "head") if (folder / "head.safetensors").exists() else ("model",):
        for name, entry in sorted(read_folder(folder, stem).items()):
            digest.update(f"{name} {entry.dtype} {entry.shape}".encode())
            digest.update(_sampled(entry))
    return digest.hexdigest()


def _sampled(entry: Entry) -> bytes:
    """The bytes of ``sample`` of a tensor, read value by value, as mapping the file would read much more."""
    size, count = entry.dtype.itemsize, math.prod(entry.shape)
    step = max(1, count // SAMPLE) * size
    numbers = []
    with entry.file.open("rb", buffering=0) as file:
        for place in range(entry.begin, entry.begin + count * size, step)[:SAMPLE]:
            file.seek(place)
            numbers.append(file.read(size))
    return b"".join(numbers)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    with atomic(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]],
    metadata: dict[str, str] | None = None,
) -> None:
    """Write a safetensors file atomically. The widest dtypes come first, so that all tensors are aligned.

    Sharded tensors are gathered one after the other, so all processes must call this function.
    """
    # The package's save_file needs contiguous tensors, all at once: saving a GPT-2 of 475 MiB, whose weights are
    # transposed, takes 342 MiB more with it, and 94 MiB with this function, which copies one tensor after the other.
    # save_file also makes the file readable only by its owner, does not flush it, and hides errors of a full disk.
    pairs = list(tensors.items() if isinstance(tensors, Mapping) else tensors)
    pairs.sort(key=lambda pair: (-pair[1].dtype.itemsize, pair[0]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    position = 0
    for name, tensor in pairs:
        end = position + tensor.numel() * tensor.dtype.itemsize
        shape, dtype = list(tensor.shape), _NAMES[tensor.dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with atomic(path) as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for _, tensor in pairs:
            flat = whole(tensor.detach()).cpu().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)
