"""Running observation normaliser, frozen except when it is told to update."""

import torch
from torch import Tensor, nn


class ObservationNormalizer(nn.Module):
    """``clip((obs - mean) / sqrt(var + 1e-8), -limit, limit)`` with running moments.

    Calling it never changes the statistics: inside a window they are constants. ``update`` folds
    one window in (parallel variance, Chan et al. 1979), after the update that used the window.
    The moments are kept in float64, so that they do not drift over millions of steps. Before the
    first update it is the identity up to the clip.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, size: int, limit: float = 10.0) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, obs: Tensor) -> Tensor:
        mean, scale = self.mean.to(obs.dtype), torch.rsqrt(self.variance + 1e-8).to(obs.dtype)
        return ((obs - mean) * scale).clamp(-self.limit, self.limit)

    @torch.no_grad()
    def update(self, obs: Tensor, valid: Tensor) -> None:
        """Folds in the valid rows of ``obs`` ``[T, N, O]``; ``valid`` is ``[T, N]``."""
        rows = obs[valid].double()
        if rows.shape[0] == 0:
            return
        count, mean, variance = rows.shape[0], rows.mean(0), rows.var(0, unbiased=False)
        total = self.count + count
        shift = mean - self.mean
        squares = self.variance * self.count + variance * count
        squares = squares + shift.square() * self.count * count / total
        # Buffers are replaced, not written: a graph may still hold the old ones.
        self.mean, self.variance = self.mean + shift * count / total, squares / total
        self.count = total


class NoNormalizer(nn.Module):
    """Leaves observations as they are."""

    def forward(self, obs: Tensor) -> Tensor:
        return obs

    def update(self, obs: Tensor, valid: Tensor) -> None:
        """Does nothing."""
