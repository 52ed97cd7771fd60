"""A policy that acts on NumPy observations: what a user's own code calls."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, MultiBinary, Space, Tuple
from numpy.typing import ArrayLike, NDArray

from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.networks.flat_rows import flat_rows, needs_flattening
from pgtoolkit.networks.parts import PRIVILEGED
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.given_action import given_action
from pgtoolkit.rollouts.numpy_rollout import choose_actor

Observation: TypeAlias = ArrayLike | Mapping[str, Any] | tuple[Any, ...]
"""What an environment gives: an array, or of a ``Dict`` or ``Tuple`` space its parts."""

NUMBERS = "buif"
"""Kinds of the dtypes of observations: booleans, integers and floating-point numbers."""


@final
class TrainedPolicy:
    """A policy with the spaces that it was trained for.

    Args:
        module: the policy, on the CPU.
        observation_space: of one environment: a ``Box``, of one dimension or of images.
        action_space: of one environment.
        own_observation_space: of the environment before it was flattened to ``observation_space``,
            such as a ``Dict``; None where it was not.
        own_action_space: of the environment before it was made one row of numbers from 0; None
            where it was not.
        to_own_action: from an action of ``action_space`` to one of ``own_action_space``.

    Attributes:
        module: the torch module; ``module(obs)`` is the distribution over actions.
        observation_space: as given.
        action_space: as given.
        own_observation_space: that of the environment itself: as given, or ``observation_space``.
        own_action_space: the same of the actions that :meth:`predict` returns.
    """

    def __init__(
        self,
        module: Policy,
        observation_space: Space[Any],
        action_space: Space[Any],
        own_observation_space: Space[Any] | None = None,
        own_action_space: Space[Any] | None = None,
        to_own_action: Callable[[Any], Any] | None = None,
    ) -> None:
        self.module = module
        self.observation_space, self.action_space = observation_space, action_space
        self.own_observation_space = own_observation_space or observation_space
        self.own_action_space = own_action_space or action_space
        self._give, self._to_own = given_action(action_space), to_own_action

    def __repr__(self) -> str:
        return f"TrainedPolicy({self.own_observation_space} -> {self.own_action_space})"

    def predict(
        self,
        observation: Observation,
        deterministic: bool = True,
        *,
        generator: torch.Generator | int | None = None,
    ) -> NDArray[Any]:
        """The action for one observation, or the actions for a batch of them.

        Args:
            observation: as the environment gives it: numbers ``[O]`` or ``[N, O]``; images
                ``[H, W, C]`` or ``[N, H, W, C]``, as the observation space has them; of a ``Dict``
                space a dictionary, of a ``Tuple`` space a tuple. A batch of these has one more axis
                in front of every array, as vector environments have it. A part ``privileged`` may
                be left out. The flat row ``[O]`` or ``[N, O]`` that the policy reads is taken, too.
            deterministic: whether the action is the distribution's mode, the one without noise, as
                in evaluations; else it is sampled.
            generator: draws the noise of sampled actions: a ``torch.Generator`` on the CPU, which
                goes on from call to call; or a seed, which gives the same noise at every call, so
                that in an episode it is constant.

        Returns:
            Actions of the environment's own space, in its dtype and bounds: ``[A]`` or ``[N, A]``;
            of a ``Discrete`` space one integer, or ``[N]``.

        Raises:
            RequestError: the observation has another shape, is not made of numbers, or holds NaN;
                or actions are to be sampled without a generator.
        """
        rows, is_single = self._rows(observation)
        noise = self._noise(len(rows), deterministic, generator)
        with torch.no_grad():
            _, action = choose_actor(self.module, len(rows))(rows, noise)
        given = self._give(action)
        if self._to_own is not None:
            given = np.stack([self._to_own(each) for each in given])
        action_of_one: NDArray[Any] = given[0] if is_single else given
        return action_of_one

    def _noise(
        self, num_rows: int, deterministic: bool, generator: torch.Generator | int | None
    ) -> NDArray[Any]:
        """Noise ``[N, noise_size]`` of the actions; zeros give their modes."""
        if not isinstance(deterministic, bool | np.bool_):
            raise RequestError(f"deterministic must be True or False, not {deterministic!r}")
        if deterministic:
            if generator is not None:
                raise RequestError(
                    "a generator draws the noise of sampled actions: give deterministic=False "
                    "with it, or leave it out"
                )
            return np.zeros((num_rows, self.module.noise_size), np.float32)
        noise = self.module.draw_noise(num_rows, generator=_as_generator(generator))
        return noise.numpy()

    def _rows(self, observation: Observation) -> tuple[NDArray[Any], bool]:
        """The observations ``[N, ...]`` as the policy reads them, and whether it is one alone."""
        own, shape = self.own_observation_space, self.observation_space.shape
        assert shape is not None, "policies have spaces with a shape"
        if _has_parts(observation, own):
            observation = _flat(own, _with_privileged(own, observation))
        array = _as_numbers(observation, list(shape))
        if needs_flattening(own) and _is_of(array, own):
            array = _flat(own, array)
        is_single = array.shape == shape
        if not is_single and array.shape[1:] != shape:
            raise RequestError(
                f"the observation has the shape {list(array.shape)}: give one observation "
                f"{list(shape)}, or a batch {_batch(list(shape))}"
            )
        if not np.isfinite(array).all():
            bad = "NaN" if np.isnan(array).any() else "infinity"
            raise RequestError(f"the observation holds {bad}, for which there is no action")
        rows = array[None] if is_single else array
        return rows.astype(self.module.normalizer.input_dtype), is_single


def _has_parts(observation: Observation, space: Space[Any]) -> bool:
    """Whether this is a dictionary or tuple of a space of them, not ``(observation, info)``."""
    if isinstance(space, Dict):
        return isinstance(observation, Mapping)
    if not isinstance(space, Tuple) or not isinstance(observation, tuple):
        return False
    is_reset = len(observation) == 2 and isinstance(observation[1], dict)
    return not is_reset or isinstance(space[-1], Dict)


def _with_privileged(space: Space[Any], observation: Any) -> Any:
    """The observation, with zeros for a privileged part that it does not have.

    The policy does not read that part, and where a policy is used nobody may know it.
    """
    if not isinstance(space, Dict) or set(space) - set(observation) != {PRIVILEGED}:
        return observation
    part = space[PRIVILEGED]
    if not isinstance(part, Box | MultiBinary):
        return observation
    others = Dict({key: space[key] for key in space if key != PRIVILEGED})
    rows, is_single = flat_rows(others, observation)
    count = () if is_single else (len(rows),)
    return {**observation, PRIVILEGED: np.zeros((*count, *part.shape), part.dtype)}


def _is_of(array: NDArray[Any], space: Space[Any]) -> bool:
    """Whether the array is a value of the space, or a batch of values that are no scalars.

    A batch of scalars ``[N]`` could not be told from one flat row ``[O]``.
    """
    return array.shape == space.shape or (array.shape[1:] == space.shape != ())


def _flat(space: Space[Any], observation: Any) -> NDArray[Any]:
    """``[O]`` or ``[N, O]``: the observation, or a batch of them, as the policy reads it."""
    rows, is_single = flat_rows(space, observation)
    return rows[0] if is_single else rows


def _as_generator(generator: torch.Generator | int | None) -> torch.Generator:
    if isinstance(generator, torch.Generator) and generator.device.type == "cpu":
        return generator
    is_integer = isinstance(generator, int | np.integer) and not isinstance(generator, bool)
    if is_integer and 0 <= int(generator) < 2**63:  # type: ignore[arg-type]
        return torch.Generator().manual_seed(int(generator))  # type: ignore[arg-type]
    given = "" if generator is None else f", not {single_line(repr(generator))[:80]}"
    raise RequestError(
        "actions are sampled with a generator of yours: give generator=torch.Generator()."
        f"manual_seed(0), which goes on from call to call, or a seed of at least 0{given}"
    )


def _as_numbers(observation: Observation, shape: list[int]) -> NDArray[Any]:
    """The observation as an array of numbers.

    Raises:
        RequestError: it is none.
    """
    wanted = f"give an array of numbers, {shape} or {_batch(shape)}"
    if (
        isinstance(observation, tuple)
        and len(observation) == 2
        and isinstance(observation[1], dict)
    ):
        raise RequestError(
            "that is the pair (observation, info) which an environment's reset returns: give its "
            "first entry alone"
        )
    if isinstance(observation, Mapping):
        raise RequestError(f"the observation is a dictionary, and the policy reads none: {wanted}")
    try:
        array = np.asarray(observation)
    except (RuntimeError, TypeError, ValueError) as error:
        raise RequestError(
            f"the observation is no array ({single_line(error)}): {wanted}"
        ) from error
    if array.dtype.kind not in NUMBERS:
        raise RequestError(f"the observation has the dtype {array.dtype}: {wanted}")
    return array


def _batch(shape: list[int]) -> str:
    """``[N, 3]`` of the shape of one observation."""
    return f"[{', '.join(['N', *map(str, shape)])}]"
