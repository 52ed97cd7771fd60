"""The adapters' requirements on a Gymnasium environment: flat Boxes and a time limit."""

from gymnasium.spaces import Box

from pgtoolkit.envs.registry import ordinary
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyEnv

GIVE_LIMIT = "give its limit, say --adapter-kwargs '{\"max_episode_steps\": 200}'"
ACTION_ADVICE = "a gradient by the action needs continuous actions"


def require_flat_box(
    env: AnyEnv, kind: str, advice: str = "flatten it", *, floating: bool = False
) -> Box:
    """A space of the environment, if it is a Box with one axis.

    Args:
        env: the environment.
        kind: ``"observation_space"`` or ``"action_space"``.
        advice: a remedy, the end of the error message.
        floating: require a floating-point dtype too.

    Raises:
        RequestError: it is another space.
    """
    owner, space = type(env.unwrapped).__name__, getattr(env, kind)
    return ordinary.require_flat_box(owner, kind, space, advice, floating=floating)


def require_action_box(env: AnyEnv) -> Box:
    """The action space, if a gradient by the action exists.

    Raises:
        RequestError: it is no one-dimensional Box of floating-point numbers.
    """
    return require_flat_box(env, "action_space", ACTION_ADVICE, floating=True)


def truncates_itself(name: str) -> str:
    """What is said of an environment whose own step returns ``truncated=True``."""
    return (
        f"{name} truncates episodes by itself (truncated=True from its own step): {GIVE_LIMIT}, or "
        "leave it to gymnasium.wrappers.TimeLimit alone"
    )


def find_time_limit(env: AnyEnv, given: int | None = None, advice: str = GIVE_LIMIT) -> int:
    """The number of steps after which an episode is truncated.

    Args:
        env: the environment with its wrappers.
        given: replaces the environment's own limit.
        advice: a remedy if there is no limit; part of the error message.

    Raises:
        RequestError: there is no limit, or it is less than 1.
    """
    limit = ordinary.time_limit(env) if given is None else given
    if limit is None:
        raise RequestError(
            f"{type(env.unwrapped).__name__} has no time limit, and a differentiable environment "
            f"needs one: {advice}, or wrap it in gymnasium.wrappers.TimeLimit"
        )
    if limit < 1:
        raise RequestError(f"max_episode_steps must be at least 1, not {limit}")
    return limit
