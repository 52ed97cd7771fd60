import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.env_match import check_environments_match
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from pgtoolkit.envs.control.mountain_car import MountainCarContinuous
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.envs.rendering import canvas

BOX = torch.tensor([[-1.2, -0.07], [0.6, 0.07]], dtype=torch.float64)


def anywhere(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States all over the box, with every tenth at the wall, and actions beyond their bounds."""
    generator = torch.Generator().manual_seed(0)
    state = torch.lerp(BOX[0], BOX[1], torch.rand(n, 2, generator=generator, dtype=torch.float64))
    state[::10, 0] = -1.2
    action = 3 * torch.rand(n, 1, generator=generator, dtype=torch.float64) - 1.5
    return state, action


def test_each_step_equals_gymnasium_s_once_rounded_to_float32() -> None:
    env, reference = MountainCarContinuous(), Continuous_MountainCarEnv()
    state, action = anywhere(2000)
    after = env.transition(state, action, None)
    reward, terminal = env.reward(state, action, after), env.terminal(after)
    for i in range(len(state)):
        # A float64 state and action keep Gymnasium in double until it rounds the result.
        reference.state = state[i].numpy()
        obs, expected, terminated, *_ = reference.step(action[i].numpy())
        np.testing.assert_array_equal(after[i].numpy().astype(np.float32), obs)
        assert (reward[i].item(), terminal[i].item()) == (expected, terminated)
    at_the_wall = after[:, 0] == -1.2
    assert at_the_wall.sum() > 50 and bool((after[at_the_wall, 1] == 0).all())
    assert 10 < terminal.sum() < 1000


def test_equals_gymnasium_over_an_episode_that_reaches_the_goal() -> None:
    env = NumpyEnv(MountainCarContinuous(), dtype=torch.float64)
    reference = Continuous_MountainCarEnv()
    obs, _ = env.reset(seed=0)
    expected, _ = reference.reset(seed=0)
    for _ in range(200):
        # The engine pushes the way the car rolls: that is how it gets out.
        action = np.array([1.0 if expected[1] >= 0 else -1.0], dtype=np.float32)
        obs, reward, terminated, *_ = env.step(action)
        expected, their_reward, ended, *_ = reference.step(action)
        np.testing.assert_allclose(obs, expected, rtol=0, atol=2e-6)
        assert (reward, terminated) == (their_reward, ended)
        if ended:
            break
    assert ended


@pytest.mark.parametrize("seed", range(5))
def test_gymnasium_finds_no_difference(seed: int) -> None:
    ours = NumpyEnv(MountainCarContinuous(), dtype=torch.float64)
    theirs = gymnasium.make("MountainCarContinuous-v0")
    # A reward of Gymnasium's is a Python float here: equal, but not of the same type.
    check_environments_match(theirs, ours, 200, seed=seed)


def test_derivatives() -> None:
    env = MountainCarContinuous()
    state, action = anywhere(60)
    after = env.transition(state, action, None)
    # Away from the clamps, where differences would straddle a kink.
    inner = (after[:, 0].abs() < 0.44) & (after[:, 1].abs() < 0.069) & (action[:, 0].abs() < 0.99)
    assert inner.sum() > 5

    def step(s: torch.Tensor, a: torch.Tensor) -> tuple[torch.Tensor, ...]:
        after = env.transition(s, a, None)
        return after, env.observation(after), env.reward(s, a, after)

    inputs = state[inner].requires_grad_(), action[inner].requires_grad_()
    assert torch.autograd.gradcheck(step, inputs)


def test_beyond_the_clamps_nothing_depends_on_the_action() -> None:
    env = MountainCarContinuous()
    # Too much force; too fast; stopped by the wall.
    state = torch.tensor([[0.0, 0.0], [-1.0, 0.07], [-1.2, -0.05]], dtype=torch.float64)
    action = torch.tensor([[1.5], [0.5], [0.1]], dtype=torch.float64, requires_grad=True)
    after = env.transition(state, action, None)
    assert after[1, 1] == 0.07 and after[2].tolist() == [-1.2, 0.0]
    assert torch.autograd.grad(after.sum(), action)[0].flatten().tolist() == [0.0, 0.0, 0.0]


def test_the_prize_has_no_derivative_so_only_the_fuel_is_left() -> None:
    env = MountainCarContinuous()
    state = torch.tensor([[0.40, 0.05], [0.449, 0.03]], dtype=torch.float64)
    action = torch.tensor([[0.7], [-0.4]], dtype=torch.float64, requires_grad=True)
    after = env.transition(state, action, None)
    reward = env.reward(state, action, after)
    assert reward.tolist() == pytest.approx([100 - 0.049, 100 - 0.016])
    (gradient,) = torch.autograd.grad(reward.sum(), action)
    assert gradient.flatten().tolist() == pytest.approx([-0.14, 0.08])
    assert env.gradient.reward == "approximate"


def test_the_goal_must_not_be_left_behind() -> None:
    state = torch.tensor([[0.46, 0.0], [0.46, -0.01], [0.44, 0.05]])
    assert MountainCarContinuous().terminal(state).tolist() == [True, False, False]


def test_float32_agrees_with_float64() -> None:
    env = MountainCarContinuous()
    state, action = anywhere(1000)
    single = env.transition(state.float(), action.float(), None)
    double = env.transition(state.float().double(), action.float().double(), None)
    # The stop at the wall is a jump: a rounding may decide it.
    same = (single[:, 1] == 0) == (double[:, 1] == 0)
    assert single.dtype == torch.float32 and same.float().mean() > 0.99
    # A position below 1.2, a few roundings of at most 2^-23 each.
    assert (single - double)[same].abs().max() < 4 * 2**-23


def test_starts_at_rest_in_the_valley() -> None:
    state = MountainCarContinuous().initial(10_000, torch.Generator().manual_seed(0))
    position = state[:, 0]
    assert bool((state[:, 1] == 0).all()) and position.min() >= -0.6 and position.max() <= -0.4
    # A uniform of width 0.2 has a standard deviation of 0.2 / sqrt(12).
    assert abs(position.mean() + 0.5) < 4.5 * 0.2 / 12**0.5 / 100


def test_gymnasium_and_stable_baselines3_accept_it() -> None:
    check_env(NumpyEnv(MountainCarContinuous()), skip_render_check=True)
    sb3_check_env(NumpyEnv(MountainCarContinuous(), render_mode="rgb_array"))


def test_draws_the_car_where_it_is() -> None:
    env = MountainCarContinuous()
    pictures = [env.render(torch.tensor([[x, 0.0]]), 0) for x in (-0.9, 0.3)]
    columns = [np.nonzero((picture == canvas.BLUE).all(-1))[1].mean() for picture in pictures]
    assert pictures[0].shape == (256, 256, 3) and pictures[0].dtype == np.uint8
    assert columns[0] < 64 and columns[1] > 180
