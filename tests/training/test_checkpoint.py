"""Checkpoints: what goes in comes out, and a file is whole or not there."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from pgtoolkit.errors import RequestError
from pgtoolkit.training.checkpoint import (
    MAX_DEPTH,
    CheckpointError,
    encode_state,
    load_checkpoint,
    save_checkpoint,
)


def round_trip(state: dict[Any, Any], folder: Path) -> dict[Any, Any]:
    path = folder / "state.safetensors"
    save_checkpoint(path, state)
    return load_checkpoint(path)


def assert_equal(found: Any, expected: Any) -> None:
    """Types, values and the order of keys are equal at every depth; tensors bit for bit."""
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_equal(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        assert found == expected


def test_a_nested_state_comes_back_as_it_was(tmp_path: Path) -> None:
    """Dictionaries, lists, tuples, tensors of all kinds, plain values; integer keys stay so."""
    state: dict[Any, Any] = {
        "tensors": {
            "float32": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)),
            "float64": torch.tensor(0.1, dtype=torch.float64),
            "int64": torch.arange(4),
            "uint8": torch.Generator().manual_seed(1).get_state(),
            "bool": torch.tensor([True, False]),
            "empty": torch.zeros(0, 3),
            "transposed": torch.arange(6).reshape(2, 3).T,
        },
        "plain": [None, True, 3, 0.1, "text: $tensor", [], {}, ()],
        "tuple": (1, (2, torch.ones(1))),
        0: {"$tensor": "not one", 7: [torch.zeros(1)]},
    }
    assert_equal(round_trip(state, tmp_path), state)


def test_a_float_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    """Infinity and the largest integer are restored too."""
    state = {"x": 0.1 + 0.2, "tiny": 5e-324, "inf": float("inf"), "int": 2**63 - 1}
    assert round_trip(state, tmp_path) == state


def test_keys_that_look_alike_stay_apart(tmp_path: Path) -> None:
    """A key with a slash is not a path, and the integer 0 is not the string "0"."""
    state: dict[Any, Any] = {
        "a/b": torch.tensor([1.0]),
        "a": {"b": torch.tensor([2.0])},
        0: torch.tensor([3.0]),
        "0": torch.tensor([4.0]),
    }
    assert_equal(round_trip(state, tmp_path), state)


def test_an_optimizer_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """Adam's moments and step counts, for the next step's parameters bit for bit."""

    def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        module(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()

    module = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(module.parameters(), 0.1)
    step(module, optimizer)
    state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
    loaded = round_trip(state, tmp_path)
    other = nn.Linear(3, 1)
    resumed = torch.optim.Adam(other.parameters(), 0.1)
    other.load_state_dict(loaded["module"])
    resumed.load_state_dict(loaded["optimizer"])
    step(module, optimizer)
    step(other, resumed)
    assert torch.equal(module.weight, other.weight) and torch.equal(module.bias, other.bias)


def test_views_of_one_storage_are_saved_each_for_itself(tmp_path: Path) -> None:
    """A row of a larger tensor, and the tensor, and a parameter that wants gradients."""
    whole = torch.arange(6.0).reshape(2, 3)
    loaded = round_trip(
        {"whole": whole, "row": whole[1], "parameter": nn.Parameter(whole)}, tmp_path
    )
    assert torch.equal(loaded["row"], whole[1]) and torch.equal(loaded["whole"], whole)
    assert not loaded["parameter"].requires_grad


def test_no_object_is_smuggled_in(tmp_path: Path) -> None:
    """A state with a function in it is refused; the error names its place, and no file is left."""
    with pytest.raises(TypeError, match=r"a checkpoint cannot hold a function.*/a/1"):
        save_checkpoint(tmp_path / "x", {"a": [1, round_trip]})
    assert list(tmp_path.iterdir()) == []


def test_a_crash_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is replaced at the end, in one go, once all of it is on the disk."""
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, {"x": 1})
    order: list[str] = []
    replace, fsync = os.replace, os.fsync

    def crash(descriptor: int) -> None:
        order.append("flush")
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, {"x": 2})
    assert load_checkpoint(path) == {"x": 1}

    def noted_fsync(descriptor: int) -> None:
        order.append("flush")
        fsync(descriptor)

    def noted_replace(source: str, target: str, **folders: int) -> None:
        order.append("rename")
        replace(source, target, **folders)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    save_checkpoint(path, {"x": 3})
    assert order == ["flush", "flush", "rename", "flush"]
    assert load_checkpoint(path) == {"x": 3}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_file_that_is_missing_damaged_or_foreign_is_a_request_error(tmp_path: Path) -> None:
    """Half a file, an empty one, text, and tensors that somebody else saved."""
    good = tmp_path / "good"
    save_checkpoint(good, {"x": torch.zeros(100)})
    half, empty, text, foreign = (tmp_path / name for name in ("half", "empty", "text", "foreign"))
    half.write_bytes(good.read_bytes()[:200])
    empty.write_bytes(b"")
    text.write_text("hello, this is no checkpoint")
    save_file({"x": torch.zeros(1)}, foreign)
    for path in (tmp_path / "missing", tmp_path, half, empty, text, foreign):
        with pytest.raises(RequestError, match="checkpoint"):
            load_checkpoint(path)


