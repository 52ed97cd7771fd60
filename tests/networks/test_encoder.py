"""The encoder of images, and its gradients per trajectory."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from pgtoolkit.agents.reinforce import Reinforce, ReinforceConfig
from pgtoolkit.diagnostics.per_trajectory import GradientRecorder, per_sample_gradients
from pgtoolkit.networks.encoder import Convolution, Pixels, make_encoder, make_normalizer
from pgtoolkit.networks.spaces import image_shape, is_image
from pgtoolkit.policies.discrete import CategoricalPolicy


def image_space(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (image_space(84, 84, 3), (3, 84, 84)),
        (image_space(4, 84, 84), (4, 84, 84)),
        (image_space(20, 30), (1, 20, 30)),
        (image_space(12, 12, 1), (1, 12, 12)),
    ],
)
def test_images_are_known_by_dtype_and_shape(
    space: spaces.Box, expected: tuple[int, int, int]
) -> None:
    assert is_image(space) and image_shape(space) == expected


@pytest.mark.parametrize(
    "space",
    [image_space(4, 4, 3), image_space(128), spaces.Box(0, 1, (84, 84, 3)), spaces.Discrete(3)],
)
def test_what_is_no_image(space: spaces.Space[Any]) -> None:
    assert not is_image(space)


@pytest.mark.parametrize("shape", [(13, 17, 3), (3, 13, 17), (13, 17)])
def test_pixels_come_flat_channels_first_and_in_the_unit_interval(shape: tuple[int, ...]) -> None:
    space = image_space(*shape)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 5, *shape)))
    rows = Pixels(space)(image.float())
    assert rows.shape == (2, 5, np.prod(shape))
    first = image if len(shape) == 2 or shape[0] == 3 else image.movedim(-1, -3)
    assert torch.equal(
        rows.view(2, 5, *image_shape(space)),
        first.reshape(rows.shape).view(2, 5, *image_shape(space)) / 255.0,
    )


def test_a_convolution_of_rows_is_the_convolution_of_images() -> None:
    layer = Convolution((3, 13, 17), 5, 4, 2, seeded())
    images = torch.randn(6, 3, 13, 17, generator=seeded(1))
    expected = torch.nn.functional.conv2d(images, layer.weight, layer.bias, stride=2)
    assert expected.shape[1:] == layer.output_shape
    found = layer(images.flatten(1).view(2, 3, -1))
    assert torch.equal(found, expected.view(2, 3, -1))


def test_the_encoder_says_how_many_features_it_gives() -> None:
    for space in (image_space(84, 84, 3), image_space(12, 14, 1)):
        layers, size = make_encoder(space, seeded())
        rows = make_normalizer(space, True)(torch.zeros(7, *space.shape))
        assert torch.nn.Sequential(*layers)(rows).shape == (7, size)
    row_layers, size = make_encoder(spaces.Box(-1, 1, (4,)), seeded())
    assert row_layers == [] and size == 4


def test_gradients_per_trajectory_of_an_image_policy_equal_the_slow_ones() -> None:
    space, trajectories = image_space(13, 13, 2), 3
    policy = CategoricalPolicy(space, spaces.Discrete(4), (6,)).double()
    obs = torch.randint(256, (5, trajectories, *space.shape), generator=seeded(2)).double()
    noise = policy.draw_noise(5, trajectories, generator=seeded(3))
    choice = policy(obs).pre_action(noise).detach()

    def surrogate() -> torch.Tensor:
        return policy.log_derivative_loss(obs, choice, torch.ones(5, trajectories)).sum(0)

    recorder = GradientRecorder(policy)
    with recorder.recording():
        recorded = surrogate()
    fast = recorder.per_trajectory(recorded)
    slow = per_sample_gradients(surrogate(), dict(policy.named_parameters()))
    assert fast.keys() == slow.keys() and len(fast) == 8
    for name, gradient in slow.items():
        assert gradient.abs().max() > 0
        assert torch.allclose(fast[name], gradient, rtol=1e-10, atol=1e-12), name


class Stripe(gymnasium.Env[Any, Any]):
    """A bright stripe left or right: name the side. Reward 1 or 0, one step an episode."""

    observation_space = image_space(16, 16, 1)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._draw(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(action == self.side)
        return self._draw(), reward, True, False, {}

    def _draw(self) -> Any:
        self.side = int(self.np_random.integers(2))
        image = np.zeros((16, 16, 1), np.uint8)
        image[:, 2 + 9 * self.side : 5 + 9 * self.side] = 255
        return image


def test_an_agent_learns_from_images() -> None:
    envs = SyncVectorEnv([Stripe] * 8, autoreset_mode=AutoresetMode.SAME_STEP)
    config = ReinforceConfig(num_envs=8, n_steps=16, learning_rate=1e-2)
    agent = Reinforce(config, envs, seed=0, total_steps=8 * 16 * 30)
    rewards = []
    for _ in range(30):
        window = agent.collect()
        rewards.append(float(window.reward.mean()))
        agent.update(window)
    # 128 coins: by chance 0.5 with standard error 0.044.
    assert rewards[0] < 0.7 and rewards[-1] > 0.9, rewards


@pytest.mark.parametrize(
    ("dtype", "normalize", "expected"),
    [
        (np.float64, True, np.float64),
        (np.int64, True, np.float64),
        (np.float32, True, np.float32),
        (np.float64, False, np.float32),
    ],
)
def test_only_a_normaliser_reads_float64(dtype: type, normalize: bool, expected: type) -> None:
    """Without one observations go into the first layer, whose weights are float32."""
    normalizer = make_normalizer(spaces.Box(0, 9, (3,), dtype), normalize)
    assert normalizer.input_dtype == expected
    assert make_normalizer(image_space(12, 12), True).input_dtype == np.float32
