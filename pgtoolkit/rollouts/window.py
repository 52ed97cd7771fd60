"""A window: ``T`` consecutive steps of ``N`` environments, the data of one update.

Agents collect a window, estimate a gradient from it and collect the next one, which continues where
the last one ended. Episodes may begin and end anywhere in a window, and may span several.
"""

import dataclasses
from collections.abc import Callable
from typing import Self, final

import torch
from torch import Tensor

from pgtoolkit.errors import RequestError
from pgtoolkit.rollouts.transitions import TRANSITION_FIELDS, Transitions


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """``T`` steps of ``N`` environments, time-major. A *trajectory* is one environment's column.

    A window is *plain* (no graph) or *differentiable*: then ``obs``, ``next_obs``, ``action`` and
    ``reward`` carry the graph back to the policy's parameters and to ``action_shift``.

    For a discrete action space the axis ``A`` of ``pre_action`` and ``action`` is absent, and
    ``noise`` holds one Gumbel variable for each action of the space.

    A *segment* is a part of a trajectory that is discounted from its own first step and has one
    *bootstrap*: the value function's estimate ``V(next_obs)`` after its last step stands for all
    later reward, and is 0 if the episode terminated there.
    """

    obs: Tensor
    """``[T, N, O]`` the observation that the policy acted on."""
    next_obs: Tensor
    """``[T, N, O]`` the observation after the step, *before* any reset."""
    noise: Tensor
    """``[T, N, A]`` the standard noise ``eps`` of each action. Some distributions need more than
    ``A`` numbers for an action."""
    pre_action: Tensor
    """``[T, N, A]`` ``u = mu + sigma * eps``, before squashing."""
    action: Tensor
    """``[T, N, A]`` the action that the environment received, before any cast to the dtype of its
    action space."""
    log_prob: Tensor
    """``[T, N]`` ``log pi(action | obs)`` at collection time, always without a graph."""
    reward: Tensor
    """``[T, N]`` the reward of the step."""
    terminated: Tensor
    """``[T, N]`` bool: the episode reached a terminal state, whose value is 0."""
    truncated: Tensor
    """``[T, N]`` bool: the episode was cut off, for example by a time limit. Its last state still
    has a value."""
    valid: Tensor
    """``[T, N]`` bool: false on steps that do not count, because the environment only reset itself
    (autoreset NEXT_STEP) or failed, or because only other steps are kept."""
    segment_end: Tensor = None  # type: ignore[assignment]  # computed in __post_init__
    """``[T, N]`` bool: the last step of a segment. By default it is true where an episode ends,
    before and on steps that are not valid, and on the window's last step. An agent whose horizon
    differs between environments sets more ends."""
    episode_start: Tensor | None = None
    """``[T, N]`` bool: the first step of an episode. None in a window that was made by hand; its
    episodes are assumed to start at its first step."""
    action_shift: Tensor | None = None
    """``[T, N, A]`` zeros that were added to ``pre_action``: the leaf by which
    :func:`action_gradient <pgtoolkit.estimators.surrogates.action_gradient>` differentiates. None
    in a plain window."""

    success: Tensor | None = None
    """``[T, N]`` 1 or 0: ``is_success`` of the step's info, -1 where it says nothing. None in a
    window of environments on tensors, which have no infos."""

    def __post_init__(self) -> None:
        if self.segment_end is None:
            object.__setattr__(self, "segment_end", default_segment_end(self))

    @property
    def num_steps(self) -> int:
        """``T``."""
        return self.reward.shape[0]

    @property
    def num_envs(self) -> int:
        """``N``."""
        return self.reward.shape[1]

    @property
    def done(self) -> Tensor:
        """``[T, N]`` bool: the episode ended at this step, terminated or truncated."""
        return self.terminated | self.truncated

    @property
    def differentiable(self) -> bool:
        """Whether the window carries a graph."""
        return self.action_shift is not None

    def detach(self) -> Self:
        """A window with the same values and without a graph."""
        return dataclasses.replace(map_window(Tensor.detach, self), action_shift=None)

    def transitions(self, *extras: str) -> Transitions:
        """The valid steps as transitions ``[M]``, ordered by time and then by environment.

        The tensors keep their graph. If all steps are valid, they are views of the window's.

        Args:
            extras: names of further tensors of the window to include, such as ``"log_prob"``.

        Raises:
            RequestError: the window has no tensor with such a name.
        """
        tensors = {name: getattr(self, name, None) for name in (*TRANSITION_FIELDS, *extras)}
        whole, steps = bool(self.valid.all()), {}
        for name, tensor in tensors.items():
            if not isinstance(tensor, Tensor):
                raise RequestError(
                    f"this window has no tensor {name!r} to put into transitions: name one of "
                    f"{[field.name for field in FIELDS]} that is not None"
                )
            steps[name] = tensor.flatten(0, 1) if whole else tensor[self.valid]
        return Transitions.from_tensors(steps)


FIELDS = dataclasses.fields(Window)


def map_window(function: Callable[[Tensor], Tensor], window: Window) -> Window:
    """A window with the function applied to every field that is not None."""
    tensors = {field.name: getattr(window, field.name) for field in FIELDS}
    return Window(**{k: function(v) for k, v in tensors.items() if v is not None})


def default_segment_end(window: Window) -> Tensor:
    """The default of :attr:`Window.segment_end` ``[T, N]``, from the other fields."""
    end = window.done | ~window.valid
    end[:-1] |= ~window.valid[1:]
    end[-1] = True
    return end


def concatenate(windows: list[Window]) -> Window:
    """Joins windows that follow each other in time.

    A segment that only the end of a window has cut continues in the next window.
    """
    joined = _cat(windows, dim=0)
    end = joined.segment_end.clone()
    lengths = torch.tensor([w.num_steps for w in windows[:-1]], dtype=torch.long)
    last = lengths.cumsum(0).to(end.device) - 1
    end[last] = joined.done[last] | ~joined.valid[last] | ~joined.valid[last + 1]
    return dataclasses.replace(joined, segment_end=end)


def concatenate_environments(windows: list[Window]) -> Window:
    """Joins windows of equally many steps along the environment axis."""
    return _cat(windows, dim=1)


def _cat(windows: list[Window], dim: int) -> Window:
    columns = {field.name: [getattr(w, field.name) for w in windows] for field in FIELDS}
    return Window(**{k: torch.cat(v, dim) for k, v in columns.items() if v[0] is not None})


def first_episodes(window: Window) -> Window:
    """Keeps each environment's first episode: every later step becomes invalid.

    So does every step before one that did not happen, because an episode that a fault broke off is
    not a whole one; the next one counts.
    """
    ended_before = torch.cat([torch.zeros_like(window.done[:1]), window.done[:-1]]).cummax(0).values
    broken_off = (~window.valid & ~ended_before).flip(0).cummax(0).values.flip(0)
    valid = window.valid & ~ended_before & ~broken_off
    return dataclasses.replace(window, valid=valid, segment_end=window.segment_end | ~valid)
