"""Safetensors and JSON files: checked before they are used, mapped instead of copied, written whole or not at all.

A safetensors file is eight bytes (the length of its header), the header (JSON: name -> dtype, shape, first and last
byte), and the numbers of one tensor after the other, without gaps. The ``safetensors`` package checks a file and maps
its numbers. Added here: a file's tensors are known by dtype and shape before memory is taken for any, no name is given
twice, no header takes seconds to parse, and every broken file is one line that names it.
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

from minilm.checkpoints.atomic import atomic
from minilm.errors import UserError
from minilm.model_files import PICKLES, refusal_of_pickles, shard_names
from minilm.textfiles import read_json

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
# Bytes: about 80,000 tensors. The package reads such a header in 1.1 s and 150 MiB; one of 97 MB, which the format
# allows, in 16 s and 1.4 GiB.
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
    """Every tensor of one file, by name. Raises UserError if there is no file, or no whole safetensors file."""

    def broken(why: object) -> UserError:
        line = " ".join(str(why).removeprefix("Error while deserializing header: ").split())
        return UserError(f"{path}: not a whole safetensors file ({line[:100]}); replace it by a whole copy")

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_MAX_HEADER, size - 8):
            raise broken(f"a header of {length:,} bytes in a file of {size:,}; at most {_MAX_HEADER:,} are read")
        try:
            with safe_open(path, "pt"):  # raises an error for all that contradicts the format or the file's size
                header = json.loads(file.read(length).decode(), object_pairs_hook=_no_name_twice)
        except (SafetensorError, ValueError) as error:
            raise broken(error) from error
    header.pop("__metadata__", None)
    entries = {}
    for name, value in header.items():
        dtype, shape = value["dtype"], tuple(value["shape"])
        if dtype not in DTYPES or max(shape, default=0) >= 1 << 63:
            raise broken(f"the dtype {dtype} or the shape of {name} is not read here")
        entries[name] = Entry(name, path, DTYPES[dtype], shape, 8 + length + value["data_offsets"][0])
    return entries


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("it names something twice")
    return table


def _of_pickles(folder: Path) -> str:
    """What to say of a folder whose weights are pickled, with the ways out; "" if there is no such file."""
    found = [path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLES]
    if not found:
        return ""
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    classes = config.get("architectures") or ["AutoPeftModel" if "adapter" in found[0] else ""]
    return f"; {refusal_of_pickles(found[0], str(folder), str(classes[0]))}"


def read_folder(folder: Path, stem: str = "model") -> dict[str, Entry]:
    """Every tensor of a checkpoint, in one file or in shards. Raises UserError for what is missing or broken."""
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
            raise UserError(f"{shard}: holds {min(twice)}, which another shard holds too; download both again")
        entries |= held
    for name, file in listing["weight_map"].items():
        if name not in entries or entries[name].file.name != file:
            raise UserError(f"{index}: says that {name} is in {file}, which is not so; download both again")
    return entries


class Reader:
    """Reads tensors out of mapped files: what is read lies in the file's pages, and no memory is taken for it."""

    def __init__(self) -> None:
        self._open: dict[Path, safe_open] = {}

    def view(self, entry: Entry) -> Tensor:
        """The tensor as it is stored, in the file's own pages; writing to it copies a page, and never the file."""
        if entry.file not in self._open:
            self._open[entry.file] = safe_open(entry.file, "pt")
        tensor: Tensor = self._open[entry.file].get_tensor(entry.name)
        # Some writers do not pad the header; numbers in memory must be aligned.
        return tensor.clone() if tensor.data_ptr() % entry.dtype.itemsize else tensor


def view_once(entry: Entry) -> Tensor:
    """As ``Reader.view``, for what is read once, to convert or compare it: its pages go when this tensor does.

    A file's pages stay in memory as long as any tensor of its mapping, so this one gets a mapping of its own. Opening
    a GPT-2 of 475 MiB, whose weights are transposed, takes 480 MiB so, and 970 MiB if all share one mapping.
    """
    return Reader().view(entry)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one file, by name, in the file's pages. Raises UserError where there is no whole file."""
    reader = Reader()
    return {name: reader.view(entry) for name, entry in read_header(path).items()}


SAMPLE = 16  # numbers of each tensor that tell a checkpoint from another


def sample(tensor: Tensor) -> Tensor:
    """Some numbers of a tensor, from its first on at equal distances."""
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, len(flat) // SAMPLE)][:SAMPLE]


def fingerprint(folder: Path) -> str:
    """A hash of a checkpoint's config, of each tensor's name, dtype and shape, and of some of its numbers: quick,
    however large the checkpoint is. Raises UserError as ``read_folder`` does."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for stem in ("model", "head") if (folder / "head.safetensors").exists() else ("model",):
        for name, entry in sorted(read_folder(folder, stem).items()):
            digest.update(f"{name} {entry.dtype} {entry.shape}".encode())
            digest.update(_sampled(entry))
    return digest.hexdigest()


def _sampled(entry: Entry) -> bytes:
    """The bytes of ``sample`` of a tensor, read one number at a time: of mapped files far more would be read ahead."""
    size, count = entry.dtype.itemsize, math.prod(entry.shape)
    step = max(1, count // SAMPLE) * size
    numbers = []
    with entry.file.open("rb", buffering=0) as file:
        for place in range(entry.begin, entry.begin + count * size, step)[:SAMPLE]:
            file.seek(place)
            numbers.append(file.read(size))
    return b"".join(numbers)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    with atomic(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]],
    metadata: dict[str, str] | None = None,
) -> None:
    """Write a safetensors file, whole or not at all. The widest numbers come first, so that all are aligned."""
    # The package's save_file takes only tensors that are contiguous, all at once: saving a GPT-2 of 475 MiB, whose
    # weights are transposed, takes 342 MiB more with it, and 94 MiB with this, which copies one after the other. It
    # also gives the file to its owner alone, does not flush it to the disk, and hides the error of a full one.
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
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            file.write(memoryview(flat.view(torch.uint8).numpy()))
