"""First layers of a policy: normalisation of vectors, a small convolutional network for images."""

import math
from typing import Any, final

import torch
from gymnasium import spaces
from torch import Tensor, nn

from pgtoolkit.networks.normalizer import (
    SINGLE,
    NoNormalizer,
    ObservationNormalizer,
    exact_dtype,
)
from pgtoolkit.networks.parts import mask_part
from pgtoolkit.networks.spaces import box_size, image_shape, is_image

LARGE_IMAGE_SIZE = 36
"""Pixels a side from which the first two kernels of Mnih et al. (2015) are used, with half as many
filters."""


@final
class Pixels(nn.Module):
    """Images ``[..., height, width, channels]`` of bytes to flat rows of numbers in [0, 1].

    The rows are ``[..., channels * height * width]``, channels first. It takes the place of a
    normaliser and has nothing to learn, because the range of pixels is known.

    Args:
        space: the observation space.
    """

    input_dtype = SINGLE
    """The dtype in which rollouts keep NumPy observations for this module."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self.num_axes = len(space.shape)
        self.channels_last = self.num_axes == 3 and image_shape(space) != space.shape

    def forward(self, obs: Tensor) -> Tensor:
        if self.channels_last:
            obs = obs.movedim(-1, -3)
        return obs.flatten(-self.num_axes) / 255.0

    def update(self, obs: Tensor, mask: Tensor) -> None:
        """Does nothing: the scale 1 / 255 is fixed."""


@final
class Convolution(nn.Module):
    """A convolution from flat rows to flat rows: ``[..., C * H * W]`` to ``[..., F * h * w]``.

    The rows are flat so that trajectories stay on the second-to-last axis, where gradients per
    trajectory are recorded. The initial weights are orthogonal with gain sqrt(2). No padding.

    Args:
        shape: ``(C, H, W)``, the input's channels, height and width.
        filters: ``F``, the number of output channels.
        kernel: side of the square kernel.
        stride: stride in both directions.
        generator: draws the initial weights.

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
        output = nn.functional.conv2d(images, self.weight, self.bias, self.stride)
        return output.reshape(*rows.shape[:-1], -1)

    def patches(self, rows: Tensor) -> Tensor:
        """The inputs by output pixel: ``[..., C * H * W]`` to ``[..., C * kernel^2, h * w]``."""
        images = rows.reshape(-1, *self.shape)
        unfolded = nn.functional.unfold(images, self.kernel, stride=self.stride)
        return unfolded.view(*rows.shape[:-1], *unfolded.shape[1:])


def make_normalizer(
    space: spaces.Space[Any], normalize: bool
) -> ObservationNormalizer | NoNormalizer | Pixels:
    """The module that maps observations to rows of numbers ``[..., size]``.

    Args:
        space: a one-dimensional ``Box``, or images.
        normalize: whether vectors are normalised by their running mean and variance.

    Raises:
        RequestError: a space of another kind.
    """
    if is_image(space):
        assert isinstance(space, spaces.Box)
        return Pixels(space)
    size = box_size("observation", space)
    if not normalize:
        return NoNormalizer()
    assert space.dtype is not None, "a Box has a dtype"
    return ObservationNormalizer(
        size, input_dtype=exact_dtype(space.dtype), unscaled=mask_part(space)
    )


def make_encoder(
    space: spaces.Space[Any], generator: torch.Generator
) -> tuple[list[nn.Module], int]:
    """The layers between normaliser and hidden layers, and their number of features.

    For images these are two convolutions of 16 and 32 filters, each with a ReLU: 8 by 8 with stride
    4 and 4 by 4 with stride 2 from 36 pixels a side on, 4 by 4 and 3 by 3 with stride 2 below. For
    vectors there are none.

    Raises:
        RequestError: the space is neither a one-dimensional ``Box`` nor of images.
    """
    if not is_image(space):
        return [], box_size("observation", space)
    assert isinstance(space, spaces.Box)
    shape = image_shape(space)
    large = min(shape[1:]) >= LARGE_IMAGE_SIZE
    (kernel, stride), (second_kernel, second_stride) = (
        ((8, 4), (4, 2)) if large else ((4, 2), (3, 2))
    )
    first = Convolution(shape, 16, kernel, stride, generator)
    second = Convolution(first.output_shape, 32, second_kernel, second_stride, generator)
    return [first, nn.ReLU(), second, nn.ReLU()], math.prod(second.output_shape)
