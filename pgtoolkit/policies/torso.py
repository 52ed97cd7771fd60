"""Hidden layers that a function of the user makes, and the checks that a policy can use them."""

import copy
import functools
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from gymnasium import spaces
from torch import Tensor, nn

from pgtoolkit.errors import SettingError, single_line
from pgtoolkit.networks.spaces import is_image
from pgtoolkit.user_code import describe_exception, import_file, import_named

MLP = "mlp"
"""The name of the layers that the settings describe."""

LEADING = (3, 2)
"""Leading axes of the observations on which the checks are made."""

TOLERANCE = 1e-4
"""Largest difference between a row alone and in a batch, relative to the largest output: far above
rounding in float32, far below what another row does."""


@final
class Torso(NamedTuple):
    """Hidden layers and the number of their outputs."""

    module: nn.Module
    num_features: int


MakeTorso = Callable[[spaces.Space[Any], torch.Generator], Torso]
"""Makes hidden layers from the observation space and a generator for the initial weights."""


def chosen_torso(name: str) -> MakeTorso | None:
    """The hidden layers that a setting names; None for those that the other settings describe.

    Args:
        name: ``mlp``, ``path/to/file.py:function`` or ``module:function``.

    Raises:
        RequestError: there is no such file, module or function, or importing it fails.
    """
    if name == MLP:
        return None
    return functools.partial(make_torso, name, find_function(name))


def find_function(name: str) -> Callable[..., Any]:
    """The function at ``path/to/file.py:function`` or ``module:function``.

    Raises:
        RequestError: there is no such file, module or function, or importing it fails.
    """
    place, _, attribute = name.rpartition(":")
    if place.endswith(".py"):
        path = Path(place).expanduser()
        if not path.is_file():
            raise _wrong(name, f"there is no file {place}", "write path/to/file.py:function")
        module = import_file(path.resolve())
    else:
        module = import_named(place)
    found = getattr(module, attribute, None)
    if found is None:
        raise _wrong(
            name,
            f"{place} has no {attribute}",
            "name a function of it that takes the observation space and returns an nn.Module",
        )
    if isinstance(found, nn.Module) or not callable(found):
        raise _wrong(
            name,
            f"{attribute} is a {type(found).__name__}, and every policy needs layers of its own",
            "name a function that takes the observation space and returns a new nn.Module",
        )
    function: Callable[..., Any] = found
    return function


def make_torso(
    name: str,
    function: Callable[..., Any],
    observation_space: spaces.Space[Any],
    generator: torch.Generator,
) -> Torso:
    """The module that the function makes, after checks that a policy can use it.

    It maps ``[..., O]`` to ``[..., F]``, every row by itself: vectors as the normaliser gives them,
    images as rows of ``channels * height * width`` numbers in [0, 1], channels first. Torch's
    global generator, from which modules draw their weights, has a seed of ``generator`` meanwhile,
    and is put back.

    Args:
        name: the setting, for messages.
        function: takes the observation space.
        observation_space: of one environment.
        generator: draws the seed.

    Raises:
        RequestError: the function raises or makes no module, or a policy cannot use the module.
    """
    obs = example_rows(observation_space)
    seed = int(torch.randint(2**62, (), generator=generator))
    try:
        with torch.random.fork_rng(devices=[]):
            module, other = (_seeded(function, observation_space, obs, seed) for _ in range(2))
            _require_new_weights(name, module, other)
            features = _require_features(name, module, obs)
            _require_separate_rows(name, module, obs, features)
            _require_trainable(name, module, obs)
            _require_copy(name, module, obs)
    except SettingError:
        raise
    except Exception as error:
        what = single_line(describe_exception(error, _file_of(function)))
        raise _wrong(
            name,
            f"it fails with observations {list(obs.shape)} ({what})",
            "it must take any leading axes, [..., O] to [..., F]",
        ) from error
    return Torso(module, features.shape[-1])


def example_rows(space: spaces.Space[Any]) -> Tensor:
    """Observations ``[3, 2, O]`` as hidden layers see them, always the same."""
    assert space.shape is not None, "a Box has a shape"
    shape, generator = (*LEADING, math.prod(space.shape)), torch.Generator().manual_seed(0)
    draw = torch.rand if is_image(space) else torch.randn
    return draw(shape, generator=generator)


def _seeded(
    function: Callable[..., Any], space: spaces.Space[Any], obs: Tensor, seed: int
) -> nn.Module:
    """The module with the weights of a seed; layers that wait for their input's size have seen it.

    Raises:
        SettingError: the function makes something else.
    """
    # torch.manual_seed would seed the generators of other devices too.
    torch.default_generator.manual_seed(seed)
    must = "it must take the observation space and return an nn.Module"
    try:
        module = function(space)
    except Exception as error:
        what = single_line(describe_exception(error, _file_of(function)))
        name = _name_of(function)
        raise SettingError(f"{name} of --torso fails when it is called ({what}): {must}") from error
    if not isinstance(module, nn.Module):
        raise SettingError(f"{_name_of(function)} of --torso returned {_kind(module)}: {must}")
    norms = nn.modules.batchnorm._BatchNorm
    if any(isinstance(part, norms) and part.training for part in module.modules()):
        raise SettingError(
            f"{_name_of(function)} of --torso has a BatchNorm, which mixes the rows of a batch: a "
            "policy must treat every row by itself. Use LayerNorm in the place of BatchNorm"
        )
    if any(nn.parameter.is_lazy(tensor) for tensor in module.parameters()):
        with torch.no_grad():
            module(obs)
    return module


