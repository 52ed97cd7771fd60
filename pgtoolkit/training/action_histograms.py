"""Histograms of an evaluation's actions between their bounds, as metrics and in TensorBoard."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from pgtoolkit.agent import Metrics
from pgtoolkit.rollouts.action_counts import NUM_BINS, ActionCounts

AT_BOUND_TAG = "eval/actions_at_bound"

HISTOGRAM_TAG = "eval/actions/"
"""Beginning of the tags of vectors that are counts; a dimension's number follows."""

MAX_HISTOGRAMS = 32
"""Dimensions that have a histogram; TensorBoard shows a card for each."""

EDGES = np.linspace(-1, 1, NUM_BINS + 1)
"""Edges of the bins, where the bounds are -1 and 1."""


def action_metrics(actions: ActionCounts) -> Metrics:
    """The share of actions at a bound, and the counts ``[NUM_BINS]`` of each dimension."""
    rows = list(zip(actions.dimensions, actions.counts, strict=True))[:MAX_HISTOGRAMS]
    histograms = {f"{HISTOGRAM_TAG}{i}": torch.tensor(counts) for i, counts in rows}
    return {AT_BOUND_TAG: torch.tensor(actions.at_bound_share), **histograms}


def write_histograms(writer: SummaryWriter, metrics: Metrics, step: int) -> None:
    """Writes the counts among metrics as histograms from -1 to 1."""
    for tag, counts in metrics.items():
        if tag.startswith(HISTOGRAM_TAG):
            writer.add_histogram_raw(tag, **_histogram(counts.tolist()), global_step=step)


def _histogram(counts: list[int]) -> Mapping[str, Any]:
    """Counts as ``add_histogram_raw`` takes them; sums are those of the bins' centres."""
    centres = (EDGES[1:] + EDGES[:-1]) / 2
    return {
        "min": -1.0,
        "max": 1.0,
        "num": sum(counts),
        "sum": float(centres @ counts),
        "sum_squares": float(centres**2 @ counts),
        "bucket_limits": EDGES[1:].tolist(),
        "bucket_counts": counts,
    }
