"""Observations that are not a row of numbers, as one."""

from typing import Any, final

import gymnasium
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation

from pgtoolkit.envs.registry.ordinary import env_name
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.gymnasium_types import AnyEnv
from pgtoolkit.networks.flat_rows import AnySpace, flat_order, is_text, needs_flattening, parts
from pgtoolkit.networks.parts import row_with_parts


def flatten_observations(env: AnyEnv) -> AnyEnv:
    """The environment with observations ``[O]``, or images as they are.

    The order is that of :mod:`pgtoolkit.networks.flat_rows`. The space of a ``Dict`` sorts the keys
    of a plain dictionary by name and leaves those of an ``OrderedDict``. Parts of a ``Dict`` or
    ``Tuple`` that are text are left out (:func:`text_parts
    <pgtoolkit.networks.flat_rows.text_parts>` names them). Parts of a
    ``Dict`` that are called ``privileged`` and ``action_mask`` are known to the space, a
    :class:`RowWithParts <pgtoolkit.networks.parts.RowWithParts>`.

    Raises:
        RequestError: the observations are text alone, or a part of them has no fixed size.
    """
    space = env.observation_space
    if not needs_flattening(space):
        return env
    named = list(parts(space))
    numbers = [(name, part) for name, part in named if not is_text(part)]
    if not numbers:
        raise RequestError(
            f"the observations of {env_name(env)} are text alone ({single_line(space)}), and "
            "policies read numbers: wrap the environment in an observation wrapper of your own "
            "that gives a Box (--gym-wrappers '{\"file.py:MyWrapper\": {}}')"
        )
    for name, part in numbers:
        if not _has_fixed_size(part):
            raise RequestError(_no_fixed_size(env, name, part))
    flat = FlattenObservation(WithoutText(env) if len(numbers) < len(named) else env)
    assert isinstance(flat.observation_space, spaces.Box)
    flat.observation_space = row_with_parts(flat.observation_space, flat_order(space))
    return flat


@final
class WithoutText(gymnasium.ObservationWrapper[Any, Any, Any]):
    """The environment without those parts of its observations that are text."""

    def __init__(self, env: AnyEnv) -> None:
        super().__init__(env)
        self._full_space = env.observation_space
        self.observation_space = _without_text(env.observation_space)

    def observation(self, observation: Any) -> Any:
        return _select(self._full_space, observation)


def _without_text(space: AnySpace) -> AnySpace:
    if isinstance(space, spaces.Dict):
        kept = [(key, _without_text(part)) for key, part in space.items() if _has_numbers(part)]
        return spaces.Dict(kept)
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([_without_text(part) for part in space if _has_numbers(part)])
    return space


def _select(space: AnySpace, value: Any) -> Any:
    """The parts of an observation that :func:`_without_text` keeps."""
    if isinstance(space, spaces.Dict):
        return {k: _select(part, value[k]) for k, part in space.items() if _has_numbers(part)}
    if isinstance(space, spaces.Tuple):
        pairs = zip(space, value, strict=True)
        return tuple(_select(part, entry) for part, entry in pairs if _has_numbers(part))
    return value


def _has_numbers(space: AnySpace) -> bool:
    return any(not is_text(part) for _, part in parts(space))


def _has_fixed_size(space: AnySpace) -> bool:
    try:
        return space.is_np_flattenable
    except NotImplementedError:  # a space class of another library, which Gymnasium cannot flatten
        return False


def _no_fixed_size(env: AnyEnv, name: str, space: AnySpace) -> str:
    owner, shown = env_name(env), single_line(space)
    transform = "wrap the environment in a gymnasium.wrappers.TransformObservation that gives a Box"
    if not name:
        return (
            f"the observations of {owner}, {shown}, have no fixed size and cannot be flattened: "
            f"{transform}"
        )
    return (
        f"the part {name!r} of the observations of {owner}, {shown}, has no fixed size and cannot "
        f"be flattened: {transform} in its place, or keep the other parts alone "
        '(--gym-wrappers \'{"FilterObservation": {"filter_keys": [...]}}\')'
    )
