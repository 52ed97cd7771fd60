"""The transition model, its training and the measurement of its error."""

import copy
import dataclasses
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from pgtoolkit.envs.adapters.learned.learner import TransitionLearner, random_transitions
from pgtoolkit.envs.adapters.learned.model import ModelConfig, TransitionModel
from pgtoolkit.errors import NonFiniteError, RequestError
from pgtoolkit.networks.normalizer import ObservationNormalizer
from pgtoolkit.rollouts.transitions import Transitions

SMALL = ModelConfig(hidden=(32, 32), initial_fit_steps=300, capacity=4000)


def linear_quadratic(count: int, seed: int) -> tuple[Transitions, Tensor, Tensor]:
    """Steps of a linear system with a quadratic reward, and both true Jacobians at each of them.

    ``o' = o + (o, a) M``, ``r = -|o|^2 - |a|^2 / 2``.
    """
    generator = torch.Generator().manual_seed(seed)
    matrix = 0.3 * torch.randn(3, 2, generator=torch.Generator().manual_seed(99))
    observation = torch.randn(count, 2, generator=generator)
    action = torch.randn(count, 1, generator=generator)
    both = torch.cat([observation, action], -1)
    reward = -observation.square().sum(-1) - 0.5 * action.square().sum(-1)
    by_both = torch.cat([torch.eye(2), torch.zeros(1, 2)]) + matrix
    slope = torch.cat([-2 * observation, -action], -1)
    batch = Transitions(
        obs=observation,
        action=action,
        reward=reward,
        next_obs=observation + both @ matrix,
        terminated=torch.zeros(count, dtype=torch.bool),
    )
    return batch, by_both.T.expand(count, 2, 3), slope


def jacobians(model: TransitionModel, batch: Transitions) -> tuple[Tensor, Tensor]:
    """Jacobians of the mean observation ``[N, O, O + A]`` and the mean reward ``[N, O + A]``."""
    both = torch.cat([batch.obs, batch.action], -1).requires_grad_()
    predicted = model(both[:, :-1], both[:, -1:])
    outputs = [*predicted.next_obs.mean(0).unbind(-1), predicted.reward.mean(0)]
    rows = [torch.autograd.grad(y.sum(), both, retain_graph=True)[0] for y in outputs]
    return torch.stack(rows[:-1], 1), rows[-1]


def fitted(num_minibatches: int) -> TransitionLearner:
    config = ModelConfig(hidden=(32, 32), initial_fit_steps=num_minibatches)
    learner = TransitionLearner(config, 2, 1, seed=0)
    batch, _, _ = linear_quadratic(3000, seed=1)
    learner.add(batch, torch.arange(3000) % 10 == 0)
    learner.fit_first()
    return learner


def test_the_networks_are_plain_perceptrons_side_by_side() -> None:
    """Each network equals one written out in float64, with its standardisation."""
    generator = torch.Generator().manual_seed(0)
    model = TransitionModel(2, 1, ensemble_size=3, hidden=(5, 4), generator=generator).double()
    with torch.no_grad():
        for bias in model.biases:
            bias.copy_(torch.randn(bias.shape, generator=generator))
        for buffer in (model.input_mean, model.input_std, model.target_mean, model.target_std):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    observation = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    action = torch.randn(7, 1, generator=generator, dtype=torch.float64)
    found = model(observation, action)
    assert found.next_obs.shape == (3, 7, 2) and found.reward.shape == (3, 7)
    for member in range(3):
        x = (torch.cat([observation, action], -1) - model.input_mean) / model.input_std
        for layer in range(3):
            x = x @ model.weights[layer][member] + model.biases[layer][member]
            x = x * torch.sigmoid(x) if layer < 2 else x
        x = model.target_mean + model.target_std * x
        torch.testing.assert_close(found.next_obs[member], observation + x[:, :2])
        torch.testing.assert_close(found.reward[member], x[:, 2])


