"""Actions of a policy computed in NumPy, which is faster than torch for small batches.

In small batches the overhead of torch's calls exceeds the arithmetic. The equations are those of
:class:`GaussianPolicy <pgtoolkit.policies.gaussian.GaussianPolicy>` and
:class:`CategoricalPolicy <pgtoolkit.policies.discrete.CategoricalPolicy>`; tests compare the two.
For policies with other layers than those below there is no NumPy version.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pgtoolkit.networks.mlp import (
    LOG_STD_CENTRE,
    LOG_STD_HALF_RANGE,
    LOG_STD_MAX,
    LOG_STD_MIN,
    StateIndependentStd,
    clamped_log_std,
    limited_log_std,
)
from pgtoolkit.networks.normalizer import NoNormalizer, ObservationNormalizer
from pgtoolkit.networks.parts import Entries
from pgtoolkit.policies.clipped import ClippedGaussianHead, ClippedTanhHead
from pgtoolkit.policies.discrete import CategoricalHead
from pgtoolkit.policies.gaussian import GaussianHead
from pgtoolkit.policies.policy import Policy

Array = NDArray[np.floating]

Layer = Callable[[Array], Array]

Act = Callable[[Array, Array], tuple[NDArray[np.generic], NDArray[np.generic]]]
"""``(obs [N, O], noise [N, A])`` to pre-action and action."""


def numpy_actor(policy: Policy) -> Act | None:
    """A NumPy function for the policy's actions; None if the policy has a layer without one.

    Args:
        policy: a policy on the CPU. The function shares its parameters' memory, except that of a
            standard deviation and of the normaliser's moments, which it reads now.
    """
    head = policy.head
    if not isinstance(head, GaussianHead | ClippedGaussianHead | ClippedTanhHead | CategoricalHead):
        return None
    squashed_mean = [nn.Tanh()] if isinstance(head, ClippedTanhHead) else []
    if type(policy.torso) is not nn.Sequential or _has_hooks(policy.torso):
        return None
    layers = _layers(policy, [*policy.torso, head.output, *squashed_mean])
    if layers is None:
        return None
    if isinstance(head, CategoricalHead):
        return lambda obs, noise: _categorical(_run(layers, obs), noise)
    return _gaussian(head, layers)


def _layers(policy: Policy, layers: Iterable[nn.Module]) -> list[Layer] | None:
    """NumPy functions of normaliser and layers; None if one has none or is not on the CPU."""
    if next(policy.parameters()).device.type != "cpu":
        return None
    candidates = [_normalizer(policy.normalizer), *(_layer(x) for x in layers)]
    functions = [function for function in candidates if function is not None]
    return functions if len(functions) == len(candidates) else None


GaussianHeads: TypeAlias = GaussianHead | ClippedGaussianHead | ClippedTanhHead


def _gaussian(head: GaussianHeads, layers: list[Layer]) -> Act | None:
    split = _mean_and_std(head)
    if split is None:
        return None
    squash = _squash(head)

    def act(obs: Array, noise: Array) -> tuple[Array, Array]:
        mean, std = split(_run(layers, obs))
        pre_action = mean + std * noise
        return pre_action, squash(pre_action)

    return act


def _mean_and_std(head: GaussianHeads) -> Callable[[Array], tuple[Array, Array]] | None:
    """The function from the output of the last layer to mean and standard deviation."""
    if isinstance(head.std, StateIndependentStd):
        std = np.exp(head.std.log_std.detach().numpy())
        return lambda output: (output, std)
    if not isinstance(head, GaussianHead) or head.limit is None:
        return None
    limit, size = LOG_STD_LIMITS[head.limit.limit], head.action_size
    return lambda output: (output[..., :size], np.exp(limit(output[..., size:])))


def _squash(head: GaussianHeads) -> Layer:
    """The function from the pre-action to the action."""
    if isinstance(head, GaussianHead) and not head.bounded:
        return lambda pre_action: pre_action
    low, high = head.low.numpy(), head.high.numpy()
    if isinstance(head, ClippedGaussianHead | ClippedTanhHead):
        centre, scale = head.centre.numpy(), head.scale.numpy()
        return lambda pre_action: np.clip(centre + scale * pre_action, low, high)
    scale, centre = 0.5 * (high - low), 0.5 * (high + low)
    return lambda pre_action: np.clip(centre + scale * np.tanh(pre_action), low, high)


def _categorical(logits: Array, noise: Array) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    action = np.argmax(logits + noise, axis=-1)
    return action, action


def _run(layers: list[Layer], x: Array) -> Array:
    for layer in layers:
        x = layer(x)
    return x


def _normalizer(normalizer: nn.Module) -> Layer | None:
    if isinstance(normalizer, NoNormalizer):
        return lambda x: x
    if not isinstance(normalizer, ObservationNormalizer):
        return None
    mean, limit = normalizer.mean.numpy(), normalizer.limit
    scale = torch.rsqrt(normalizer.variance + 1e-8).numpy()
    dtype = normalizer.unit.numpy().dtype

    def normalize(x: Array) -> Array:
        standardised = (x - mean.astype(x.dtype)) * scale.astype(x.dtype)
        return np.clip(standardised, -limit, limit).astype(dtype, copy=False)

    return normalize


def _layer(layer: nn.Module) -> Layer | None:
    own = {name for name, _ in layer.named_parameters(recurse=False)}
    usual = {"weight", "bias"} if type(layer) in (nn.Linear, nn.LayerNorm) else set()
    if _has_hooks(layer) or own != usual:
        return None
    if type(layer) is nn.Linear:
        weight, bias = layer.weight.detach().numpy().T, layer.bias.detach().numpy()
        return lambda x: x @ weight + bias
    if type(layer) is Entries:
        indices = layer.indices.numpy()
        return lambda x: x[..., indices]
    if type(layer) is nn.LayerNorm:
        return _layer_norm(layer)
    if type(layer) is nn.ELU and layer.alpha == 1:
        return lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    return ELEMENTWISE.get(type(layer))


def _has_hooks(layer: nn.Module) -> bool:
    """Whether a call of the layer does more than its class says, as with a weight norm."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def _layer_norm(layer: nn.LayerNorm) -> Layer:
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()

    def mean(x: Array) -> Array:
        # numpy's own mean takes several times as long for a small array.
        found: Array = np.add.reduce(x, -1, keepdims=True) / x.shape[-1]
        return found

    def run(x: Array) -> Array:
        centred = x - mean(x)
        variance = mean(np.square(centred))
        result: Array = centred / np.sqrt(variance + layer.eps) * weight + bias
        return result

    return run


LOG_STD_LIMITS: dict[Callable[[torch.Tensor], torch.Tensor], Layer] = {
    limited_log_std: lambda raw: LOG_STD_CENTRE + LOG_STD_HALF_RANGE * np.tanh(raw),
    clamped_log_std: lambda raw: np.clip(raw, LOG_STD_MIN, LOG_STD_MAX),
}
ELEMENTWISE: dict[type[nn.Module], Layer] = {
    nn.Tanh: np.tanh,
    nn.ReLU: lambda x: np.maximum(x, 0),
    nn.SiLU: lambda x: 0.5 * x * (1 + np.tanh(0.5 * x)),  # exp(-x) would overflow
}