def test_a_tensor_is_loaded_onto_the_device_that_is_asked_for(tmp_path: Path) -> None:
    """Without a device, tensors are loaded onto the CPU."""
    path = tmp_path / "x"
    save_checkpoint(path, {"x": torch.zeros(1)})
    assert load_checkpoint(path, torch.device("cpu"))["x"].device == torch.device("cpu")
    assert load_checkpoint(path)["x"].device == torch.device("cpu")


def test_numbers_that_are_not_finite_come_back(tmp_path: Path) -> None:
    """NaN, both infinities and the zero with a sign, among plain values and in tensors."""
    found = round_trip(
        {"x": [math.nan, math.inf, -math.inf, -0.0], "t": torch.tensor(math.nan)}, tmp_path
    )
    nan, *rest = found["x"]
    assert math.isnan(nan) and rest == [math.inf, -math.inf, 0.0]
    assert math.copysign(1, rest[2]) == -1 and bool(found["t"].isnan())


def test_keys_keep_their_types(tmp_path: Path) -> None:
    """Integers, truth values, fractions and None; a tuple is no key that JSON could hold."""
    state: dict[Any, Any] = {"1": 0, 2: 1, True: 2, 2.5: 3, None: 4}
    found = round_trip(state, tmp_path)
    assert_equal(found, state)
    assert [type(key) for key in found] == [type(key) for key in state]
    with pytest.raises(TypeError, match=r"a tuple as key \(/a\)"):
        save_checkpoint(tmp_path / "x", {"a": {(1, 2): 3}})


def test_a_state_may_be_as_deep_as_can_be_read(tmp_path: Path) -> None:
    """One level more is refused when it is written, and not only when it is read."""

    def nested(depth: int) -> Any:
        return [nested(depth - 1)] if depth else torch.ones(1)

    deepest = {"x": nested(MAX_DEPTH - 1)}
    assert_equal(round_trip(deepest, tmp_path), deepest)
    with pytest.raises(ValueError, match="100 levels"):
        save_checkpoint(tmp_path / "x", {"x": nested(MAX_DEPTH)})


STATE: dict[Any, Any] = {"a": torch.arange(3.0), "b": [1, (0.5, None)], 3: "text"}


def test_one_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    """A bit of every byte of the file; the error is that of a damaged file."""
    data, path = b"".join(encode_state(STATE)), tmp_path / "x"
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << 3 * place % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)
    path.write_bytes(data)
    assert_equal(load_checkpoint(path), STATE)


def old_file(state: Any, **metadata: str) -> bytes:
    """A file of format 1 with tensor ``0/a``; the state is JSON or a text."""
    text = state if isinstance(state, str) else json.dumps(state)
    notes = {"format": "pgtoolkit-checkpoint-1", "state": text} | metadata
    return save({"0/a": torch.arange(3.0)}, metadata=notes)


