"""The file of tensors is a safetensors file, and one flipped bit anywhere is found."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from pgtoolkit.training.storage.tensor_file import (
    DTYPES,
    DamagedError,
    encode,
    read_header,
    read_tensors,
    verify,
)

TENSORS = {
    "a": torch.arange(3.0),
    "b": torch.tensor([True, False, True]),
    "c": torch.tensor(0.1, dtype=torch.float64),
    "d": torch.zeros(0, 2**40),
    "e": torch.arange(6).reshape(2, 3).T,
}


def write(path: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> Path:
    path.write_bytes(b"".join(encode(tensors, metadata)))
    return path


def read(path: Path) -> dict[str, torch.Tensor]:
    with open(path, "rb", buffering=0) as file:
        verify(file)
        return read_tensors(file, read_header(file, path.stat().st_size))


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_the_file_is_one_that_safetensors_reads(tmp_path: Path) -> None:
    """The library of the format reads the tensors and the metadata; so other programs can."""
    path = write(tmp_path / "x", TENSORS, note="hello")
    assert_same(safetensors.torch.load_file(path), TENSORS)
    with safetensors.safe_open(path, framework="pt") as file:
        assert file.metadata()["note"] == "hello"


def test_a_file_that_safetensors_wrote_is_read(tmp_path: Path) -> None:
    """It has no checksum, which is said and not refused here."""
    path = tmp_path / "x"
    tensors = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    safetensors.torch.save_file(tensors, path, metadata={"note": "hello"})
    assert_same(read(path), TENSORS)
    with open(path, "rb", buffering=0) as file:
        assert not verify(file)
        assert read_header(file, path.stat().st_size).metadata == {"note": "hello"}


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    """Also the bits of NaNs, which no comparison of numbers sees."""
    size = 8 * DTYPES[name].itemsize
    raw = torch.arange(size, dtype=torch.uint8) + 120
    if name == "BOOL":
        raw = raw % 2
    tensor = raw.view(DTYPES[name])
    found = read(write(tmp_path / "x", {"x": tensor}))["x"]
    assert found.dtype == tensor.dtype and torch.equal(found.view(torch.uint8), raw)


def test_one_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    """In the length, the header, the checksum, the padding or a tensor: a bit of every byte."""
    data = b"".join(encode(TENSORS, {"note": "hello"}))
    path = tmp_path / "x"
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << 5 * place % 8
        path.write_bytes(damaged)
        try:
            read(path)
        except DamagedError:
            continue
        # Where the checksum's own name is damaged, it is not known that there was one.
        with open(path, "rb", buffering=0) as file:
            assert not verify(file)
            metadata = read_header(file, len(data)).metadata
        assert 8 < place < 40 and "checksum" not in metadata


@pytest.mark.parametrize("change", [-1, 1, -40])
def test_a_file_that_is_cut_or_lengthened_is_found(change: int, tmp_path: Path) -> None:
    """By the checksum, and without one by the header."""
    data = b"".join(encode(TENSORS, {}))
    plain = safetensors.torch.save({"a": TENSORS["a"]})
    for whole in (data, plain):
        (tmp_path / "x").write_bytes(whole[:change] if change < 0 else whole + b"\0" * change)
        with pytest.raises(DamagedError):
            read(tmp_path / "x")


def header_of(**entries: Any) -> bytes:
    """A file of 16 bytes of tensors with this header."""
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(16)


def entry(dtype: Any = "F32", shape: Any = (4,), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HOSTILE = {
    "empty": b"",
    "long header": (2**62).to_bytes(8, "little") + b"{}",
    "no JSON": (4).to_bytes(8, "little") + b"{{{{",
    "nested": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "long number": (5000).to_bytes(8, "little") + b"9" * 5000,
    "a list": (2).to_bytes(8, "little") + b"[]",
    "metadata not text": header_of(__metadata__={"a": 1}, x=entry()),
    "metadata a list": header_of(__metadata__=[], x=entry()),
    "entry a number": header_of(x=5),
    "entry empty": header_of(x={}),
    "unknown dtype": header_of(x=entry(dtype="F31")),
    "dtype a list": header_of(x=entry(dtype=[])),
    "shape a text": header_of(x=entry(shape="4")),
    "shape a number": header_of(x=entry(shape=4)),
    "shape a fraction": header_of(x=entry(shape=[4.0])),
    "negative shape": header_of(x=entry(shape=[-2, -2])),
    "huge shape": header_of(x=entry(shape=[2**31, 2**31])),
    "huge product": header_of(x=entry(shape=[2**62] * 5000)),
    "empty and huge": header_of(x=entry(), y=entry(shape=[0, 2**62, 2**62], offsets=(16, 16))),
    "outside": header_of(x=entry(shape=[8], offsets=(0, 32))),
    "backwards": header_of(x=entry(shape=[0], offsets=(16, 0))),
    "overlap": header_of(x=entry(), y=entry()),
    "gap": header_of(x=entry(shape=[2], offsets=(8, 16))),
    "three offsets": header_of(x=entry(offsets=(0, 8, 16))),
    "no truth value": header_of(x=entry("BOOL", [16]))[:-1] + b"\2",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name: str, tmp_path: Path) -> None:
    """Whatever the header says; no error but one, and no memory that the file has not."""
    (tmp_path / "x").write_bytes(HOSTILE[name])
    with pytest.raises(DamagedError):
        read(tmp_path / "x")


def test_a_header_that_could_not_be_read_again_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Long lists belong into tensors."""
    monkeypatch.setattr("pgtoolkit.training.storage.tensor_file.MAX_HEADER_BYTES", 1000)
    with pytest.raises(ValueError, match="keep it in tensors"):
        encode({}, {"state": "x" * 1000})


def test_tensors_on_the_cpu_are_written_without_a_copy() -> None:
    """The parts share the tensors' memory, so that a large buffer is not held twice."""
    tensor = torch.zeros(1000)
    view = encode({"x": tensor}, {})[-1]
    tensor[0] = 1.0
    assert bytes(view[:4]) != bytes(4)
