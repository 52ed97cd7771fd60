"""The saved state of a run beside its agent: what is refused, and by which words."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pgtoolkit.rollouts.episodes import EpisodeTracker
from pgtoolkit.state import StateError
from pgtoolkit.training.progress import Progress, require_agreement

NAN = float("nan")


def progress_state() -> dict[str, Any]:
    """A run of 3 environments after 2 updates, with a tag of every kind in its history."""
    progress = Progress(num_steps=48, num_updates=2, window_steps=24, best_return=1.5)
    progress.tracker = EpisodeTracker(3)
    progress.returns.extend([1.0, 2.0])
    progress.lengths.extend([5, 7])
    for update in range(12):
        scalars = {"train/std": 0.01, "eval/mean_reward": -1.0 * update, "train/approx_kl": 0.9}
        scalars |= {"gradient/pathwise/variance": 3.0, "gradient/pathwise/signal": 1.0}
        progress.diagnosis.observe(scalars, update)
    return progress.state_dict()


def changed(state: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    found = copy.deepcopy(state)
    *above, last = [int(key) if key.isdigit() else key for key in path.split(" ")]
    entry: Any = found
    for key in above:
        entry = entry[key]
    entry[last] = value
    return found


def test_pending_metrics_are_numbers_of_any_kind_with_at_most_one_axis() -> None:
    """Metrics count steps in integers too, such as those of a learned model."""
    metrics = {"a": torch.tensor(3), "b": torch.tensor(NAN), "gradient/by_step/x": torch.ones(4)}
    state = progress_state() | {"pending": metrics}
    progress = Progress()
    progress.load_state_dict(state)
    assert progress.pending == metrics
    for bad in (torch.ones(2, 2), 1.0):
        with pytest.raises(StateError, match="pending/a is not a tensor"):
            Progress().load_state_dict(state | {"pending": {"a": bad}})


def test_a_state_loads_into_a_fresh_progress() -> None:
    state, fresh = progress_state(), Progress()
    fresh.load_state_dict(state)
    assert fresh.state_dict() == state
    fresh = Progress()
    fresh.load_state_dict(Progress().state_dict())
    assert fresh.state_dict() == Progress().state_dict()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("num_steps", -(10**9), "num_steps is -1000000000, not between 0"),
        ("num_steps", 10**30, "num_steps is 1"),
        ("num_steps", True, "num_steps is True, not an integer"),
        ("num_steps", 48.0, "num_steps is 48.0, not an integer"),
        ("num_updates", 0, "num_steps is 48, not 0"),
        ("window_steps", 0, "window_steps is 0, not between 1"),
        ("window_steps", None, "window_steps is None"),
        ("window_steps", "16", "window_steps is '16'"),
        ("best_return", NAN, "best_return is nan"),
        ("eval_return", "x", "eval_return is 'x'"),
        ("next_eval", -1, "next_eval is -1"),
        ("returns", [1.0], "lengths has 2 entries, not 1"),
        ("returns", [1.0] * 101, "returns has 101 entries, not 0 to 100"),
        ("returns 1", NAN, "returns/1 is nan"),
        ("lengths 0", 0, "lengths/0 is 0"),
        ("tracker", [], "tracker is a list of 0"),
        ("tracker", {}, "tracker/running_return is missing"),
        ("tracker seen_first", [True], "tracker/seen_first has 1 entries, not 3"),
        ("tracker running_length 1", -1, "tracker/running_length/1 is -1"),
        ("diagnosis", None, "diagnosis is None"),
        ("diagnosis history followed", 3, "diagnosis/history/followed is 3"),
        ("diagnosis history series train/bad", {}, "series/train/bad is not known here"),
        ("diagnosis history series train/std", {}, "series/train/std/early is missing"),
        ("diagnosis history series train/std recent", [], "recent has 0 entries"),
        ("diagnosis history series train/std recent 0", NAN, "recent/0 is nan"),
        ("diagnosis history series train/std steps", [1], "recent has 12 entries, not 1"),
        ("diagnosis rules bad", {}, "diagnosis/rules/bad is not known here"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(path: str, value: Any, words: str) -> None:
    with pytest.raises(StateError) as caught:
        Progress().load_state_dict(changed(progress_state(), path, value))
    assert words in str(caught.value)


def test_a_finding_without_its_evidence_is_refused() -> None:
    """The words of a finding are made from the history, which must have its numbers."""
    state = progress_state()
    found = [kind for kind, rule in state["diagnosis"]["rules"].items() if rule["outcomes"]]
    assert found
    state["diagnosis"]["history"]["series"].clear()
    for kind in found:
        state["diagnosis"]["rules"][kind] |= {"steps": [3], "outcomes": [True], "since": 3}
    fresh = Progress()
    try:
        fresh.load_state_dict(state)
    except StateError as error:
        assert "contradicts the history" in str(error)
    else:
        assert fresh.diagnosis.findings is not None


@pytest.mark.parametrize("name", ["num_steps", "returns", "tracker", "diagnosis"])
def test_a_missing_entry_is_named(name: str) -> None:
    state = {key: value for key, value in progress_state().items() if key != name}
    with pytest.raises(StateError, match=f"{name} is missing"):
        Progress().load_state_dict(state)


def test_the_counts_of_run_and_agent_must_agree() -> None:
    progress = Progress()
    progress.load_state_dict(progress_state())
    config = SimpleNamespace(num_envs=3)
    require_agreement(progress, SimpleNamespace())
    agent = SimpleNamespace(collector=SimpleNamespace(num_steps=48, config=config))
    require_agreement(progress, agent)
    agent.collector.num_steps = 24
    with pytest.raises(StateError, match="progress/num_steps is 48, not 24"):
        require_agreement(progress, agent)
    agent.collector.num_steps, config.num_envs = 48, 4
    with pytest.raises(StateError, match="progress/tracker/running_return has 3 entries, not 4"):
        require_agreement(progress, agent)


def test_a_tensor_is_no_number() -> None:
    with pytest.raises(StateError, match="num_updates is a tensor"):
        Progress().load_state_dict(changed(progress_state(), "num_updates", torch.zeros(2)))