def test_the_networks_differ_and_a_seed_repeats_them() -> None:
    first, again = (TransitionLearner(SMALL, 2, 1, seed=3).model for _ in range(2))
    other = TransitionLearner(SMALL, 2, 1, seed=4).model
    inputs = torch.ones(1, 2), torch.ones(1, 1)
    assert torch.equal(first(*inputs).reward, again(*inputs).reward)
    assert not torch.equal(first(*inputs).reward, other(*inputs).reward)
    assert first(*inputs).reward.unique().numel() == 3


def test_what_does_not_vary_keeps_its_unit() -> None:
    model = TransitionLearner(SMALL, 2, 1, seed=0).model
    moments = ObservationNormalizer(3), ObservationNormalizer(3)
    rows = torch.tensor([[7.0, 0.0, -2.0], [7.0, 4.0, -2.0]])
    for each in moments:
        each.update(rows, torch.ones(2, dtype=torch.bool))
    model.standardise(*moments)
    assert model.input_mean.tolist() == [7.0, 2.0, -2.0]
    assert model.target_std.tolist() == [1.0, 2.0, 1.0]


def test_the_derivative_converges_to_the_truth() -> None:
    """Relative errors of both Jacobians at held-out points, against the held-out error.

    Of a smooth function on inputs of unit scale, the derivative's relative error is that of the
    value, ``sqrt(model_error)``, up to a factor for how fast the residual wiggles; 10 is allowed.
    """
    found = []
    for num_minibatches in (60, 1000):
        learner = fitted(num_minibatches)
        batch, true_jacobian, true_slope = linear_quadratic(500, seed=2)
        jacobian, slope = jacobians(learner.model, batch)
        errors = {name: float(value) for name, value in learner.errors().items()}
        change = true_jacobian - torch.eye(2, 3)
        by_state = (jacobian - true_jacobian).norm() / change.norm()
        by_reward = (slope - true_slope).norm() / true_slope.norm()
        assert by_state < 10 * errors["model_error"] ** 0.5
        assert by_reward < 10 * errors["model_reward_error"] ** 0.5
        found.append((float(by_state), float(by_reward)))
    assert found[1][0] < found[0][0] / 3 and found[1][1] < found[0][1] / 3
    assert max(found[1]) < 0.1


def test_the_errors_are_those_of_the_mean_on_held_out_steps() -> None:
    """The errors equal those computed in NumPy; a component that never changes is left out."""
    learner = TransitionLearner(SMALL, 2, 1, seed=0)
    batch, _, _ = linear_quadratic(400, seed=5)
    still = batch.next_obs.clone()
    still[:, 1] = batch.obs[:, 1]
    batch = dataclasses.replace(batch, next_obs=still)
    learner.add(batch, torch.arange(400) % 4 == 0)
    held_out = [x[::4].numpy() for x in (batch.obs, batch.action, batch.next_obs, batch.reward)]
    with torch.no_grad():
        predicted = learner.model(*(torch.from_numpy(x) for x in held_out[:2]))
    next_obs, reward = (x.numpy() for x in predicted)
    variance = np.var((held_out[2] - held_out[0])[:, 0])
    error = np.mean((next_obs.mean(0) - held_out[2])[:, 0] ** 2) / variance
    reward_error = np.mean((reward.mean(0) - held_out[3]) ** 2) / np.var(held_out[3])
    spread = next_obs[..., 0].var(0).mean() / variance
    found = {name: float(value) for name, value in learner.errors().items()}
    assert found == pytest.approx(
        {"model_error": error, "model_reward_error": reward_error, "ensemble_spread": spread},
        rel=1e-4,
    )
    assert TransitionLearner(SMALL, 2, 1, seed=0).errors() == {}


