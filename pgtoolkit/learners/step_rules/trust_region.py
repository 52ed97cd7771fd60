"""A natural step that is shortened until it improves within a divergence (Schulman et al. 2015)."""

from typing import Any, final

import torch
from torch import Tensor, nn

from pgtoolkit.agent import Metrics
from pgtoolkit.learners.step_rules.base import Problem
from pgtoolkit.learners.step_rules.flat_adam import flatten, unflatten
from pgtoolkit.learners.step_rules.natural_gradient import natural_step, trained_parameters
from pgtoolkit.state import load_state_of, state_of
from pgtoolkit.torch_private import copy_all


@final
class TrustRegion:
    """Takes the longest of the steps ``shrink^k d`` that improves the surrogate within the bound.

    ``d`` is the natural step of divergence ``target_kl``, and ``k = 0, 1, ...``. A step is taken
    if the mean surrogate is greater than before and ``mean KL(old, new) <= target_kl``, both
    measured on the batch. If none of ``max_trials`` steps is, the parameters are what they were, to
    the bit.

    Args:
        target_kl: bound of the divergence, in nats.
        iterations: of the conjugate gradients.
        damping: added to the diagonal of the Fisher information.
        shrink: factor of the length from one trial to the next, between 0 and 1.
        max_trials: most lengths that are tried.
    """

    def __init__(
        self, *, target_kl: float, iterations: int, damping: float, shrink: float, max_trials: int
    ) -> None:
        self.target_kl, self.iterations, self.damping = target_kl, iterations, damping
        self.shrink, self.max_trials = shrink, max_trials

    def step(self, module: nn.Module, problem: Problem | None = None) -> Metrics:
        assert problem is not None, "a trust region needs the policy's distribution"
        found = natural_step(
            module,
            problem,
            target_kl=self.target_kl,
            iterations=self.iterations,
            damping=self.damping,
        )
        kl, trials = self.search(trained_parameters(module), problem, found.change)
        return {
            "train/gradient_norm": found.gradient_norm,
            "train/kl": kl,
            "train/line_search_trials": torch.tensor(float(trials)),
            "train/step_rejected": torch.tensor(float(trials == 0)),
        }

    @torch.no_grad()
    def search(
        self, parameters: list[Tensor], problem: Problem, change: Tensor
    ) -> tuple[Tensor, int]:
        """Takes a step, or none.

        Args:
            parameters: changed in place.
            problem: surrogate and divergence at the present parameters.
            change: the longest step ``[P]``.

        Returns:
            The divergence of the step that was taken, and the number of lengths that were tried; 0
            and 0 if none was taken.
        """
        before, start = problem.objective(), flatten(parameters)
        old = [p.detach().clone() for p in parameters]
        for trial in range(self.max_trials):
            moved = start + self.shrink**trial * change
            copy_all(parameters, unflatten(moved, parameters))
            kl = problem.kl()
            # Not a number is neither greater nor smaller, and is no step.
            if bool(problem.objective() > before) and bool(kl <= self.target_kl):
                return kl, trial + 1
        copy_all(parameters, old)
        return torch.zeros_like(before), 0

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, ())  # a step depends on no other one

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, (), state)