def _require_new_weights(name: str, module: nn.Module, other: nn.Module) -> None:
    """Raises unless two modules of one seed have equal weights that they do not share."""
    shared = {id(p) for p in module.parameters()} & {id(p) for p in other.parameters()}
    if shared or module is other:
        raise _wrong(
            name,
            "it returns the same module, or the same parameters, again",
            "make a new module in every call, because every policy needs layers of its own",
        )
    pairs = (module.state_dict(), other.state_dict())
    equal = pairs[0].keys() == pairs[1].keys() and all(
        torch.equal(tensor, pairs[1][key]) for key, tensor in pairs[0].items()
    )
    if not equal:
        raise _wrong(
            name,
            "two calls with one seed of torch gave two modules, and a run could not be repeated",
            "draw random numbers from torch's global generator alone (nn.init, torch.randn)",
        )


def _require_features(name: str, module: nn.Module, obs: Tensor) -> Tensor:
    """The features ``[3, 2, F]`` of the observations.

    Raises:
        SettingError: the output has another shape or dtype, or is not finite.
    """
    features: Any = None
    for rows in (obs[0], obs):
        with torch.no_grad():
            features = module(rows)
        if not isinstance(features, Tensor):
            raise _wrong(
                name,
                f"its output is {_kind(features)}",
                "return one tensor of features [..., F]",
            )
        leading = features.shape[:-1] == rows.shape[:-1]
        if not leading or features.dtype != torch.float32 or features.shape[-1] == 0:
            raise _wrong(
                name,
                f"for observations {list(rows.shape)} its output is {features.dtype} "
                f"{list(features.shape)}",
                "map [..., O] to features [..., F] in torch.float32, with the same leading axes",
            )
        if not bool(features.isfinite().all()):
            raise _wrong(
                name,
                "its output is not finite for observations of ordinary size",
                "check its initial weights, and divisions, roots and logarithms",
            )
    assert isinstance(features, Tensor)
    return features


def _require_separate_rows(name: str, module: nn.Module, obs: Tensor, features: Tensor) -> None:
    """Raises unless a row's features depend on this row alone, and not on earlier calls."""
    with torch.no_grad():
        before = {key: buffer.clone() for key, buffer in module.named_buffers()}
        again = module(obs)
        changed = [k for k, b in module.named_buffers() if not torch.equal(b, before[k])]
        if changed:
            raise _wrong(
                name,
                f"its buffer {changed[0]} changes in every call, and the actions of a policy would "
                "depend on earlier calls",
                "keep no state between calls; use LayerNorm in the place of BatchNorm",
            )
        if not _are_close(again, features):
            raise _wrong(
                name,
                "two calls with the same observations gave different outputs",
                "take out dropout and noise, and keep no state between calls",
            )
        rows = obs.flatten(0, 1)
        alone = torch.cat([module(row) for row in rows.unsqueeze(1)]).view_as(features)
        if not all(_are_close(x, features) for x in (alone, module(rows).view_as(features))):
            raise _wrong(
                name,
                "the output of one observation depends on the others beside it",
                "treat every row [O] by itself: LayerNorm in the place of BatchNorm, no attention "
                "and no recurrence over the leading axes",
            )


def _require_trainable(name: str, module: nn.Module, obs: Tensor) -> None:
    """Raises unless all parameters are float32 and trained."""
    for key, parameter in module.named_parameters():
        if parameter.dtype != torch.float32:
            raise _wrong(name, f"its parameter {key} is {parameter.dtype}", "use torch.float32")
        if not parameter.requires_grad:
            raise _wrong(
                name,
                f"its parameter {key} does not require a gradient, and agents train all parameters",
                "make what stays constant a buffer (register_buffer)",
            )
    given = obs.clone().requires_grad_()
    if not module(given).requires_grad:
        raise _wrong(
            name,
            "its output has no gradient",
            "compute it without torch.no_grad, detach and NumPy",
        )


def _require_copy(name: str, module: nn.Module, obs: Tensor) -> None:
    """Raises unless a copy computes in double precision, as the check of an export does.

    A tensor that is neither a parameter nor a buffer would stay as it is, on another device too,
    and would not be saved.
    """
    try:
        copied = copy.deepcopy(module)
    except Exception as error:
        raise _wrong(
            name,
            f"it cannot be copied ({type(error).__name__}: {single_line(error)})",
            "keep layers, parameters and buffers in it, and compute all other tensors in forward",
        ) from error
    try:
        with torch.no_grad():
            copied.double()(obs.double())
    except Exception as error:
        raise _wrong(
            name,
            f"converted to float64 it fails ({type(error).__name__}: {single_line(error)}), and an "
            "export or another device would need the like",
            "make the tensors that it holds parameters or buffers (register_buffer), and those of "
            "forward with the dtype and device of its input",
        ) from error


def _are_close(one: Tensor, other: Tensor) -> bool:
    absolute = TOLERANCE * max(float(other.abs().max()), 1e-6)
    return torch.allclose(one, other, rtol=0, atol=absolute)


def _wrong(name: str, what: str, advice: str) -> SettingError:
    return SettingError(f"--torso {name}: {what}: {advice}")


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _file_of(function: Callable[..., Any]) -> str:
    try:
        return inspect.getfile(function)
    except TypeError:
        return ""
