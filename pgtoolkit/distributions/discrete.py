"""Discrete distributions: categorical, several categorical variables, Bernoulli variables."""

import dataclasses
import itertools
from abc import abstractmethod
from typing import NoReturn, final

import torch
import torch.nn.functional as F
from torch import Tensor

from pgtoolkit.distributions.base import Distribution
from pgtoolkit.distributions.noise import Noise
from pgtoolkit.errors import RequestError


class Discrete(Distribution):
    """A distribution over finitely many actions: a score function, but no pathwise gradient.

    Actions are integers, and the pre-action is the action.
    """

    def squash(self, pre_action: Tensor) -> Tensor:
        return pre_action

    def log_prob_of_pre_action(self, pre_action: Tensor) -> Tensor:
        return self.log_prob(pre_action)

    @abstractmethod
    def enumerate_support(self) -> Tensor:
        """All ``M`` actions, ``[M, ...]``, for exact expectations.

        ``E[f(a)]`` is ``(log_prob(actions).exp() * f(actions)).sum(0)``. ``M`` grows exponentially
        with the number of dimensions of an action.
        """

    def rsample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> NoReturn:
        """Always raises: a discrete action has no pathwise gradient.

        Raises:
            RequestError: says what to use instead.
        """
        raise RequestError(
            "a discrete action has no pathwise gradient: a choice does not vary smoothly with the "
            "logits. Use the score function (log_derivative_loss, agent `reinforce`), or a "
            "relaxation of the choice (Gumbel-softmax is biased, REBAR is not: "
            "pgtoolkit.estimators.relaxed)"
        )


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Categorical(Discrete):
    """``softmax(logits)`` over ``K`` categories, sampled as ``argmax(logits + Gumbel noise)``.

    Args:
        logits: ``[..., K]``, not necessarily normalised.
    """

    logits: Tensor

    @property
    def noise(self) -> tuple[Noise, ...]:
        return (Noise("gumbel", self.logits.shape[-1]),)

    @property
    def parameter(self) -> Tensor:
        return self.logits

    def pre_action(self, noise: Tensor) -> Tensor:
        return torch.argmax(self.logits + noise, dim=-1)

    def log_prob(self, action: Tensor) -> Tensor:
        return categorical_log_prob(self.logits, action)

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``-sum_k p_k log p_k``; exact, needs no noise."""
        return categorical_entropy(self.logits)

    def closed_form_kl_divergence(self, other: Distribution) -> Tensor | None:
        """Exact for as many categories: ``sum_k p_k (log p_k - log q_k)``."""
        if not isinstance(other, Categorical) or self.logits.shape[-1] != other.logits.shape[-1]:
            return None
        return categorical_kl_divergence(self.logits, other.logits)

    @property
    def mode(self) -> Tensor:
        return torch.argmax(self.logits, dim=-1)

    def enumerate_support(self) -> Tensor:
        """``[K, ...]``."""
        rows = torch.arange(self.logits.shape[-1], device=self.logits.device)
        return expand_support(rows, self.logits)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class MultiCategorical(Discrete):
    """``D`` independent categorical variables, each sampled as ``argmax(logits + Gumbel noise)``.

    Args:
        logits: ``[..., sum(nvec)]``: the logits of the first variable, of the second, and so on.
        nvec: the number of categories of each variable.
    """

    logits: Tensor
    nvec: tuple[int, ...]

    @property
    def noise(self) -> tuple[Noise, ...]:
        return (Noise("gumbel", self.logits.shape[-1]),)

    @property
    def parameter(self) -> Tensor:
        return self.logits

    def pre_action(self, noise: Tensor) -> Tensor:
        parts = torch.split(self.logits + noise, list(self.nvec), dim=-1)
        return torch.stack([part.argmax(-1) for part in parts], dim=-1)

    def log_prob(self, action: Tensor) -> Tensor:
        parts = zip(
            torch.split(self.logits, list(self.nvec), dim=-1), action.unbind(-1), strict=True
        )
        return torch.stack([categorical_log_prob(*part) for part in parts]).sum(0)

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The sum of the variables' entropies; exact, needs no noise."""
        parts = torch.split(self.logits, list(self.nvec), dim=-1)
        return torch.stack([categorical_entropy(part) for part in parts]).sum(0)

    def closed_form_kl_divergence(self, other: Distribution) -> Tensor | None:
        """Exact for the same ``nvec``: the sum of the variables' divergences."""
        if not isinstance(other, MultiCategorical) or self.nvec != other.nvec:
            return None
        parts = zip(
            torch.split(self.logits, list(self.nvec), dim=-1),
            torch.split(other.logits, list(self.nvec), dim=-1),
            strict=True,
        )
        return torch.stack([categorical_kl_divergence(*part) for part in parts]).sum(0)

    @property
    def mode(self) -> Tensor:
        return self.pre_action(torch.zeros_like(self.logits))

    def enumerate_support(self) -> Tensor:
        """``[M, ..., D]``, ``M`` the product of ``nvec``."""
        rows = list(itertools.product(*(range(size) for size in self.nvec)))
        return expand_support(torch.tensor(rows, device=self.logits.device), self.logits)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Bernoulli(Discrete):
    """``A`` independent binary variables: 1 with probability ``sigmoid(logits)``, else 0.

    Sampled as ``logits + logistic noise > 0``.

    Args:
        logits: ``[..., A]``.
    """

    logits: Tensor

    @property
    def noise(self) -> tuple[Noise, ...]:
        return (Noise("logistic", self.logits.shape[-1]),)

    @property
    def parameter(self) -> Tensor:
        return self.logits

    def pre_action(self, noise: Tensor) -> Tensor:
        return (self.logits + noise > 0).long()

    def log_prob(self, action: Tensor) -> Tensor:
        """``sum_i log sigmoid(logit_i if a_i = 1 else -logit_i)``."""
        return F.logsigmoid(torch.where(action > 0, self.logits, -self.logits)).sum(-1)

    def entropy(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The sum of the variables' entropies; exact, needs no noise."""
        log_one, log_zero = F.logsigmoid(self.logits), F.logsigmoid(-self.logits)
        return -(log_one.exp() * log_one + log_zero.exp() * log_zero).sum(-1)

    def closed_form_kl_divergence(self, other: Distribution) -> Tensor | None:
        """Exact for the same size: the sum of the variables' divergences."""
        if not isinstance(other, Bernoulli) or self.logits.shape[-1] != other.logits.shape[-1]:
            return None
        one = expected_log_ratio(F.logsigmoid(self.logits), F.logsigmoid(other.logits))
        zero = expected_log_ratio(F.logsigmoid(-self.logits), F.logsigmoid(-other.logits))
        return (one + zero).sum(-1)

    @property
    def mode(self) -> Tensor:
        return self.pre_action(torch.zeros_like(self.logits))

    def enumerate_support(self) -> Tensor:
        """``[M, ..., A]``, ``M = 2^A``."""
        rows = list(itertools.product((0, 1), repeat=self.logits.shape[-1]))
        return expand_support(torch.tensor(rows, device=self.logits.device), self.logits)


def categorical_log_prob(logits: Tensor, action: Tensor) -> Tensor:
    """``log softmax(logits)[action]`` ``[...]`` of logits ``[..., K]``; the batches broadcast."""
    log_p = torch.log_softmax(logits, dim=-1)
    batch = torch.broadcast_shapes(log_p.shape[:-1], action.shape)  # type: ignore[no-untyped-call]
    index = action.long().expand(batch).unsqueeze(-1)
    return log_p.expand(*batch, -1).gather(-1, index).squeeze(-1)


def categorical_entropy(logits: Tensor) -> Tensor:
    """``-sum_k p_k log p_k`` ``[...]``."""
    log_p = torch.log_softmax(logits, dim=-1)
    # The clamp lets a category of probability 0, whose log is -inf, add 0 and not NaN.
    return -(log_p.exp() * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(-1)


def expected_log_ratio(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``p (log p - log q)``, entry by entry; 0 where ``p`` is 0, also if ``q`` is 0 there."""
    p = log_p.exp()
    return p * torch.where(p > 0, log_p - log_q, 0.0)


def categorical_kl_divergence(logits: Tensor, other_logits: Tensor) -> Tensor:
    """``sum_k p_k (log p_k - log q_k)`` ``[...]`` of logits ``[..., K]``; the batches broadcast."""
    log_p, log_q = torch.log_softmax(logits, dim=-1), torch.log_softmax(other_logits, dim=-1)
    return expected_log_ratio(log_p, log_q).sum(-1)


def expand_support(rows: Tensor, logits: Tensor) -> Tensor:
    """``[M, *event]`` to ``[M, *batch, *event]``, for logits ``[*batch, K]``."""
    batch = logits.shape[:-1]
    unsqueezed = rows.reshape(len(rows), *(1 for _ in batch), *rows.shape[1:])
    return unsqueezed.expand(len(rows), *batch, *rows.shape[1:])
