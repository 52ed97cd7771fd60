"""The replay buffer: what it keeps, what it draws, and how it resumes."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.errors import RequestError
from pgtoolkit.rollouts.replay import ReplayBuffer
from pgtoolkit.rollouts.transitions import Transitions
from pgtoolkit.state import StateError
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint


def numbered(first: int, count: int, **extras: Tensor) -> Transitions:
    """Transitions whose reward is ten times their number; odd ones are terminated."""
    rows = torch.arange(first, first + count, dtype=torch.float32)
    return Transitions(
        obs=rows[:, None],
        action=-rows[:, None],
        reward=10 * rows,
        next_obs=rows[:, None] + 0.5,
        terminated=rows % 2 == 1,
        extras=extras,
    )


def images(count: int) -> Transitions:
    """uint8 images ``[count, 3, 4, 4]``, discrete actions, and extras of two dtypes."""
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(256, (2, count, 3, 4, 4), generator=generator).to(torch.uint8)
    return Transitions(
        obs=pixels[0],
        action=torch.randint(5, (count,), generator=generator),
        reward=torch.randn(count, generator=generator),
        next_obs=pixels[1],
        terminated=torch.rand(count, generator=generator) < 0.5,
        extras={
            "log_prob": torch.randn(count, generator=generator, dtype=torch.float64),
            "noise": torch.randn(count, 5, generator=generator),
        },
    )


def assert_same(found: Transitions, expected: Transitions) -> None:
    assert found.tensors().keys() == expected.tensors().keys()
    for name, tensor in found.tensors().items():
        assert tensor.dtype == expected.tensors()[name].dtype
        assert torch.equal(tensor, expected.tensors()[name])


def test_the_buffer_overwrites_the_oldest() -> None:
    buffer = ReplayBuffer(capacity=5)
    buffer.add(numbered(0, 3))
    assert len(buffer) == 3 and buffer.newest(2).reward.tolist() == [10, 20]
    buffer.add(numbered(3, 4))
    assert len(buffer) == 5 and buffer.newest(9).reward.tolist() == [20, 30, 40, 50, 60]
    assert_same(buffer.newest(1), numbered(6, 1))
    buffer.add(numbered(100, 12))
    assert buffer.newest(5).reward.tolist() == [1070, 1080, 1090, 1100, 1110]
    assert buffer.added == 19
    drawn = buffer.draw((3, 200), torch.Generator().manual_seed(0))
    assert drawn.obs.shape == (3, 200, 1)
    assert set(drawn.reward.flatten().tolist()) == {1070, 1080, 1090, 1100, 1110}


@pytest.mark.parametrize("capacity", [1, 2, 5, 7])
def test_the_newest_are_those_of_a_list(capacity: int) -> None:
    """Additions of 0 to 9 rows, each with every start in the ring."""
    buffer, so_far = ReplayBuffer(capacity), 0
    for count in [3, 0, 1, 1, 9, 2, 5, 7, 4, 8, 6] * 3:
        buffer.add(numbered(so_far, count))
        so_far += count
        kept = min(so_far, capacity)
        assert len(buffer) == kept and buffer.added == so_far
        assert_same(buffer.newest(capacity), numbered(so_far - kept, kept))


def test_parts_of_a_drawn_transition_belong_together() -> None:
    buffer = ReplayBuffer(50)
    buffer.add(numbered(0, 80))
    drawn = buffer.draw((400,), torch.Generator().manual_seed(0))
    for row, number in enumerate((drawn.reward / 10).int().tolist()):
        assert_same(drawn.rows(slice(row, row + 1)), numbered(number, 1))


def test_dtypes_and_shapes_are_kept() -> None:
    """Images take one byte a pixel, and every part returns as it came."""
    buffer, batch = ReplayBuffer(6), images(6)
    buffer.add(batch)
    assert_same(buffer.newest(6), batch)
    drawn = buffer.draw((2, 3), torch.Generator().manual_seed(0))
    assert drawn.obs.dtype == torch.uint8 and drawn.obs.shape == (2, 3, 3, 4, 4)
    assert drawn.action.dtype == torch.int64 and drawn.action.shape == (2, 3)
    assert drawn.terminated.dtype == torch.bool
    assert drawn.extras["log_prob"].dtype == torch.float64
    assert drawn.extras["noise"].shape == (2, 3, 5)


def test_draws_are_uniform_and_independent() -> None:
    """Counts of 20 places in 40,000 draws, and of equal neighbours, within 5 standard errors."""
    buffer, count = ReplayBuffer(20), 40_000
    buffer.add(numbered(0, 33))
    drawn = buffer.draw((count,), torch.Generator().manual_seed(1)).reward / 10
    expected, sigma = count / 20, (count / 20 * (1 - 1 / 20)) ** 0.5
    counts = torch.bincount(drawn.long(), minlength=33)
    assert not counts[:13].any()
    assert (counts[13:] - expected).abs().max() < 5 * sigma
    repeats = int((drawn[1:] == drawn[:-1]).sum())
    assert abs(repeats - expected) < 5 * sigma


def test_a_seed_repeats_the_draws() -> None:
    buffer = ReplayBuffer(20, numbered(0, 1))
    buffer.add(numbered(0, 20))
    first, again, other = (
        buffer.draw((8,), torch.Generator().manual_seed(seed)) for seed in (4, 4, 5)
    )
    assert_same(first, again)
    assert not torch.equal(first.reward, other.reward)


def test_what_is_drawn_and_stored_is_a_copy_without_a_graph() -> None:
    buffer, batch = ReplayBuffer(3), numbered(0, 3)
    batch.reward.requires_grad_()
    buffer.add(batch)
    found = buffer.newest(3)
    assert not found.reward.requires_grad
    found.reward.zero_()
    batch.obs.fill_(9)
    assert_same(buffer.newest(3), numbered(0, 3))


def test_an_example_fixes_the_kind_and_stores_nothing() -> None:
    """The example may have no rows; without one an empty buffer has no shapes yet."""
    buffer = ReplayBuffer(4, numbered(0, 0))
    assert len(buffer) == 0 and buffer.newest(3).obs.shape == (0, 1)
    with pytest.raises(RequestError, match="empty replay buffer: add transitions"):
        buffer.draw((1,), torch.Generator())
    with pytest.raises(RequestError, match="give it an example"):
        ReplayBuffer(4).newest(3)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("obs", {"obs": torch.zeros(2, 3)}),
        ("obs", {"obs": torch.zeros(2, 1, dtype=torch.float64)}),
        ("action", {"action": torch.zeros(2)}),
        ("terminated", {"terminated": torch.zeros(2)}),
        ("log_prob", {"extras": {"log_prob": torch.zeros(2, 1)}}),
        (r"\['action', 'next_obs', 'obs', 'reward', 'terminated'\]", {"extras": {}}),
    ],
)
def test_transitions_of_another_kind_are_refused(name: str, change: dict[str, Any]) -> None:
    """The message names the part. Nothing is stored then."""
    buffer = ReplayBuffer(4, numbered(0, 0, log_prob=torch.zeros(0)))
    right = numbered(0, 2, log_prob=torch.zeros(2))
    with pytest.raises(RequestError, match=f"{name}.*the replay buffer stores"):
        buffer.add(dataclasses.replace(right, **change))
    assert len(buffer) == 0
    buffer.add(right)
    assert_same(buffer.newest(2), right)


def test_only_rows_can_be_added() -> None:
    folded = numbered(0, 6).rows(torch.arange(6).reshape(3, 2))
    with pytest.raises(RequestError, match=r"\[3, 2\]: flatten them to one leading axis"):
        ReplayBuffer(4).add(folded)
    with pytest.raises(RequestError, match=r"obs of the transitions is .*\[3, 2, 1\]"):
        ReplayBuffer(4, numbered(0, 0)).add(folded)
    with pytest.raises(RequestError, match="capacity must be at least 1, not 0"):
        ReplayBuffer(0)


@pytest.mark.parametrize("count", [0, 3, 11])
def test_a_buffer_resumes_exactly(count: int, tmp_path: Path) -> None:
    """A new and a used buffer load the file; places in the ring and later draws agree."""
    buffer = ReplayBuffer(7, images(0))
    buffer.add(images(count))
    save_checkpoint(tmp_path / "buffer", buffer.state_dict())
    fresh, used = ReplayBuffer(7), ReplayBuffer(7, images(0))
    used.add(images(9))
    for other in (fresh, used):
        other.load_state_dict(load_checkpoint(tmp_path / "buffer"))
        assert len(other) == len(buffer) and other.added == buffer.added
        assert_same(other.newest(7), buffer.newest(7))
    for each in (buffer, fresh, used):
        each.add(images(5))
    drawn = [each.draw((30,), torch.Generator().manual_seed(2)) for each in (buffer, fresh, used)]
    assert_same(drawn[1], drawn[0])
    assert_same(drawn[2], drawn[0])


def test_a_buffer_that_saved_nothing_resumes_to_nothing() -> None:
    used = ReplayBuffer(7)
    used.add(numbered(0, 3))
    used.load_state_dict(ReplayBuffer(7).state_dict())
    assert len(used) == 0


def test_a_saved_buffer_of_another_kind_is_refused() -> None:
    buffer = ReplayBuffer(7)
    buffer.add(images(3))
    state = copy.deepcopy(buffer.state_dict())
    with pytest.raises(RequestError, match="holds 7 transitions and this one 8"):
        ReplayBuffer(8).load_state_dict(state)
    with pytest.raises(StateError, match="tensors/log_prob is not known here"):
        ReplayBuffer(7, numbered(0, 0)).load_state_dict(state)
