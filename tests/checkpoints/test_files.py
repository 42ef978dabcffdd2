"""Safetensors files are those of the ``safetensors`` package, and no broken one is taken for whole."""

from __future__ import annotations

import errno
import json
import os
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from minilm.atomic import atomic
from minilm.checkpoints.files import (
    DTYPES,
    Reader,
    _sampled,
    fingerprint,
    read_folder,
    read_header,
    read_json,
    read_tensors,
    sample,
    view_once,
    write_json,
    write_tensors,
)
from minilm.errors import UserError
from tests.processes import left_by_killed


def random_tensor(dtype: torch.dtype, shape: list[int], seed: int) -> Tensor:
    """Random bytes of this dtype and shape (of truth values: 0 and 1)."""
    generator = torch.Generator().manual_seed(seed)
    top = 2 if dtype == torch.bool else 256
    count = torch.Size(shape).numel() * dtype.itemsize
    return torch.randint(0, top, (count,), dtype=torch.uint8, generator=generator).view(dtype).view(shape)


tensors = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    st.builds(
        random_tensor,
        st.sampled_from(list(DTYPES.values())),
        st.lists(st.integers(0, 4), max_size=3),
        st.integers(0, 99),
    ),
    max_size=5,
)


def same_bits(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    def bits(tensor: Tensor) -> bytes:
        return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()

    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == t.dtype and ours[name].shape == t.shape and bits(ours[name]) == bits(t)
        for name, t in theirs.items()
    )


@given(tensors)
def test_what_we_write_the_package_reads(tmp_path_factory: pytest.TempPathFactory, held: dict[str, Tensor]) -> None:
    path = tmp_path_factory.mktemp("files") / "x.safetensors"
    write_tensors(path, held, {"made": "here"})
    assert same_bits(held, load_file(path))
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "made": "here"}


@given(tensors)
def test_what_the_package_writes_we_read(tmp_path_factory: pytest.TempPathFactory, held: dict[str, Tensor]) -> None:
    path = tmp_path_factory.mktemp("files") / "x.safetensors"
    save_file(held, path)
    assert same_bits(read_tensors(path), held)


def write_raw(path: Path, header: Any, data: bytes = b"", pad: int = 0) -> Path:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    encoded += b" " * pad
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)
    return path


def entry(begin: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [1] if shape is None else shape, "data_offsets": [begin, end]}


