"""Steps along the natural gradient ``F^-1 g``, whose length is a divergence (Kakade 2001)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from pgtoolkit.agent import Metrics
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.learners.gradient_clip import require_finite_gradient
from pgtoolkit.learners.step_rules.base import Problem
from pgtoolkit.learners.step_rules.flat_adam import flatten, unflatten
from pgtoolkit.state import load_state_of, state_of
from pgtoolkit.torch_private import copy_all

Product = Callable[[Tensor], Tensor]
"""Maps a vector ``v`` ``[P]`` to ``F v`` ``[P]``."""


@final
class NaturalStep(NamedTuple):
    """A step ``[P]`` up the surrogate, and the norm of the gradient that it comes from."""

    change: Tensor
    gradient_norm: Tensor


@final
class NaturalGradient:
    """Changes the parameters by ``sqrt(2 target_kl / x^T F x) x`` with ``x = F^-1 g``.

    ``F`` is the Fisher information of the policy on the batch, the second derivative of
    ``mean KL(old, new)`` at ``new = old``, plus ``damping`` on its diagonal. To second order, the
    step changes the policy by ``target_kl``. ``x`` comes from conjugate gradients, which need
    products with ``F`` alone.

    Args:
        target_kl: divergence of a step, in nats.
        iterations: of the conjugate gradients.
        damping: added to the diagonal of ``F``.
    """

    def __init__(self, *, target_kl: float, iterations: int, damping: float) -> None:
        self.target_kl, self.iterations, self.damping = target_kl, iterations, damping

    def step(self, module: nn.Module, problem: Problem | None = None) -> Metrics:
        assert problem is not None, "a natural gradient needs the policy's distribution"
        parameters = trained_parameters(module)
        found = natural_step(
            module,
            problem,
            target_kl=self.target_kl,
            iterations=self.iterations,
            damping=self.damping,
        )
        with torch.no_grad():
            copy_all(parameters, unflatten(flatten(parameters) + found.change, parameters))
            return {"train/gradient_norm": found.gradient_norm, "train/kl": problem.kl()}

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, ())  # a step depends on no other one

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, (), state)


def natural_step(
    module: nn.Module, problem: Problem, *, target_kl: float, iterations: int, damping: float
) -> NaturalStep:
    """The step of :class:`NaturalGradient` at the present parameters; nothing is changed.

    It is 0 where the gradient is.

    Args:
        module: every parameter's ``grad`` holds the derivative of the loss.
        problem: the policy's distribution on the batch.
        target_kl: divergence of the step, in nats.
        iterations: of the conjugate gradients.
        damping: added to the diagonal of ``F``.

    Raises:
        NonFiniteError: the gradient or a curvature is not finite; names it.
    """
    require_finite_gradient(module.named_parameters())
    parameters = trained_parameters(module)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    uphill = -flatten(gradients)
    product = fisher_product(problem, parameters, damping)
    direction = conjugate_gradient(product, uphill, iterations)
    curvature = direction @ product(direction)
    length = torch.sqrt(2 * target_kl / curvature) if bool(curvature > 0) else torch.zeros(())
    return NaturalStep(length.to(direction) * direction, uphill.norm())


def trained_parameters(module: nn.Module) -> list[Tensor]:
    """The parameters that a step changes: those that are not frozen."""
    return [p for p in module.parameters() if p.requires_grad]


def fisher_product(problem: Problem, parameters: Sequence[Tensor], damping: float) -> Product:
    """``v -> (F + damping) v``, with ``F`` the second derivative of ``mean KL(old, new)``.

    It is exact: the derivative of ``v . grad KL``, by the distributions' own divergence. Where that
    has no closed form, it is the second derivative of its estimate at the batch's noise, whose mean
    is ``F``.

    Args:
        problem: the policy's distribution on the batch.
        parameters: those that the step changes.
        damping: added to the diagonal.
    """
    slopes = torch.autograd.grad(
        problem.kl(), parameters, create_graph=True, materialize_grads=True
    )
    slope = torch.cat([x.reshape(-1) for x in slopes])

    def product(vector: Tensor) -> Tensor:
        found = torch.autograd.grad(
            slope @ vector, parameters, retain_graph=True, materialize_grads=True
        )
        return flatten(found) + damping * vector

    return product


def conjugate_gradient(
    product: Product, target: Tensor, iterations: int, tolerance: float = 1e-10
) -> Tensor:
    """``x`` ``[P]`` with ``F x = target``, for a symmetric positive ``F`` (Hestenes, Stiefel 1952).

    It ends early when the squared residual is below ``tolerance`` times that of ``x = 0``, or where
    ``F`` is found not to be positive along the search direction, as an estimate of it may be.

    Args:
        product: ``v -> F v``.
        target: ``[P]``.
        iterations: most products with ``F``.
        tolerance: relative, of the squared residual.

    Raises:
        NonFiniteError: a product with ``F`` is not finite.
    """
    x, residual = torch.zeros_like(target), target.clone()
    direction, square = residual.clone(), residual @ residual
    enough = tolerance * square
    for _ in range(iterations):
        if not bool(square > enough):
            break
        image = product(direction)
        curvature = direction @ image
        if not bool(torch.isfinite(curvature)):
            raise NonFiniteError("curvature along the search direction of conjugate gradients")
        if not bool(curvature > 0):
            break
        rate = square / curvature
        x, residual = x + rate * direction, residual - rate * image
        before, square = square, residual @ residual
        direction = residual + square / before * direction
    return x
