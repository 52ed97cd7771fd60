"""Noise of actions that is correlated in time, or is not."""

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.distributions.noise import Noise
from pgtoolkit.state import entries, require, tensor


@final
class CorrelatedNoise:
    """Normal noise ``x_t = c x_{t-1} + sqrt(1 - c^2) eps_t``: correlation ``c^k`` over ``k`` steps.

    Each ``x_t`` is standard normal as ``eps_t`` is, so that an action has the policy's own
    distribution. But the noise stays on one side for about ``1 / (1 - c)`` steps, and so an
    environment that averages its actions is explored further (the Ornstein-Uhlenbeck noise of
    Lillicrap et al. 2015 with the policy's standard deviation; Eberhard et al. 2023 compare kinds).
    It goes on over the ends of episodes. Other than normal entries of the noise stay as they are.

    Args:
        correlation: ``c`` in (0, 1).
        num_envs: ``N``.
        action_size: ``A``, the number of normal entries.
        generator: draws the noise before the first step.
    """

    before: Tensor

    def __init__(
        self, correlation: float, num_envs: int, action_size: int, generator: torch.Generator
    ) -> None:
        self.correlation = correlation
        self.before = torch.randn(
            num_envs, action_size, generator=generator, device=generator.device
        )

    def __call__(self, noise: Tensor, parts: Sequence[Noise]) -> Tensor:
        """The noise ``[T, N, S]`` of the next steps, from independent noise of these parts."""
        pieces = torch.split(noise, [part.size for part in parts], -1)
        kinds = [part.kind for part in parts]
        found = [
            self._filtered(piece) if kind == "normal" else piece
            for piece, kind in zip(pieces, kinds, strict=True)
        ]
        return torch.cat(found, -1)

    def _filtered(self, noise: Tensor) -> Tensor:
        rows, fresh = [], math.sqrt(1 - self.correlation**2) * noise
        for row in fresh:
            self.before = self.correlation * self.before + row
            rows.append(self.before)
        return torch.stack(rows)

    def state_dict(self) -> dict[str, Any]:
        """The noise of the last step."""
        return {"before": self.before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads what :meth:`state_dict` returned.

        Raises:
            StateError: it does not fit.
        """
        require(state, entries({"before": tensor(self.before)}))
        self.before = state["before"].to(self.before.device)


@final
class IndependentNoise:
    """Leaves noise as it was drawn."""

    def __call__(self, noise: Tensor, parts: Sequence[Noise]) -> Tensor:
        return noise

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Does nothing: there is no state."""
        require(state, entries({}))
