"""Per-trajectory gradients against one plain backward for each trajectory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn
from torch.nn.utils import prune

from pgtoolkit.diagnostics.per_trajectory import GradientRecorder, per_sample_gradients
from pgtoolkit.envs import LQG, DifferentiableEnv, DifferentiableVectorEnv, Pendulum
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.surrogates import (
    action_gradient,
    pathwise_surrogate,
    score_function_surrogate,
    window_objective,
)
from pgtoolkit.networks.mlp import Std
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import reset, unroll
from pgtoolkit.rollouts.window import Window

F64 = torch.float64
CPU = torch.device("cpu")
OBS = Box(-np.inf, np.inf, (3,), np.float32)
BOUNDED = Box(-2, 2, (2,), np.float32)
UNBOUNDED = Box(-np.inf, np.inf, (2,), np.float32)
LONG, FEW = 50, 6
Gradients = dict[str, Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def recorded(module: nn.Module, surrogate: Callable[[], Tensor]) -> Gradients:
    recorder = GradientRecorder(module)
    with recorder.recording():
        values = surrogate()
    return recorder.per_trajectory(values)


def looped(module: nn.Module, surrogate: Callable[[], Tensor]) -> Gradients:
    """One backward a trajectory, the definition."""
    values, parameters = surrogate(), dict(module.named_parameters())
    rows = [
        torch.autograd.grad(
            value, list(parameters.values()), retain_graph=True, materialize_grads=True
        )
        for value in values
    ]
    columns = list(zip(*rows, strict=True))
    return {name: torch.stack(column) for name, column in zip(parameters, columns, strict=True)}


def assert_same(found: Gradients, expected: Gradients, tolerance: float = 1e-9) -> None:
    """Tolerances are relative to each parameter's largest gradient, which must not be 0."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert found[name].shape == gradient.shape, name
        scale = float(gradient.abs().max())
        assert scale > 0, name
        assert float((found[name] - gradient).abs().max()) <= tolerance * scale, name


def random_window(seed: int = 0) -> Window:
    no = torch.zeros(LONG, FEW, dtype=torch.bool)
    pre_action = normal(LONG, FEW, 2, seed=seed + 1)
    return Window(
        obs=normal(LONG, FEW, 3, seed=seed),
        next_obs=normal(LONG, FEW, 3, seed=seed),
        noise=normal(LONG, FEW, 2, seed=seed + 2),
        pre_action=pre_action,
        action=torch.tanh(pre_action),
        log_prob=normal(LONG, FEW),
        reward=normal(LONG, FEW),
        terminated=no,
        truncated=no,
        valid=torch.rand(LONG, FEW, generator=seeded(seed)) < 0.9,
    )


def surrogate_of(estimator: str, policy: Policy) -> Callable[[], Tensor]:
    window, weight = random_window(), normal(LONG, FEW, 2, seed=9)
    if estimator == "score function":
        return lambda: score_function_surrogate(policy, window, weight[..., 0])
    return lambda: pathwise_surrogate(policy, window, weight)


def make_policy(
    action_space: Box, layer_norm: bool = False, std: Std = "state_independent"
) -> Policy:
    policy = GaussianPolicy(OBS, action_space, (7, 5), layer_norm=layer_norm, std=std).double()
    with torch.no_grad():  # LayerNorm starts with gain 1 and bias 0, which hides mistakes
        for i, parameter in enumerate(policy.parameters()):
            parameter.add_(0.1 * normal(*parameter.shape, seed=100 + i))
    return policy


@pytest.mark.parametrize("estimator", ["score function", "pathwise"])
@pytest.mark.parametrize("action_space", [BOUNDED, UNBOUNDED], ids=["squashed", "unbounded"])
@pytest.mark.parametrize("layer_norm", [False, True], ids=["plain", "layer norm"])
@pytest.mark.parametrize("std", ["state_independent", "state_dependent"])
def test_a_surrogates_gradients_are_those_of_a_loop(
    estimator: str, action_space: Box, layer_norm: bool, std: Std
) -> None:
    """T = 50, every kind of policy, both estimators."""
    policy = make_policy(action_space, layer_norm, std)
    surrogate = surrogate_of(estimator, policy)
    assert_same(recorded(policy, surrogate), looped(policy, surrogate))


