"""Returns of episodes, followed across windows."""

import pytest
import torch
from torch import Tensor

from pgtoolkit.rollouts.episodes import EpisodeTracker
from pgtoolkit.rollouts.window import Window
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint


def window_of(
    reward: list[list[float]],
    done: list[list[int]],
    *,
    valid: list[list[int]] | None = None,
    episode_start: list[list[int]] | None = None,
) -> Window:
    """One list an environment; ends are terminations."""
    r, d = torch.tensor(reward).T, torch.tensor(done).bool().T
    nothing = torch.zeros(*r.shape, 1)

    def flags(lists: list[list[int]] | None) -> Tensor | None:
        return None if lists is None else torch.tensor(lists).bool().T

    happened = flags(valid)
    return Window(
        obs=nothing,
        next_obs=nothing,
        noise=nothing,
        pre_action=nothing,
        action=nothing,
        log_prob=nothing[..., 0],
        reward=r,
        terminated=d,
        truncated=torch.zeros_like(d),
        valid=torch.ones_like(d) if happened is None else happened,
        episode_start=flags(episode_start),
    )


def test_returns_and_lengths_within_one_window() -> None:
    """1 + 2 and 3 + 4 in the first environment, 10 + 20 + 30 in the second, in order of time."""
    window = window_of(
        [[1, 2, 3, 4, 5], [10, 20, 30, 40, 50]],
        [[0, 1, 0, 1, 0], [0, 0, 1, 0, 0]],
        episode_start=[[1, 0, 1, 0, 1], [1, 0, 0, 1, 0]],
    )
    assert EpisodeTracker(2).update(window) == [
        (0, 3.0, 2, None),
        (1, 60.0, 3, None),
        (0, 7.0, 2, None),
    ]


def test_an_episode_goes_on_over_windows() -> None:
    """1 + 2 | 3 + 4 | 5: one episode of 15 in five steps, then a new one of one step."""
    tracker = EpisodeTracker(1)
    assert tracker.update(window_of([[1, 2]], [[0, 0]], episode_start=[[1, 0]])) == []
    assert tracker.update(window_of([[3, 4]], [[0, 0]], episode_start=[[0, 0]])) == []
    last = window_of([[5, 7]], [[1, 1]], episode_start=[[0, 1]])
    assert tracker.update(last) == [(0, 15.0, 5, None), (0, 7.0, 1, None)]


def test_an_end_on_a_window_boundary_is_an_end() -> None:
    """The next episode starts at return 0 and length 0, with ``episode_start`` or without."""
    for episode_start in ([[1, 0]], None):
        tracker = EpisodeTracker(1)
        one = window_of([[1, 2]], [[0, 1]], episode_start=episode_start)
        other = window_of([[10, 20]], [[0, 1]], episode_start=episode_start)
        assert tracker.update(one) == [(0, 3.0, 2, None)]
        assert tracker.update(other) == [(0, 30.0, 2, None)]


def test_a_step_that_never_happened_is_not_counted() -> None:
    """The fake step of NEXT_STEP autoreset has a reward here, and is neither added nor a step."""
    window = window_of(
        [[1, 2, 99, 4, 5]],
        [[0, 1, 0, 0, 1]],
        valid=[[1, 1, 0, 1, 1]],
        episode_start=[[1, 0, 0, 1, 0]],
    )
    assert EpisodeTracker(1).update(window) == [(0, 3.0, 2, None), (0, 9.0, 2, None)]


def test_an_episode_whose_start_was_not_seen_is_not_counted() -> None:
    """The first end is that of an episode that began before; the next one is whole."""
    window = window_of([[1, 2, 3, 4]], [[0, 1, 0, 1]], episode_start=[[0, 0, 1, 0]])
    assert EpisodeTracker(1).update(window) == [(0, 7.0, 2, None)]


def test_long_returns_do_not_lose_small_rewards() -> None:
    """1e8 + 1000 times 1: float32 sums would drop every one of them."""
    reward = [[1e8] + [1.0] * 1000]
    done = [[0] * 1000 + [1]]
    ((_, episode_return, length, _),) = EpisodeTracker(1).update(
        window_of(reward, done, episode_start=[[1] + [0] * 1000])
    )
    assert episode_return == 1e8 + 1000
    assert length == 1001


def test_a_tracker_goes_on_from_its_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A tracker saved in the middle of an episode and loaded finds the same episodes."""
    tracker = EpisodeTracker(2)
    tracker.update(window_of([[1, 2], [3, 4]], [[0, 0], [0, 1]], episode_start=[[1, 0], [1, 0]]))
    path = tmp_path_factory.mktemp("run") / "tracker"
    save_checkpoint(path, tracker.state_dict())
    resumed = EpisodeTracker(2)
    resumed.load_state_dict(load_checkpoint(path))
    following = window_of([[5, 0], [6, 7]], [[1, 0], [0, 1]], episode_start=[[0, 1], [1, 0]])
    assert (
        resumed.update(following)
        == tracker.update(following)
        == [(0, 8.0, 3, None), (1, 13.0, 2, None)]
    )
