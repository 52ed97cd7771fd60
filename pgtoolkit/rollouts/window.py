"""A window: T steps of N environments, the data that every estimator reads."""

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
    """``T`` steps of ``N`` environments, time-major. One environment's column is a trajectory.

    A window is *plain* (no graph), or *differentiable*: then ``obs``, ``next_obs``, ``action`` and
    ``reward`` carry the graph back to the policy's parameters and to ``perturbation``.

    For a discrete action space the axis ``A`` of ``pre_action`` and ``action`` is absent, and
    ``noise`` holds one Gumbel variable per choice.
    """

    obs: Tensor
    """``[T, N, O]`` what the policy saw."""
    next_obs: Tensor
    """``[T, N, O]`` what came of it, *before* any reset."""
    noise: Tensor
    """``[T, N, A]`` the standard noise ``eps`` of each action; some distributions take more than
    ``A`` numbers."""
    pre_action: Tensor
    """``[T, N, A]`` ``u = mu + sigma * eps``, before squashing."""
    action: Tensor
    """``[T, N, A]`` what the environment was given."""
    log_prob: Tensor
    """``[T, N]`` ``log pi(action | obs)`` when the action was taken; never carries a graph."""
    reward: Tensor
    """``[T, N]``."""
    terminated: Tensor
    """``[T, N]`` bool: the episode reached a terminal state, whose value is 0."""
    truncated: Tensor
    """``[T, N]`` bool: the episode was cut, and its last state still has a value."""
    valid: Tensor
    """``[T, N]`` bool: false on steps that never happened."""
    segment_end: Tensor = None  # type: ignore[assignment]  # computed in __post_init__
    """``[T, N]`` bool: the last step of a segment. A segment is a part of a trajectory with one
    discount and one bootstrap. By default it ends with an episode, before a step that never
    happened, on such a step, and with the window. An agent whose horizon differs between
    environments sets more ends."""
    first: Tensor | None = None
    """``[T, N]`` bool: the first step of an episode. None in a window that was made by hand: then
    episodes are taken to start with it."""
    perturbation: Tensor | None = None
    """``[T, N, A]`` zeros added to ``pre_action``, the leaf that :func:`action_gradient
    <pgtoolkit.estimators.surrogates.action_gradient>` differentiates by; None in a plain window."""

    def __post_init__(self) -> None:
        if self.segment_end is None:
            object.__setattr__(self, "segment_end", default_segment_end(self))

    @property
    def num_steps(self) -> int:
        return self.reward.shape[0]

    @property
    def num_envs(self) -> int:
        return self.reward.shape[1]

    @property
    def done(self) -> Tensor:
        """``[T, N]`` the episode ended here, in either way."""
        return self.terminated | self.truncated

    @property
    def differentiable(self) -> bool:
        return self.perturbation is not None

    def detach(self) -> Self:
        """The same data without a graph."""
        return dataclasses.replace(map_window(Tensor.detach, self), perturbation=None)

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
    """A window with the function applied to every tensor that it has."""
    tensors = {field.name: getattr(window, field.name) for field in FIELDS}
    return Window(**{k: function(v) for k, v in tensors.items() if v is not None})


def default_segment_end(window: Window) -> Tensor:
    """Ends of episodes, and the window's last step ``[T, N]``.

    A step that never happened is an end, and so is the step before it.
    """
    end = window.done | ~window.valid
    end[:-1] |= ~window.valid[1:]
    end[-1] = True
    return end


def concatenate(windows: list[Window]) -> Window:
    """Joins plain windows that follow each other in time; segments run on between them."""
    columns = {field.name: [getattr(w, field.name) for w in windows] for field in FIELDS}
    joined = Window(**{k: torch.cat(v) for k, v in columns.items() if v[0] is not None})
    end = joined.segment_end.clone()
    lengths = torch.tensor([w.num_steps for w in windows[:-1]], dtype=torch.long)
    last = lengths.cumsum(0).to(end.device) - 1
    end[last] = joined.done[last] | ~joined.valid[last] | ~joined.valid[last + 1]
    return dataclasses.replace(joined, segment_end=end)


def first_episodes(window: Window) -> Window:
    """Keeps each environment's first episode: every step after its end becomes invalid."""
    ended_before = torch.cat([torch.zeros_like(window.done[:1]), window.done[:-1]]).cummax(0).values
    valid = window.valid & ~ended_before
    return dataclasses.replace(window, valid=valid, segment_end=window.segment_end | ~valid)
