"""From observations to features: nothing to do for rows of numbers, a small network for images."""

import math
from typing import Any, final

import torch
from gymnasium import spaces
from torch import Tensor, nn

from pgtoolkit.networks.normalizer import NoNormalizer, ObservationNormalizer
from pgtoolkit.networks.spaces import box_size, image_shape, is_image

LARGE_IMAGE = 36
"""Pixels a side from which the kernels are those of Mnih et al. (2015), half as many."""


@final
class Pixels(nn.Module):
    """Images as they come, to flat rows, channels first, in [0, 1].

    ``[..., height, width, channels]`` to ``[..., channels * height * width]``. Updating does
    nothing: the range of pixels is known.

    Args:
        space: of the images.
    """

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self.num_axes = len(space.shape)
        self.channels_last = self.num_axes == 3 and image_shape(space) != space.shape

    def forward(self, obs: Tensor) -> Tensor:
        if self.channels_last:
            obs = obs.movedim(-1, -3)
        return obs.flatten(-self.num_axes) / 255.0

    def update(self, obs: Tensor, valid: Tensor) -> None:
        """Does nothing."""


@final
class Convolution(nn.Module):
    """A convolution from flat rows to flat rows: ``[..., C * H * W]`` to ``[..., F * h * w]``.

    Flat, so that trajectories stay on the last axis but one, where gradients per trajectory are
    recorded. Orthogonal weights of gain sqrt(2), no padding.

    Args:
        shape: ``(C, H, W)`` of the input.
        filters: ``F``.
        kernel: of a square kernel.
        stride: of both directions.
        generator: for the initial weights.

    Attributes:
        output_shape: ``(F, h, w)``, ``h = (H - kernel) // stride + 1``.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        filters: int,
        kernel: int,
        stride: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        self.shape, self.kernel, self.stride = shape, kernel, stride
        self.output_shape = (
            filters,
            (height - kernel) // stride + 1,
            (width - kernel) // stride + 1,
        )
        rows = torch.empty(filters, channels * kernel**2)
        nn.init.orthogonal_(rows, math.sqrt(2), generator=generator)
        self.weight = nn.Parameter(rows.view(filters, channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(filters))

    def forward(self, rows: Tensor) -> Tensor:
        images = rows.reshape(-1, *self.shape)
        found = nn.functional.conv2d(images, self.weight, self.bias, self.stride)
        return found.reshape(*rows.shape[:-1], -1)

    def patches(self, rows: Tensor) -> Tensor:
        """What the kernel sees: ``[..., C * H * W]`` to ``[..., C * kernel^2, h * w]``."""
        images = rows.reshape(-1, *self.shape)
        found = nn.functional.unfold(images, self.kernel, stride=self.stride)
        return found.view(*rows.shape[:-1], *found.shape[1:])


def make_normalizer(
    space: spaces.Space[Any], normalize: bool
) -> ObservationNormalizer | NoNormalizer | Pixels:
    """The first part of a policy: from observations to rows ``[..., size]``.

    Raises:
        RequestError: observations of another kind than a one-dimensional ``Box`` or images.
    """
    if is_image(space):
        assert isinstance(space, spaces.Box)
        return Pixels(space)
    size = box_size("observation", space)
    return ObservationNormalizer(size) if normalize else NoNormalizer()


def make_encoder(
    space: spaces.Space[Any], generator: torch.Generator
) -> tuple[list[nn.Module], int]:
    """What comes between the normaliser and the hidden layers, and how many features it gives.

    Two convolutions with ReLU for images (16 and 32 filters; 8 by 8 with stride 4 and 4 by 4 with
    stride 2 from 36 pixels a side, 4 by 4 and 3 by 3 with stride 2 below), nothing for others.

    Raises:
        RequestError: as :func:`make_normalizer`.
    """
    if not is_image(space):
        return [], box_size("observation", space)
    assert isinstance(space, spaces.Box)
    shape = image_shape(space)
    large = min(shape[1:]) >= LARGE_IMAGE
    (kernel, stride), (second_kernel, second_stride) = (
        ((8, 4), (4, 2)) if large else ((4, 2), (3, 2))
    )
    first = Convolution(shape, 16, kernel, stride, generator)
    second = Convolution(first.output_shape, 32, second_kernel, second_stride, generator)
    return [first, nn.ReLU(), second, nn.ReLU()], math.prod(second.output_shape)
