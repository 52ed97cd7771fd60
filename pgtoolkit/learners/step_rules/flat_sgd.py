"""Plain gradient descent, as a pure function of the parameters in one vector."""

import dataclasses
from typing import final

from torch import Tensor

from pgtoolkit.learners.step_rules.flat_adam import AdamState


@final
@dataclasses.dataclass(frozen=True)
class FlatSgd:
    """``x <- x - lr g``: the gradient is the speed. Adam's moments stay as they are."""

    def step(
        self, state: AdamState, gradient: Tensor, learning_rate: Tensor
    ) -> tuple[AdamState, Tensor]:
        """The state after one step, and the gradient's norm."""
        moved = state.parameters - learning_rate * gradient
        after = state._replace(parameters=moved, steps=state.steps + 1)
        return after, gradient.square().sum().sqrt()