@pytest.mark.parametrize("estimator", ["score function", "pathwise"])
def test_float32_gradients_are_those_of_a_loop(estimator: str) -> None:
    """Training uses float32; the tolerance of 1e-5 is a hundred units of its rounding."""
    policy = make_policy(BOUNDED, layer_norm=True, std="state_dependent").float()
    window, weight = random_window(), normal(LONG, FEW, 2, seed=9).float()
    obs, noise, pre_action = (x.float() for x in (window.obs, window.noise, window.pre_action))

    def surrogate() -> Tensor:
        distribution = policy(obs)
        if estimator == "score function":
            return (weight[..., 0] * distribution.log_prob_of_pre_action(pre_action)).sum(0)
        return (weight * distribution.pre_action(noise)).sum((0, 2))

    assert_same(recorded(policy, surrogate), looped(policy, surrogate), 1e-5)


@pytest.mark.parametrize("estimator", ["score function", "pathwise"])
def test_their_mean_is_the_gradient_of_a_plain_backward(estimator: str) -> None:
    """The mean of the measured gradients is the gradient that trains."""
    policy = make_policy(BOUNDED, layer_norm=True)
    surrogate = surrogate_of(estimator, policy)
    found = recorded(policy, surrogate)
    surrogate().mean().backward()  # type: ignore[no-untyped-call]
    for name, parameter in policy.named_parameters():
        torch.testing.assert_close(found[name].mean(0), parameter.grad, rtol=1e-9, atol=1e-12)


def rollout_objective(env: DifferentiableEnv, policy: Policy) -> Callable[[], Tensor]:
    """The objective ``[N]`` of a fresh window of 50 steps, the same every time it is called."""

    def objective() -> Tensor:
        vector = DifferentiableVectorEnv(env, FEW, dtype=F64)
        rollout_state = reset(vector, seed=0, device=CPU)
        window, _ = unroll(
            vector, policy, rollout_state, normal(LONG, FEW, policy.noise_size, seed=3)
        )
        return window_objective(window, window.next_obs.square().sum(-1), 0.99)

    return objective


@pytest.mark.parametrize("layer_norm", [False, True], ids=["plain", "layer norm"])
@pytest.mark.parametrize("std", ["state_independent", "state_dependent"])
@pytest.mark.parametrize("env", [Pendulum, LQG], ids=["squashed", "unbounded and resets"])
def test_back_propagation_through_time_gives_the_gradients_of_a_loop(
    env: Callable[[], DifferentiableEnv], std: Std, layer_norm: bool
) -> None:
    """The policy is called 50 times, each call's input depends on the calls before it."""
    dynamics = env()
    policy = GaussianPolicy(
        dynamics.observation_space,
        dynamics.action_space,
        (7, 5),
        std=std,
        layer_norm=layer_norm,
        log_std_init=-1.0,
    ).double()
    objective = rollout_objective(dynamics, policy)
    assert_same(recorded(policy, objective), looped(policy, objective))


def test_back_propagation_and_the_pathwise_surrogate_agree_trajectory_by_trajectory() -> None:
    """The batched pass over the action gradient measures what T passes would."""
    env = Pendulum()
    policy = GaussianPolicy(env.observation_space, env.action_space, (7,)).double()
    vector = DifferentiableVectorEnv(env, FEW, dtype=F64)
    window, _ = unroll(
        vector, policy, reset(vector, seed=0, device=CPU), normal(LONG, FEW, 1, seed=3)
    )
    objective = window_objective(window, window.next_obs.square().sum(-1), 0.99)
    weight = action_gradient(objective, window)
    found = recorded(policy, lambda: pathwise_surrogate(policy, window.detach(), weight))
    assert_same(found, looped(policy, rollout_objective(env, policy)))


class Odd(nn.Module):
    """Layers that have a rule among ones that have none."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)
        self.gain = nn.Parameter(torch.tensor([0.5, -1.0, 2.0, 1.5]))
        self.act = nn.PReLU()
        self.outer = nn.Linear(4, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.outer(self.act(self.gain * self.inner(x)))
        return y


def squares(module: nn.Module) -> Callable[[], Tensor]:
    """Sum over time and features of a nonlinear function of the output ``[N]``."""
    x = normal(LONG, FEW, 3)
    return lambda: torch.sin(module(x)).square().sum((0, 2))


def test_a_parameter_of_a_module_without_a_rule_goes_the_general_way() -> None:
    """A bare parameter and a PReLU, beside linear layers with and without bias."""
    module = Odd().double()
    assert_same(recorded(module, squares(module)), looped(module, squares(module)))


class Scaled(nn.Linear):
    """A subclass computes something else than its base class."""

    def forward(self, input: Tensor) -> Tensor:
        return 3 * super().forward(input.square())


def test_a_subclass_of_a_ruled_layer_does_not_inherit_the_rule() -> None:
    """The rule for a linear layer would be wrong for its subclass ``Scaled``."""
    module = nn.Sequential(Scaled(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    assert_same(recorded(module, squares(module)), looped(module, squares(module)))


def test_a_layer_that_is_partly_frozen_goes_the_general_way() -> None:
    """The layer's bias is trained and its weight is not; frozen parameters have no gradient."""
    frozen = nn.Linear(3, 4)
    frozen.weight.requires_grad_(False)
    module = nn.Sequential(frozen, nn.Tanh(), nn.Linear(4, 2)).double()
    found = recorded(module, squares(module))
    assert set(found) == {"0.bias", "2.weight", "2.bias"}
    values = squares(module)()
    for i in range(FEW):
        (expected,) = torch.autograd.grad(values[i], frozen.bias, retain_graph=True)
        torch.testing.assert_close(found["0.bias"][i], expected)