ONE_BYTE = json.dumps(entry(0, 1, dtype="U8")).encode()
BROKEN: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "three bytes": lambda path: path.write_bytes(b"abc"),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "a header of a terabyte": lambda path: path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}"),
    "a header of 2^64 bytes": lambda path: path.write_bytes(b"\xff" * 64),
    "no JSON": lambda path: write_raw(path, b"{a"),
    "no text": lambda path: write_raw(path, b"\xff\xfe"),
    "very deep JSON": lambda path: write_raw(path, b"[" * 100_000),
    "a list": lambda path: write_raw(path, []),
    "an entry that is a number": lambda path: write_raw(path, {"a": 1}),
    "an entry without a shape": lambda path: write_raw(path, {"a": {"dtype": "F32", "data_offsets": [0, 4]}}),
    "one offset": lambda path: write_raw(path, {"a": {**entry(0, 4), "data_offsets": [0]}}, bytes(4)),
    "a negative offset": lambda path: write_raw(path, {"a": entry(-4, 0)}),
    "a fractional offset": lambda path: write_raw(path, {"a": entry(0, 4.0)}, bytes(4)),  # type: ignore[arg-type]
    "true for a size": lambda path: write_raw(path, {"a": entry(0, 4, [True])}, bytes(4)),
    "a dtype that there is not": lambda path: write_raw(path, {"a": entry(0, 4, dtype="F33")}, bytes(4)),
    "a shape that contradicts its bytes": lambda path: write_raw(path, {"a": entry(0, 4, [2])}, bytes(4)),
    "a huge shape": lambda path: write_raw(path, {"a": entry(0, 4, [1 << 62, 1 << 62])}, bytes(4)),
    "a huge shape without a number": lambda path: write_raw(path, {"a": entry(0, 0, [0, 1 << 63])}),
    "cut off": lambda path: write_raw(path, {"a": entry(0, 4)}, bytes(3)),
    "bytes that overlap": lambda path: write_raw(path, {"a": entry(0, 4), "b": entry(2, 6)}, bytes(6)),
    "the same bytes twice": lambda path: write_raw(path, {"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)),
    "a gap": lambda path: write_raw(path, {"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)),
    "bytes of nobody": lambda path: write_raw(path, {"a": entry(0, 4)}, bytes(8)),
    "a name twice": lambda path: write_raw(path, b'{"a": %b, "a": %b}' % (ONE_BYTE, ONE_BYTE), bytes(1)),
    "a name of two lines": lambda path: write_raw(path, {"a\nb": entry(1, 2, dtype="U8")}, bytes(2)),
    "a very long name": lambda path: write_raw(path, {"a" * 5000: entry(0, 4, dtype="C64")}, bytes(4)),
    "a folder": lambda path: path.mkdir(),
    "not there": lambda path: None,
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_line_that_names_it(tmp_path: Path, case: str) -> None:
    path = tmp_path / "model.safetensors"
    BROKEN[case](path)
    with pytest.raises(UserError) as raised:
        read_header(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value) and len(str(raised.value)) < 300


def huge_numbers(path: Path) -> None:
    numbers = ",".join(["9" * 4000] * 400)
    write_raw(path, b'{"a":{"dtype":"U8","shape":[%b],"data_offsets":[0,0]}}' % numbers.encode())


def huge_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 99_000_000) + b"{")
    os.truncate(path, 8 + 99_000_000)


@pytest.mark.parametrize("bomb", [huge_numbers, huge_header])
def test_a_header_that_would_take_long_is_refused_at_once(tmp_path: Path, bomb: Callable[[Path], None]) -> None:
    bomb(tmp_path / "x")
    started = time.process_time()
    with pytest.raises(UserError, match="not a complete safetensors file"):
        read_header(tmp_path / "x")
    assert time.process_time() - started < 0.5


@given(data=st.data())
def test_what_the_package_refuses_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever is done to a header, either the package reads the file too, or a UserError tells why not."""
    numbers = st.one_of(st.integers(-1, 17), st.just(1 << 63), st.just(0.5), st.none())
    header = {"a": entry(0, 8, [2]), "b": entry(8, 12), "c": entry(12, 16, [4], "U8")}
    for _ in range(data.draw(st.integers(1, 2))):
        changed = header[data.draw(st.sampled_from("abc"))]
        key = data.draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        changed[key] = data.draw(
            st.sampled_from([*DTYPES, "F99", 5]) if key == "dtype" else st.lists(numbers, min_size=1, max_size=3)
        )
    path = write_raw(tmp_path_factory.mktemp("files") / "x", header, bytes(16))
    try:
        ours = read_tensors(path)
    except UserError:
        return
    assert same_bits(ours, load_file(path))


@given(st.binary(max_size=200))
def test_no_bytes_whatever_end_in_another_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("files") / "x"
    path.write_bytes(content)
    try:
        read_header(path)
    except UserError:
        return
    assert load_file(path) is not None


def test_numbers_that_lie_astride_are_read(tmp_path: Path) -> None:
    for pad in range(8):  # headers that are not padded to a multiple of eight bytes
        path = write_raw(tmp_path / "x", {"a": entry(0, 8, [2])}, struct.pack("<ff", 1.5, -2.0), pad=pad)
        assert read_tensors(path)["a"].tolist() == [1.5, -2.0]


def test_a_tensor_lies_in_the_pages_of_its_file_and_cannot_change_it(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.arange(5000.0)})
    before = path.read_bytes()
    reader, held = Reader(), read_header(path)["a"]
    first, second = reader.view(held), reader.view(held)
    first += 1
    assert first.data_ptr() == second.data_ptr()
    assert path.read_bytes() == before


def test_a_tensor_that_is_read_once_has_a_mapping_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.arange(5000.0), "b": torch.ones(3)})
    held = read_header(path)["a"]
    first, second = view_once(held), view_once(held)
    first += 1
    assert second.sum() == sum(range(5000))
    places = Path("/proc/self/maps")
    if places.exists():
        assert places.read_text().count(str(path)) == 2
        del first, second
        assert places.read_text().count(str(path)) == 0


def sharded(folder: Path, weight_map: dict[str, str], **shards: dict[str, Tensor]) -> Path:
    for name, held in shards.items():
        write_tensors(folder / f"{name}.safetensors", held)
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    return folder


ONE = {"a": torch.ones(1)}
OTHER = {"b": torch.zeros(1)}


def test_shards_are_read_together(tmp_path: Path) -> None:
    sharded(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"}, one=ONE, two=OTHER)
    assert {name: entry.file.name for name, entry in read_folder(tmp_path).items()} == {
        "a": "one.safetensors",
        "b": "two.safetensors",
    }


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../one.safetensors"}, "../one.safetensors"),
        ({"a": "/etc/passwd"}, "/etc/passwd"),
        ({"a": "one.safetensors", "b": "three.safetensors"}, "three.safetensors: missing"),
        ({"a": "one.safetensors", "c": "two.safetensors"}, "says that c is in two.safetensors"),
        ({"a": "two.safetensors", "b": "one.safetensors"}, "says that a is in two.safetensors"),
        ({"a": "one.safetensors", "b": "both.safetensors"}, "which another shard also contains"),
        ({"a": 5}, "5"),
        ({}, "weight_map"),
    ],
)
def test_a_broken_index_is_named(tmp_path: Path, weight_map: dict[str, Any], message: str) -> None:
    sharded(tmp_path, weight_map, one=ONE, two=OTHER, both={**ONE, **OTHER})
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        read_folder(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_folder_with_a_pickle_only_says_so(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"no model.safetensors; its weights are stored only in pytorch_model.bin"):
        read_folder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_broken_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config.json: (not valid JSON|not UTF-8 text|must contain|must be)"):
        read_json(tmp_path / "config.json")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, ONE)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), atomic(path) as file:
        file.write(b"half")
        raise RuntimeError("the disk is full")
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["x.safetensors"]


def test_what_a_killed_process_left_of_a_file_is_removed_by_the_next_write(tmp_path: Path) -> None:
    remains, other = left_by_killed(tmp_path / "x.json"), left_by_killed(tmp_path / "y.json")
    remains.touch(), other.touch()
    write_json(tmp_path / "x.json", {})
    assert set(os.listdir(tmp_path)) == {"x.json", other.name}


def test_a_checkpoint_is_told_by_its_config_its_header_and_its_numbers(tmp_path: Path) -> None:
    def made(value: float = 1.0, dtype: torch.dtype = torch.float32, name: str = "w", width: int = 8) -> str:
        write_tensors(tmp_path / "model.safetensors", {name: torch.full((40, 3), value, dtype=dtype)})
        write_json(tmp_path / "config.json", {"width": width})
        return fingerprint(tmp_path)

    others = [made(1.5), made(dtype=torch.bfloat16), made(name="v"), made(width=9)]
    assert len({made(), *others}) == 5 and made() == made()


@pytest.mark.parametrize("count", [0, 1, 15, 16, 40, 1000])
def test_of_a_tensor_the_same_numbers_are_read_from_a_file_as_from_memory(tmp_path: Path, count: int) -> None:
    tensor = torch.randn(count)
    write_tensors(tmp_path / "x.safetensors", {"x": tensor})
    assert _sampled(read_header(tmp_path / "x.safetensors")["x"]) == sample(tensor).numpy().tobytes()


def test_an_error_of_the_disk_names_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError) as raised, atomic(tmp_path / "x.json"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert raised.value.filename == str(tmp_path / "x.json") and os.listdir(tmp_path) == []
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        write_json(tmp_path / "folder", {})
    assert raised.value.filename == str(tmp_path / "folder")
    with pytest.raises(FileNotFoundError) as raised, atomic(tmp_path / "x.json"):
        (tmp_path / "another").open()
    assert raised.value.filename == str(tmp_path / "another")