def test_held_out_steps_are_never_learned_from() -> None:
    """Other values in the held-out steps give the same fitted model, to the bit."""
    batch, _, _ = linear_quadratic(1000, seed=6)
    held_out = torch.arange(1000) % 10 == 3
    models = []
    for scale in (1.0, 1e6):
        learner = TransitionLearner(SMALL, 2, 1, seed=0)
        factor = torch.where(held_out, scale, 1.0)
        spoiled = dataclasses.replace(
            batch, next_obs=batch.next_obs * factor[:, None], reward=batch.reward * factor
        )
        learner.add(spoiled, held_out)
        learner.fit_first()
        learner.fit()
        models.append((learner.model.state_dict(), learner.errors()["model_error"]))
    assert all(torch.equal(models[0][0][name], models[1][0][name]) for name in models[0][0])
    assert models[1][1] > 10 * models[0][1]


def test_a_model_that_is_not_being_fitted_takes_no_gradient() -> None:
    learner = fitted(3)
    action = torch.zeros(4, 1, requires_grad=True)
    learner.model(torch.zeros(4, 2), action).reward.sum().backward()
    assert action.grad is not None and bool((action.grad != 0).any())
    assert all(p.grad is None and not p.requires_grad for p in learner.model.parameters())


def test_data_that_is_not_finite_is_named() -> None:
    learner = TransitionLearner(SMALL, 2, 1, seed=0)
    batch, _, _ = linear_quadratic(10, seed=6)
    learner.add(
        dataclasses.replace(batch, reward=batch.reward / 0), torch.zeros(10, dtype=torch.bool)
    )
    with pytest.raises(NonFiniteError, match="transition model"):
        learner.fit()


def test_a_learner_resumes_to_the_bit() -> None:
    learner = fitted(50)
    other = TransitionLearner(learner.config, 2, 1, seed=8)
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    batch, _, _ = linear_quadratic(100, seed=7)
    for each in (learner, other):
        each.add(batch, torch.arange(100) % 10 == 0)
        each.fit()
    states = learner.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert learner.errors() == other.errors() and learner.num_steps == other.num_steps == 3100


def test_exploration_divides_its_steps_into_episodes() -> None:
    def make() -> gymnasium.Env[np.ndarray, np.ndarray]:
        return gymnasium.make("Pendulum-v1", max_episode_steps=30)

    found, episode = random_transitions(make, 95, num_episodes=2, seed=0)
    again, _ = random_transitions(make, 95, num_episodes=2, seed=0)
    other, _ = random_transitions(make, 95, num_episodes=2, seed=1)
    assert episode.tolist() == [0] * 30 + [1] * 30 + [2] * 30 + [3] * 5
    assert all(
        torch.equal(a, b)
        for a, b in zip(found.tensors().values(), again.tensors().values(), strict=True)
    )
    assert not torch.equal(found.action, other.action)
    within = episode[1:] == episode[:-1]
    assert torch.equal(found.obs[1:][within], found.next_obs[:-1][within])
    assert found.action.abs().max() <= 2 and found.action.std() > 1


def test_exploration_keeps_its_seed_where_spaces_are_made_anew() -> None:
    """An environment may replace its spaces at a reset; the actions are those of a plain one."""

    class NewSpaces(gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
        def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
            self.action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)
            return super().reset(**kwargs)

    def make() -> gymnasium.Env[np.ndarray, np.ndarray]:
        return gymnasium.make("Pendulum-v1")

    plain, _ = random_transitions(make, 40, num_episodes=2, seed=0)
    found, _ = random_transitions(lambda: NewSpaces(make()), 40, num_episodes=2, seed=0)
    assert torch.equal(found.action, plain.action) and torch.equal(found.obs, plain.obs)


@pytest.mark.parametrize(
    "wrong",
    [{"ensemble_size": 0}, {"learning_rate": 0.0}, {"hidden": (0,)}, {"capacity": 3}],
)
def test_wrong_settings_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=next(iter(wrong))):
        ModelConfig(**wrong)  # type: ignore[arg-type]