class Twice(nn.Module):
    """One layer used twice, and another layer that shares its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(3, 4)
        self.again = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.again.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.again(torch.tanh(self.again(torch.tanh(self.enter(x)))))
        return y + self.tied(torch.tanh(y))  # type: ignore[no-any-return]


def test_tied_weights_add_up() -> None:
    """A layer that is called twice, and a weight that two layers share."""
    module = Twice().double()
    assert_same(recorded(module, squares(module)), looped(module, squares(module)))


class Borrower(nn.Module):
    """Multiplies by a weight that belongs to a linear layer as well."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


def test_a_weight_shared_with_a_module_without_a_rule_is_counted_in_full() -> None:
    """The rule knows one of its two uses; the other must not be lost without a word."""
    linear = nn.Linear(3, 3)
    borrower = Borrower(linear.get_parameter("weight"))
    module = nn.Sequential(linear, nn.Tanh(), borrower).double()
    assert_same(recorded(module, squares(module)), looped(module, squares(module)))


def test_layer_norms_without_parameters_are_allowed() -> None:
    """Layer norms of different sizes, and one with a gain only."""
    module = nn.Sequential(
        nn.Linear(3, 4),
        nn.LayerNorm(4, elementwise_affine=False),
        nn.Linear(4, 5),
        nn.LayerNorm(5, elementwise_affine=False),
        nn.Linear(5, 6),
        nn.LayerNorm(6, bias=False),
        nn.Linear(6, 2),
    ).double()
    assert_same(recorded(module, squares(module)), looped(module, squares(module)))


class Spare(nn.Module):
    """Two heads, of which a surrogate may use one."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.used(x), self.unused(x)


def test_a_layer_whose_output_is_not_used_has_gradient_zero() -> None:
    """The layer was called, but nothing in the surrogate depends on it."""
    module, x = Spare().double(), normal(LONG, FEW, 3)
    found = recorded(module, lambda: torch.sin(module(x)[0]).sum((0, 2)))
    assert found["unused.weight"].shape == (FEW, 2, 3)
    assert float(found["unused.weight"].abs().max()) == 0
    assert float(found["unused.bias"].abs().max()) == 0
    assert float(found["used.weight"].abs().max()) > 0


def test_a_layer_that_is_never_called_has_gradient_zero() -> None:
    """One entry for every parameter, in any case."""
    module, x = Spare().double(), normal(LONG, FEW, 3)
    found = recorded(module, lambda: torch.sin(module.used(x)).sum((0, 2)))
    assert found["unused.bias"].tolist() == [[0.0, 0.0]] * FEW


def test_recording_changes_neither_outputs_nor_later_calls() -> None:
    """A hook that returned something would replace the output; hooks are removed at the end."""
    policy = make_policy(BOUNDED)
    obs = normal(4, 3)
    before = policy(obs).mode
    recorder = GradientRecorder(policy)
    with recorder.recording():
        assert torch.equal(policy(obs).mode, before)
    calls = sum(len(calls) for calls in recorder.calls.values())
    policy(obs)
    assert sum(len(calls) for calls in recorder.calls.values()) == calls == 4
    assert not any(module._forward_hooks for module in policy.modules())


def test_a_second_recording_forgets_the_first() -> None:
    """The gradients are those of the last surrogate only."""
    policy = make_policy(BOUNDED)
    surrogate = surrogate_of("pathwise", policy)
    recorder = GradientRecorder(policy)
    for _ in range(2):
        with recorder.recording():
            values = surrogate()
        found = recorder.per_trajectory(values)
    assert_same(found, looped(policy, surrogate))


def test_a_call_without_a_graph_is_not_recorded() -> None:
    """A call of the policy under ``no_grad`` while recording changes no gradient."""
    policy = make_policy(BOUNDED)
    surrogate = surrogate_of("pathwise", policy)

    def with_a_look() -> Tensor:
        with torch.no_grad():
            policy(normal(LONG, FEW, 3, seed=50))
        return surrogate()

    assert_same(recorded(policy, with_a_look), looped(policy, surrogate))


def test_trajectories_must_be_the_last_axis_but_one() -> None:
    """A policy called on [N, T, O] would mix time and trajectories: it is refused, not summed."""
    policy, obs = make_policy(BOUNDED), normal(FEW, LONG, 3)
    recorder = GradientRecorder(policy)
    with recorder.recording():
        values = policy(obs).mode.sum((1, 2))
    with pytest.raises(ValueError, match="trajectories"):
        recorder.per_trajectory(values)
    with recorder.recording():
        values = surrogate_of("pathwise", policy)()
    with pytest.raises(ValueError, match="surrogate must have shape"):
        recorder.per_trajectory(values.mean())


@pytest.mark.parametrize("shape", [(6, 5, 3), (5, 3)])
def test_an_output_that_is_overwritten_is_refused(shape: tuple[int, ...]) -> None:
    """The recorded gradient would be the activation's, or there would be none."""
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)).double()
    with pytest.raises(RequestError, match="in place"):
        recorded(module, lambda: module(normal(*shape)).square().reshape(-1, 5, 2).sum((0, 2)))


