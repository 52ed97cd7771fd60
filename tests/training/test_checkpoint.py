"""Checkpoints: what goes in comes out, and a file is whole or not there."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pgtoolkit.errors import RequestError
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint


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
