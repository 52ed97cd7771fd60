"""PPO's update: epochs of minibatches, each a clipped step of policy and value function.

One minibatch is one function of the parameters as a vector. It is run in a Python loop, or traced
once and compiled with the loop over all minibatches around it.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from pgtoolkit.compiling import CompiledLoop, make_contiguous, trace
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.estimators.proximal import ppo_terms, standardized
from pgtoolkit.learners.flat_adam import AdamState, adam_state, adam_step, clip, flatten, unflatten
from pgtoolkit.policies.policy import Policy, without_normalizer
from pgtoolkit.torch_private import copy_all, scan

LOG = logging.getLogger("pgtoolkit")


@final
class Batch(NamedTuple):
    """The steps of a window that happened, ``M`` rows of each."""

    features: Tensor
    """Observations past the policy's normaliser."""
    pre_action: Tensor
    noise: Tensor
    log_prob: Tensor
    advantage: Tensor
    target: Tensor


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class PpoSettings:
    """The numbers of a minibatch step."""

    clip_range: float
    vf_coef: float
    ent_coef: float
    max_grad_norm: float
    betas: tuple[float, float]
    epsilon: float
    normalize_advantage: bool


METRICS = ("loss", "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "norm")
"""What a minibatch reports, in this order."""

MOST_LOOPS = 2
"""Shapes of a minibatch for which a loop is compiled; the plain one takes all further ones."""

Step = Callable[..., tuple[Any, ...]]


@final
class PpoUpdate:
    """Holds the optimiser of a policy and a value function, and takes their steps.

    The two share one norm of the gradient, as in most implementations.

    Args:
        policy: changed in place. Its normaliser is not used: its statistics change between
            windows, so whoever makes the batch applies it, once for all epochs.
        value_function: from features ``[M, O]`` to ``[M]``; changed in place.
        settings: of a minibatch.
        compiled: whether the loop over minibatches is compiled.
    """

    def __init__(
        self, policy: Policy, value_function: nn.Module, settings: PpoSettings, *, compiled: bool
    ) -> None:
        self.policy, self.value_function = without_normalizer(policy), value_function
        self.settings = settings
        self.modules = nn.ModuleDict({"policy": self.policy, "value": value_function})
        self.names = [name for name, _ in self.modules.named_parameters()]
        self.parameters: list[Tensor] = list(self.modules.parameters())
        self.state = adam_state(self.parameters)
        self.compiled = compiled
        self._loops: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def run(self, batch: Batch, rows: Tensor, learning_rate: float) -> Tensor:
        """Takes one step for each row of indices.

        Args:
            batch: ``M`` steps.
            rows: ``[K, B]`` indices of each minibatch.
            learning_rate: of Adam.

        Returns:
            ``[K, 7]`` the :data:`METRICS` of each minibatch.

        Raises:
            NonFiniteError: a loss or a gradient is not finite; names the minibatch, and changes
                neither parameters nor optimiser.
        """
        flat = flatten(self.parameters)  # whoever loaded or changed them is followed
        state = self.state._replace(parameters=flat)
        rate = torch.tensor(learning_rate, dtype=flat.dtype, device=flat.device)
        loop = self._loop(batch, rows, rate) if self.compiled else self._plain
        after, metrics = loop(batch, rows, rate, state)
        require_finite_metrics(metrics)
        self.state = after
        with torch.no_grad():
            parts = unflatten(self.state.parameters, self.parameters)
            copy_all(self.parameters, parts)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """The moments and the count; the parameters are the modules' own."""
        return {name: getattr(self.state, name) for name in ("mean", "square", "steps")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up where :meth:`state_dict` left off."""
        moved = {name: value.to(self.state.mean.device) for name, value in state.items()}
        self.state = self.state._replace(**moved)

    def minibatch(self, state: AdamState, mini: Batch, rate: Tensor) -> tuple[AdamState, Tensor]:
        """One minibatch: the loss, its gradient, the clip and Adam."""
        settings = self.settings
        flat = state.parameters.detach().requires_grad_()
        named = dict(zip(self.names, unflatten(flat, self.parameters), strict=True))
        policy = {n[7:]: x for n, x in named.items() if n.startswith("policy.")}
        value = {n[6:]: x for n, x in named.items() if n.startswith("value.")}
        with torch.enable_grad():
            distribution = torch.func.functional_call(self.policy, policy, (mini.features,))
            advantage = mini.advantage
            if settings.normalize_advantage:
                advantage = standardized(advantage)
            terms = ppo_terms(
                distribution.log_prob_of_pre_action(mini.pre_action),
                mini.log_prob,
                advantage,
                torch.func.functional_call(self.value_function, value, (mini.features,)),
                mini.target,
                distribution.entropy(mini.noise),
                clip_range=settings.clip_range,
                vf_coef=settings.vf_coef,
                ent_coef=settings.ent_coef,
            )
            (gradient,) = torch.autograd.grad(terms.loss, flat)
        gradient, norm = clip(gradient, settings.max_grad_norm)
        state = state._replace(parameters=flat.detach())
        after = adam_step(state, gradient, rate, settings.betas, settings.epsilon)
        return after, torch.stack([terms.loss.detach(), *terms[1:], norm])

    def _plain(
        self, batch: Batch, rows: Tensor, rate: Tensor, state: AdamState
    ) -> tuple[AdamState, Tensor]:
        metrics = []
        for index in rows:
            mini = Batch(*(x.index_select(0, index) for x in batch))
            state, found = self.minibatch(state, mini, rate)
            metrics.append(found)
        return state, torch.stack(metrics)

    def _loop(self, batch: Batch, rows: Tensor, rate: Tensor) -> Callable[..., Any]:
        key = (rows.shape[1], *((x.shape[1:], x.dtype, x.device) for x in batch))
        if key not in self._loops and len(self._loops) < MOST_LOOPS:
            self._loops[key] = self._compile(batch, rows, rate)
        return self._loops.get(key, self._plain)

    def _compile(self, batch: Batch, rows: Tensor, rate: Tensor) -> Callable[..., Any]:
        """The loop with the traced minibatch; the plain one, after a warning, where that fails."""

        def step(state: list[Tensor], mini: list[Tensor], rate: Tensor) -> Any:
            after, metrics = self.minibatch(AdamState(*state), Batch(*mini), rate)
            return list(after), metrics

        try:
            mini = [x.index_select(0, rows[0]) for x in batch]
            graph = trace(step, list(self.state), mini, rate)
            loop = CompiledLoop(_scan_minibatches)
            whole = make_contiguous(list(batch))
            loop(graph, list(self.state), whole, rate, rows, free=[*whole, rows])
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            LOG.warning("the update is not compiled, the plain one is used: %s", reason)
            return self._plain

        def run(batch: Batch, rows: Tensor, rate: Tensor, state: AdamState) -> Any:
            whole = make_contiguous(list(batch))
            with torch.no_grad():
                found, metrics = loop(graph, list(state), whole, rate, rows, free=[*whole, rows])
            return AdamState(*found), metrics

        return run


def _scan_minibatches(
    step: Step, state: list[Tensor], batch: list[Tensor], rate: Tensor, rows: Tensor
) -> Any:
    return scan(
        lambda carry, index: step(carry, [x.index_select(0, index) for x in batch], rate),
        state,
        rows,
    )


def require_finite_metrics(metrics: Tensor) -> None:
    """Raises on the first minibatch of ``[K, 7]`` whose loss or gradient is not finite.

    Raises:
        NonFiniteError: names the loss, or else the gradient's norm, and the minibatch.
    """
    checked = metrics[:, [METRICS.index("loss"), METRICS.index("norm")]]
    bad = ~torch.isfinite(checked)
    if bool(bad.any()):
        index = int(bad.any(1).nonzero()[0])
        what = "loss" if bool(bad[index, 0]) else "norm of the gradient"
        raise NonFiniteError(f"{what} of minibatch {index} of the update")


def draw_minibatches(
    size: int, batch_size: int, n_epochs: int, generator: torch.Generator
) -> Tensor:
    """``[n_epochs * (M // B), B]`` indices: every epoch a fresh permutation of the ``M`` rows.

    The ``M mod B`` rows that are left at a permutation's end are left out of that epoch. With fewer
    than ``B`` rows all of them are one minibatch.
    """
    width = min(size, batch_size)
    device = generator.device
    orders = [torch.randperm(size, generator=generator, device=device) for _ in range(n_epochs)]
    return torch.cat([order[: size // width * width].view(-1, width) for order in orders])