@pytest.mark.parametrize("change", ["weight norm", "spectral norm", "pruning"])
def test_a_weight_that_is_computed_from_others_goes_the_general_way(change: str) -> None:
    """Old-style normalisations and pruning put a tensor in the parameter's place."""
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    first = module[0]
    if change == "weight norm":
        with pytest.warns(FutureWarning):
            nn.utils.weight_norm(first)
    elif change == "spectral norm":
        nn.utils.spectral_norm(first)
        module.eval()
    elif change == "pruning":
        prune.l1_unstructured(first, "weight", 0.5)  # type: ignore[no-untyped-call]
    inputs = normal(6, 5, 3)

    def surrogate() -> Tensor:
        output: Tensor = module(inputs)
        return output.square().sum((0, 2))

    assert_same(recorded(module, surrogate), looped(module, surrogate))


# The recorder's check of its own assumptions ------------------------------------------------------


class Functional(nn.Module):
    """Uses the weight of a linear layer a second time, or only, outside of its call."""

    def __init__(self, use: Callable[["Functional", Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.outer, self.use = nn.Linear(3, 3), nn.Linear(3, 2), use

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.outer(torch.tanh(self.use(self, x)))
        return y


USES: dict[str, Callable[[Functional, Tensor], Tensor]] = {
    "called and tied": lambda m, x: nn.functional.linear(torch.tanh(m.layer(x)), m.layer.weight.T),
    "never called": lambda m, x: nn.functional.linear(x, m.layer.weight, m.layer.bias),
    "its bias only": lambda m, x: m.layer(x) * (1 + m.layer.bias),
    "its output's gain": lambda m, x: m.layer(x) * m.layer.weight.norm(),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("use", USES)
def test_a_weight_used_outside_its_layer_goes_the_general_way(use: str, dtype: Any) -> None:
    """The layer's own calls give only a part of the gradient, or none."""
    module, x = Functional(USES[use]).to(dtype), normal(LONG, FEW, 3).to(dtype)

    def surrogate() -> Tensor:
        return torch.sin(module(x)).square().sum((0, 2))

    tolerance = 1e-9 if dtype == F64 else 1e-4
    assert_same(recorded(module, surrogate), looped(module, surrogate), tolerance)


def test_a_weight_used_outside_its_layer_is_found_only_where_it_is() -> None:
    """The layers that are only called keep their fast rule."""
    module = Functional(USES["called and tied"]).double()
    recorder = GradientRecorder(module)
    with recorder.recording():
        values = squares(module)()
    assert set(recorder.used_elsewhere(values)) == {"layer.weight"}
    plain = make_policy(BOUNDED, layer_norm=True)
    recorder = GradientRecorder(plain)
    with recorder.recording():
        values = surrogate_of("pathwise", plain)()
    assert recorder.used_elsewhere(values) == {}


class Mixing(nn.Module):
    """Something between two linear layers."""

    def __init__(self, mix: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.outer, self.mix = nn.Linear(3, 4), nn.Linear(4, 2), mix

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.outer(self.mix(torch.tanh(self.inner(x))))
        return y


MIXES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda y: y - y.mean(-2, keepdim=True),
    "one row for all": lambda y: y + y[..., :1, :],
    "neighbours": lambda y: y + 0.1 * y.roll(1, -2),
    "two apart": lambda y: y + 0.1 * y.roll(2, -2),
    "attention": lambda y: torch.softmax(y @ y.mT, -1) @ y,
}


@pytest.mark.parametrize("size", [5, 6, 16])
@pytest.mark.parametrize("mix", MIXES)
def test_a_module_that_mixes_trajectories_is_refused(mix: str, size: int) -> None:
    """Their gradients would not be those of one trajectory; the layer before it is named."""
    module, x = Mixing(MIXES[mix]).double(), normal(LONG, size, 3)
    with pytest.raises(RequestError, match="mixes trajectories") as caught:
        recorded(module, lambda: module(x).square().sum((0, 2)))
    assert "'inner'" in str(caught.value)


@pytest.mark.parametrize("mean", [lambda y: y.mean(0), lambda y: y.mean(-1)])
def test_a_module_that_mixes_time_or_features_is_allowed(mean: Callable[[Tensor], Tensor]) -> None:
    """The features are not independent samples, and neither are the steps."""
    axis = 0 if mean(torch.zeros(2, 3, 4)).shape == (3, 4) else -1
    module = Mixing(lambda y: y - y.mean(axis, keepdim=True)).double()
    assert_same(recorded(module, squares(module)), looped(module, squares(module)))


@pytest.mark.parametrize("first", [False, True], ids=["inside", "first"])
def test_a_batch_norm_is_refused_unless_its_statistics_are_fixed(first: bool) -> None:
    """In training its statistics are those of all trajectories; the error names it."""
    layers = [nn.BatchNorm1d(3), nn.Linear(3, 2)] if first else [nn.Linear(3, 2), nn.BatchNorm1d(2)]
    module, x = nn.Sequential(*layers).double(), normal(FEW, 3)

    def surrogate() -> Tensor:
        return torch.sin(module(x)).sum(1)

    with pytest.raises(RequestError, match=r"BatchNorm '[01]' mixes"):
        recorded(module, surrogate)
    module.eval()
    assert_same(recorded(module, surrogate), looped(module, surrogate))


def test_batch_first_is_refused_even_if_there_are_as_many_steps_as_trajectories() -> None:
    """On [N, T, O] with T = N the shapes fit, and the rule would sum over trajectories."""
    policy, obs = make_policy(BOUNDED), normal(FEW, FEW, 3)
    with pytest.raises(RequestError, match="last axis but one"):
        recorded(policy, lambda: policy(obs).mode.sum((1, 2)))
    # One recorder, which has seen other shapes before, finds it too.
    recorder = GradientRecorder(policy)
    with recorder.recording():
        values = surrogate_of("pathwise", policy)()
    recorder.per_trajectory(values)
    with recorder.recording():
        values = policy(obs).mode.sum((1, 2))
    with pytest.raises(RequestError, match="last axis but one"):
        recorder.per_trajectory(values)


def test_the_check_is_made_once_for_each_kind_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """More steps are no new kind; and the check changes no bit of the gradients."""
    checks: list[int] = []
    check = GradientRecorder._check

    def count(self: GradientRecorder, surrogate: Tensor) -> Any:
        checks.append(len(surrogate))
        return check(self, surrogate)

    monkeypatch.setattr(GradientRecorder, "_check", count)
    policy = make_policy(BOUNDED)
    recorder, found = GradientRecorder(policy), []
    for num_steps in (LONG, LONG, LONG + 1):
        obs = normal(LONG + 1, FEW, 3)[:num_steps]
        with recorder.recording():
            values = policy(obs).mode[:LONG].square().sum((0, 2))
        found.append(recorder.per_trajectory(values))
    assert checks == [FEW]
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name])


def test_a_derivative_that_is_not_finite_is_no_reason_to_refuse() -> None:
    """What follows is the caller's business: a run ends with a NonFiniteError that names it."""
    module, x = nn.Linear(3, 2).double(), torch.zeros(LONG, FEW, 3, dtype=F64)
    with torch.no_grad():
        module.bias.zero_()
    found = recorded(module, lambda: module(x).sqrt().sum((0, 2)))
    assert not bool(found["bias"].isfinite().any())


def test_a_chunk_at_a_time_is_the_same() -> None:
    leaf = normal(3).requires_grad_()
    surrogate = (normal(7, 3, seed=1) * leaf).square().sum(1)
    whole, chunked = (
        per_sample_gradients(surrogate, {"leaf": leaf}, chunk=chunk)["leaf"] for chunk in (100, 2)
    )
    assert torch.equal(whole, chunked)
