"""The numbers that gradient estimators of one window are built from."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from pgtoolkit.distributions.base import Distribution
from pgtoolkit.errors import RequestError, SettingError
from pgtoolkit.estimators.mixing import cross_fitted_step_weights, mixed_surrogate_of
from pgtoolkit.estimators.surrogates import (
    action_gradient,
    pathwise_surrogate_of,
    score_action_gradient_of,
    score_function_surrogate_of,
)
from pgtoolkit.finite import require_finite_adjoint, require_finite_steps
from pgtoolkit.policies.policy import Policy, without_normalizer
from pgtoolkit.rollouts.window import Window

StateActionValue = Callable[[Tensor, Tensor], Tensor]
"""``Q(features [T, N, F], action [T, N, A])`` ``[T, N]``, differentiable in the action."""


class Signals:
    """One window, its objective, and what follows from them; each part is computed when first used.

    Observations are normalised once and pass through the policy once, whatever is asked for; only
    the critic's gradient takes a second pass, without a graph.

    Where there is no path through the environment, but a critic, ``mixed`` mixes the score function
    with the critic. The two must then have the same discount: none, for a weight such as an
    advantage, or ``critic_discount`` for a weight of the discounted return.

    Args:
        policy: the policy that acted. Its gradient is estimated at its present parameters.
        window: plain; or differentiable, and then its graph is freed by ``action_gradient``.
        objective: ``J`` ``[N]`` of each trajectory, with its graph where the window has one. None
            where only the score function is asked for.
        matched_weight: computes the score function's weight ``[T, N]`` for the same objective, so
            that the two estimators have one mean.
        weight: another weight ``[T, N]`` of the score function, such as an advantage; None means
            the matched one.
        q_value: a learned Q function, for the critic's estimator.
        temperature: ``alpha``, the weight of the entropy in the value of that function.
        critic_discount: ``gamma^k`` ``[T, N]``, which makes the critic's an estimate of the
            gradient of ``objective`` (:mod:`pgtoolkit.estimators.soft_value`). None leaves it out:
            an agent climbs the critic at all states alike.
        features: normalised observations, where the agent has computed them already.

    Attributes:
        window: the window without its graph.
        differentiable: whether the window came with a graph.
        objective: the argument ``objective``, unchanged.
    """

    def __init__(
        self,
        policy: Policy,
        window: Window,
        *,
        objective: Tensor | None = None,
        matched_weight: Callable[["Signals"], Tensor] | None = None,
        weight: Tensor | None = None,
        q_value: StateActionValue | None = None,
        temperature: float = 0.0,
        critic_discount: Tensor | None = None,
        features: Tensor | None = None,
    ) -> None:
        self.policy, self.window = policy, window.detach()
        self.differentiable = window.differentiable and objective is not None
        self.objective: Tensor | None = objective
        self.own_weight = weight
        self._graph: Window | None = window
        self._matched_weight, self._q_value = matched_weight, q_value
        self.temperature, self.critic_discount = temperature, critic_discount
        if features is not None:
            self.features = features

    @functools.cached_property
    def features(self) -> Tensor:
        """Normalised observations ``[T, N, F]``, without a graph."""
        return self.policy.normalizer(self.window.obs)  # type: ignore[no-any-return]

    @functools.cached_property
    def distribution(self) -> Distribution:
        """The policy's distribution at the window's observations, with its graph."""
        return without_normalizer(self.policy)(self.features)

    def renew_distribution(self) -> None:
        """Makes the next use of the distribution pass the observations through the policy again.

        A gradient is taken of a pass that is recorded, at the parameters of that moment.
        """
        self.__dict__.pop("distribution", None)

    @functools.cached_property
    def action_gradient(self) -> Tensor:
        """``dJ/du`` ``[T, N, A]`` through the environment. Frees the window's graph.

        Raises:
            NonFiniteError: it is not finite; names the step and the environment.
            RequestError: no differentiable path joins the actions to the objective.
        """
        if self.objective is None:
            raise RequestError("a pathwise gradient needs an objective")
        if self._graph is None:
            raise RequestError("the window's graph was freed by a pathwise gradient that failed")
        graph, self._graph = self._graph, None
        gradient = action_gradient(self.objective, graph)
        require_finite_adjoint("action gradient dJ/du", gradient)
        return gradient

    @property
    def has_matched_weight(self) -> bool:
        """Whether a weight was given under which the score function can be compared to pathwise."""
        return self._matched_weight is not None

    @functools.cached_property
    def matched_weight(self) -> Tensor:
        """The score function's weight ``[T, N]`` for the objective; 0 on steps that are not valid.

        Raises:
            RequestError: none was given.
        """
        if self._matched_weight is None:
            raise RequestError("the score function needs a weight")
        return torch.where(self.window.valid, self._matched_weight(self), 0.0)

    @functools.cached_property
    def weight(self) -> Tensor:
        """The score function's weight ``[T, N]``: the agent's own, or else the matched one.

        Raises:
            NonFiniteError: it is not finite; names the step and the environment.
        """
        own = self.own_weight
        weight = self.matched_weight if own is None else torch.where(self.window.valid, own, 0.0)
        require_finite_steps({"weight of the score function": weight})
        return weight

    @functools.cached_property
    def score_action_gradient(self) -> Tensor | None:
        """``w_t dlog pi/dmu_t`` ``[T, N, A]`` of the matched weight; None without a mean."""
        if self.distribution.gaussian is None or not self.has_matched_weight:
            return None
        return score_action_gradient_of(self.distribution, self.window, self.matched_weight)

    @functools.cached_property
    def mix(self) -> Tensor:
        """The weight of each step ``[T, N]`` on pathwise, or on the critic in its place.

        Step ``t`` gets the weight of least variance for the sums of the two action gradients over
        steps ``0..t``. The parameters' gradient is made of such sums: pathwise errors of successive
        steps share their future and add up, those of the score function hardly do, and weights of
        single steps would not show it.

        Raises:
            RequestError: the policy is not Gaussian, there is no matched weight, or there are fewer
                than six trajectories.
        """
        score = self.score_action_gradient
        if score is None and not self.has_matched_weight:
            raise RequestError("mixing the two estimators needs a matched weight")
        if score is None:
            raise SettingError(
                "only a Gaussian policy can mix the two estimators: the weights compare their "
                "derivatives by its mean. Use --estimator pathwise"
            )
        return cross_fitted_step_weights(score.cumsum(0), self.path_gradient.cumsum(0))

    @functools.cached_property
    def mixed_action_gradient(self) -> Tensor:
        """The mix of the two estimates of ``dJ/du`` ``[T, N, A]``."""
        score = self.score_action_gradient
        assert score is not None, "the weights were computed from it"
        path = self.path_gradient.to(score.dtype)  # an environment may compute in float64
        return torch.lerp(score, path, self.mix.to(score.dtype).unsqueeze(-1))

    @functools.cached_property
    def critic_action_gradient(self) -> Tensor:
        """``d(Q(s_t, a_t) - alpha log pi(a_t|s_t))/du_t`` ``[T, N, A]`` at each pre-squash action.

        The policy's parameters and the state are fixed. Times ``critic_discount``, if given.

        Raises:
            NonFiniteError: it is not finite; names the step and the environment.
            RequestError: no Q function was given.
        """
        if self._q_value is None:
            raise RequestError("the critic's gradient needs a Q function")
        with torch.no_grad():
            distribution = without_normalizer(self.policy)(self.features)
        with torch.enable_grad():
            pre_action = self.window.pre_action.detach().requires_grad_()
            value = self._q_value(self.features, distribution.squash(pre_action))
            if self.temperature != 0:
                log_prob = distribution.log_prob_of_pre_action(pre_action)
                value = value - self.temperature * log_prob
            (gradient,) = torch.autograd.grad(value.sum(), pre_action)
        require_finite_adjoint("critic's action gradient dQ/du", gradient)
        if self.critic_discount is None:
            return gradient
        return self.critic_discount.unsqueeze(-1).to(gradient) * gradient

    @property
    def critic_is_matched(self) -> bool:
        """Whether the critic's is an estimate of the gradient of the objective."""
        return self.objective is not None and self.critic_discount is not None

    @property
    def path_gradient(self) -> Tensor:
        """The estimate of ``dJ/du`` ``[T, N, A]`` along a path.

        It is pathwise's, through the environment, or else the critic's.

        Raises:
            NonFiniteError: it is not finite; names the step and the environment.
            RequestError: there is neither.
        """
        by_environment = self.differentiable or self._q_value is None
        return self.action_gradient if by_environment else self.critic_action_gradient

    def score_function_surrogate(self, distribution: Distribution) -> Tensor:
        """``sum_t w_t log pi(u_t | s_t)`` ``[N]``."""
        return score_function_surrogate_of(distribution, self.window, self.weight)

    def matched_surrogate(self, distribution: Distribution) -> Tensor:
        """The score function's surrogate ``[N]`` with the matched weight."""
        return score_function_surrogate_of(distribution, self.window, self.matched_weight)

    def pathwise_surrogate(self, distribution: Distribution) -> Tensor:
        """``sum_t dJ/du_t . u(s_t, eps_t; theta)`` ``[N]``."""
        return pathwise_surrogate_of(distribution, self.window, self.action_gradient)

    def mixed_surrogate(self, distribution: Distribution) -> Tensor:
        """The two surrogates ``[N]``, each with its share of every step."""
        return mixed_surrogate_of(
            distribution, self.window, self.weight, self.path_gradient, self.mix
        )

    def critic_surrogate(self, distribution: Distribution) -> Tensor:
        """``sum_t d(Q - alpha log pi)/du_t . u(s_t, eps_t; theta)`` ``[N]``."""
        return pathwise_surrogate_of(distribution, self.window, self.critic_action_gradient)

    @property
    def mix_metrics(self) -> dict[str, Tensor]:
        """The mean weight on the path, and the share of steps where the guard rejected it."""
        mix = self.mix[self.window.valid]
        return {
            "gradient/mix/weight": mix.mean(),
            "gradient/mix/guarded": (mix == 0).double().mean(),
        }