def test_an_earlier_format_is_read_and_the_missing_checksum_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Format 1 is the same without a checksum."""
    path = tmp_path / "x"
    path.write_bytes(old_file({"$dict": [["a", {"$tensor": "0/a"}], [3, {"$tuple": [1]}]]}))
    assert_equal(load_checkpoint(path), {"a": torch.arange(3.0), 3: (1,)})
    assert "has no checksum" in caplog.text and caplog.text.count("\n") == 1
    caplog.clear()
    save_checkpoint(path, load_checkpoint(path))
    caplog.clear()
    load_checkpoint(path)
    assert caplog.text == ""


@pytest.mark.parametrize("written_by", [{}, {"written_by": "pgtoolkit 9.1"}])
def test_a_newer_format_is_refused_and_its_writer_named(
    tmp_path: Path, written_by: dict[str, str]
) -> None:
    """It is not damaged: an older file must not be used in its place."""
    path = tmp_path / "x"
    path.write_bytes(old_file("?", format="pgtoolkit-checkpoint-3", **written_by))
    with pytest.raises(RequestError, match=r"format 3.*update pgtoolkit") as caught:
        load_checkpoint(path)
    assert not isinstance(caught.value, CheckpointError)
    assert written_by.get("written_by", "a newer version") in str(caught.value)


HOSTILE_STATES: dict[str, Any] = {
    "no JSON": "{",
    "brackets": "[" * 100_000,
    "deep lists": '{"$list":[' * 5000 + "1" + "]}" * 5000,
    "deeper than is written": '{"$list":[' * 150 + "1" + "]}" * 150,
    "a plain list": [],
    "a plain dictionary": {},
    "a number": 5,
    "a list at the top": {"$list": [{"$tensor": "0/a"}]},
    "two kinds": {"$dict": [], "$list": []},
    "unknown kind": {"$dict": [["a", {"$set": []}]]},
    "tensor unknown": {"$dict": [["a", {"$tensor": "1/a"}]]},
    "tensor a list": {"$dict": [["a", {"$tensor": ["0/a"]}]]},
    "tensor twice": {"$dict": [["a", {"$tensor": "0/a"}], ["b", {"$tensor": "0/a"}]]},
    "tensor left out": {"$dict": []},
    "items no list": {"$dict": {"a": 1}},
    "item no pair": {"$dict": [["a"]]},
    "item a text": {"$dict": ["ab"]},
    "key a list": {"$dict": [[[1], 2]]},
    "key twice": {"$dict": [["a", 1], ["a", {"$tensor": "0/a"}]]},
    "list a text": {"$dict": [["a", {"$list": "abc"}]]},
    "long number": '{"$dict": [["a", ' + "9" * 5000 + "]]}",
}


@pytest.mark.parametrize("name", HOSTILE_STATES)
def test_a_state_that_nobody_wrote_is_refused(name: str, tmp_path: Path) -> None:
    """Without a checksum every JSON gets to the place where it is read."""
    (tmp_path / "x").write_bytes(old_file(HOSTILE_STATES[name]))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", ["", "0x2", "-1", "1" * 5000, "\u0662"])
def test_a_format_that_is_no_number_is_no_checkpoint(number: str, tmp_path: Path) -> None:
    """Neither an error of Python nor a newer version."""
    (tmp_path / "x").write_bytes(old_file("{}", format=f"pgtoolkit-checkpoint-{number}"))
    with pytest.raises(CheckpointError, match="not a pgtoolkit checkpoint"):
        load_checkpoint(tmp_path / "x")


def test_what_memory_does_not_hold_is_not_read(tmp_path: Path) -> None:
    """A file with a hole of a terabyte, and one above the limit that the caller gives."""
    path = tmp_path / "x"
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(CheckpointError, match="at most"):
        load_checkpoint(path)
    save_checkpoint(path, STATE)
    with pytest.raises(CheckpointError, match="at most 10 are read"):
        load_checkpoint(path, limit=10)
