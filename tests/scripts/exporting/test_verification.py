"""The comparison of exported actions with the agent's own."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray
from torch import Tensor, nn

from pgtoolkit.distributions.base import Distribution
from pgtoolkit.distributions.discrete import Bernoulli, Categorical, MultiCategorical
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.mixture import GaussianMixture
from pgtoolkit.distributions.squashed import Squashed
from pgtoolkit.envs import DifferentiableVectorEnv, Pendulum
from pgtoolkit.errors import ExportError
from pgtoolkit.policies.discrete import CategoricalPolicy
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.scripts.exporting.formats import Act
from pgtoolkit.scripts.exporting.verification import compare, difference, observe
from tests.policies.exported_policies import BOUNDED, UNBOUNDED, VECTOR

SINGLE = np.dtype(np.float32)


def measured(distribution: Distribution, found: object, space: object) -> list[float]:
    assert isinstance(space, spaces.Space)
    actions = np.asarray(found, space.dtype)
    own = distribution.mode.numpy().astype(space.dtype)
    return difference(distribution, own, actions, space).tolist()


def test_the_difference_is_relative_above_1() -> None:
    """|0.5 - 0.6| beside |200 - 201| / 200."""
    distribution = DiagonalGaussian(torch.tensor([[0.5, -200.0], [0.5, -200.0]]), torch.zeros(2))
    found = measured(distribution, [[0.6, -200.0], [0.5, -201.0]], UNBOUNDED)
    assert found == pytest.approx([0.1, 0.005], rel=1e-5)


def test_another_category_differs_by_its_logarithmic_weight() -> None:
    logits = torch.tensor([[0.0, 1.0, 1.0 - 1e-6]]).repeat(3, 1)
    found = measured(Categorical(logits), [1, 2, 0], spaces.Discrete(3))
    assert found == pytest.approx([0.0, 1e-6, 1.0], abs=2e-7)
    several = MultiCategorical(torch.tensor([[0.0, 2.0, 3.0, 0.0]]), (2, 2))
    assert measured(several, [[1, 1]], spaces.MultiDiscrete([2, 2])) == pytest.approx([3.0])
    binary = Bernoulli(torch.tensor([[1.0, -2.0]]))
    assert measured(binary, [[1, 1]], spaces.MultiBinary(2)) == pytest.approx([2.0])


@pytest.mark.parametrize("action", [-1, 3])
def test_an_action_outside_its_space_is_wrong(action: int) -> None:
    assert measured(Categorical(torch.zeros(1, 3)), [action], spaces.Discrete(3)) == [np.inf]


@pytest.mark.parametrize("bounded", [False, True])
def test_a_component_of_the_same_weight_counts_as_equal(bounded: bool) -> None:
    """The second of three is as heavy as the first; the third is lighter by 1e-3."""
    logits, mean = torch.tensor([0.0, -1e-6, -1e-3]), torch.tensor([[0.1], [0.5], [0.9]])
    mixture = GaussianMixture(logits.expand(3, 3), mean.expand(3, 3, 1), torch.zeros(3, 3, 1))
    low = torch.tensor([-1.0])
    distribution = Squashed(mixture, low, -low) if bounded else mixture
    space = spaces.Box(-1 if bounded else -np.inf, 1 if bounded else np.inf, (1,), np.float32)
    means = torch.tanh(mean) if bounded else mean
    nearest = float(means[2, 0] - means[1, 0])
    assert measured(distribution, means, space) == pytest.approx([0, 0, nearest], abs=1e-6)


def own_act(policy: Policy, shift: float = 0.0, fixed: int | None = None) -> Act:
    """The policy's own actions, shifted, or those of a graph with a fixed number of rows."""

    def act(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            found: NDArray[np.float32] = policy(torch.from_numpy(rows)).mode.numpy()
        return (found + np.float32(shift))[:fixed]

    return act


@pytest.mark.parametrize(
    ("shift", "fixed", "words"),
    [
        (2e-5, None, r"differ from the agent's by up to 2e-05 on 50 observations"),
        (np.nan, None, "by up to nan"),
        (0.0, 2, r"actions are float32 \[3, 2\] and the agent's float32 \[50, 2\]"),
    ],
)
def test_a_mismatch_is_an_error(shift: float, fixed: int | None, words: str) -> None:
    policy, rows = GaussianPolicy(VECTOR, UNBOUNDED), some_rows()
    with pytest.raises(ExportError, match=words):
        compare(policy, own_act(policy, shift, fixed), [rows], UNBOUNDED, SINGLE)


def test_the_largest_difference_is_returned() -> None:
    policy = GaussianPolicy(VECTOR, BOUNDED)
    found = compare(policy, own_act(policy, 1e-6), [some_rows(), some_rows()], UNBOUNDED, SINGLE)
    assert 2e-7 < found.largest < 2e-6
    assert found.rounding < 1e-6 and found.limit == 1e-5 and found.num_observations == 100


@pytest.mark.parametrize("weight", [1e3, 1e5])
def test_a_policy_that_amplifies_rounding_may_differ_by_as_much(weight: float) -> None:
    """``weight (x - y)`` with ``x`` near ``y``: up to 3 times the rounding and up to 1e-3."""
    policy, rows = GaussianPolicy(VECTOR, UNBOUNDED, ()), some_rows()
    output = policy.head.output
    assert isinstance(output, nn.Linear)
    with torch.no_grad():
        output.weight.zero_()
        output.weight[:, :2] = torch.tensor([weight, -weight])
    rows[:, 1] = rows[:, 0] + 1e-5 * rows[:, 1]
    found = compare(policy, own_act(policy), [rows], UNBOUNDED, SINGLE)
    assert found.largest <= 1e-5 < found.rounding
    assert found.limit == min(3 * found.rounding, 1e-3)
    limit = found.limit
    with pytest.raises(ExportError):
        compare(policy, own_act(policy, 2 * limit), [rows], UNBOUNDED, SINGLE)


def some_rows() -> Tensor:
    return torch.randn(50, 3, generator=torch.Generator().manual_seed(0))


def test_observations_are_those_of_an_environment() -> None:
    """1,000 rows, different, the same twice: of a batch of tensors and of ordinary environments."""
    pendulum = Pendulum()
    policy = GaussianPolicy(pendulum.observation_space, pendulum.action_space)
    found = torch.cat([*observe(DifferentiableVectorEnv(pendulum, 10), policy)])
    again = torch.cat([*observe(DifferentiableVectorEnv(pendulum, 10), policy)])
    assert found.shape == (1000, 3) and torch.equal(found, again)
    np.testing.assert_allclose(found[:, :2].square().sum(-1), 1, rtol=1e-5)
    assert len(np.unique(found.numpy(), axis=0)) == 1000
    env = SyncVectorEnv(
        [lambda: gymnasium.make("CartPole-v1")] * 3,
        autoreset_mode=AutoresetMode.NEXT_STEP,
    )
    cart_pole = CategoricalPolicy(env.single_observation_space, env.single_action_space)
    assert torch.cat([*observe(env, cart_pole)]).shape == (1020, 4)


def test_the_worst_part_counts() -> None:
    """Of three parts the second differs; a NaN after it is not lost."""
    policy = GaussianPolicy(VECTOR, UNBOUNDED)
    shifts = iter([0.0, 0.0, 0.5, 0.5, 0.0, 0.0])

    def act(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return own_act(policy, next(shifts))(rows)

    with pytest.raises(ExportError, match=r"up to 0\.5 on 150 observations"):
        compare(policy, act, [some_rows()] * 3, UNBOUNDED, SINGLE)
    shifts = iter([0.0, 0.0, np.nan, 0.0, 0.5, 0.5])
    with pytest.raises(ExportError, match="up to nan"):
        compare(policy, act, [some_rows()] * 3, UNBOUNDED, SINGLE)
