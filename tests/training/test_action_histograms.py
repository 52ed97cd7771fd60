"""Histograms of actions in TensorBoard."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pgtoolkit.rollouts.action_counts import NUM_BINS, ActionCounts
from pgtoolkit.training.action_histograms import MAX_HISTOGRAMS, action_metrics
from pgtoolkit.training.writer import RunWriter


def test_histograms_and_the_share_at_a_bound_come_back(tmp_path: Path) -> None:
    """Three actions in the first bin of dimension 2, and one in the last."""
    counts = np.zeros((2, NUM_BINS), np.int64)
    counts[1, 0], counts[1, -1] = 3, 1
    with RunWriter(tmp_path) as writer:
        scalars = writer.write(
            action_metrics(ActionCounts((0, 2), tuple(map(tuple, counts.tolist())), 2)), 50
        )
    assert scalars == {"eval/actions_at_bound": 0.5}
    events: Any = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["histograms"] == ["eval/actions/0", "eval/actions/2"]
    (event,) = events.Histograms("eval/actions/2")
    found = event.histogram_value
    assert (event.step, found.min, found.max, found.num) == (50, -1, 1, 4)
    assert found.bucket == counts[1].tolist()
    assert found.bucket_limit == pytest.approx(np.linspace(-1, 1, NUM_BINS + 1)[1:])


def test_many_dimensions_do_not_all_have_a_card() -> None:
    counts = ((1,) * NUM_BINS,) * 100
    found = action_metrics(ActionCounts(tuple(range(100)), counts, 0))
    assert sum(value.dim() == 1 for value in found.values()) == MAX_HISTOGRAMS
    assert torch.equal(found["eval/actions/0"], torch.ones(NUM_BINS, dtype=torch.int64))
