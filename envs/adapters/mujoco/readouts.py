"""Observation and reward of Gymnasium's MuJoCo environments, for batches of ``K`` steps.

A readout repeats the formulas of an environment's ``step`` on arrays ``[K, ...]``: the state and
the derived fields before and after the step, by their names in ``MjData``, and the actions ``[K,
A]``. Weights and ranges are read from the environment object. A test compares each readout with its
environment.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.simulation.simulator import Array

Values: TypeAlias = Mapping[str, Array]
"""Fields of ``MjData`` by name, each ``[K, ...]``."""


@final
@dataclasses.dataclass(frozen=True)
class Readout:
    """The observation and reward of an environment as a function of its simulator's fields."""

    evaluate: Callable[[Values, Array, Values], tuple[Array, Array]]
    """Maps fields before the step, actions and fields after the step to observations ``[K, O]`` and
    rewards ``[K]``."""
    before: tuple[str, ...] = ()
    """Derived fields that are needed before the step, beside positions and velocities."""
    after: tuple[str, ...] = ()
    """Derived fields that are needed after the step, beside positions and velocities."""


def readout_of(env: Any) -> Readout | None:
    """The readout of an unwrapped environment of one of Gymnasium's eleven v5 classes.

    None for any other class. Subclasses are excluded, because they may change the observation or
    the reward.
    """
    kind = type(env)
    make = _READOUTS.get(f"{kind.__module__}.{kind.__qualname__}")
    return None if make is None else make(env)


def _reacher(env: Any) -> Readout:
    fingertip, target = env.model.body("fingertip").id, env.model.body("target").id

    def evaluate(before: Values, action: Array, after: Values) -> tuple[Array, Array]:
        angles = after["qpos"][:, :2]
        gap = after["xpos"][:, fingertip] - after["xpos"][:, target]
        rest = (after["qpos"][:, 2:], after["qvel"][:, :2], gap[:, :2])
        observation = np.concatenate([np.cos(angles), np.sin(angles), *rest], axis=1)
        distance = env._reward_dist_weight * _norm(gap)
        return observation, -distance - env._reward_control_weight * _squares(action)

    return Readout(evaluate, after=("xpos",))


def _pusher(env: Any) -> Readout:
    bodies = [env.model.body(name).id for name in ("tips_arm", "object", "goal")]

    def evaluate(before: Values, action: Array, after: Values) -> tuple[Array, Array]:
        tip, thing, goal = (after["xpos"][:, body] for body in bodies)
        joints = (after["qpos"][:, :7], after["qvel"][:, :7])
        near = env._reward_near_weight * _norm(thing - tip)
        far = env._reward_dist_weight * _norm(thing - goal)
        effort = env._reward_control_weight * _squares(action)
        return np.concatenate([*joints, tip, thing, goal], axis=1), -far - effort - near

    return Readout(evaluate, after=("xpos",))


def _runner(env: Any, skipped: int, healthy: Callable[[Values], NDArray[np.bool_]]) -> Readout:
    """HalfCheetah, Hopper, Walker2d and Swimmer: forward velocity, alive bonus, control cost.

    Args:
        env: the environment.
        skipped: number of positions that the observation leaves out by default.
        healthy: maps the fields after a step to ``[K]`` bool.
    """
    skip = skipped * env._exclude_current_positions_from_observation
    bonus = getattr(env, "_healthy_reward", 0.0)
    max_velocity = 10.0 if hasattr(env, "_healthy_reward") else np.inf

    def evaluate(before: Values, action: Array, after: Values) -> tuple[Array, Array]:
        velocity = np.clip(after["qvel"], -max_velocity, max_velocity)
        forward = (after["qpos"][:, 0] - before["qpos"][:, 0]) / env.dt
        effort = env._ctrl_cost_weight * _squares(action)
        reward = env._forward_reward_weight * forward + bonus * healthy(after) - effort
        return np.concatenate([after["qpos"][:, skip:], velocity], axis=1), reward

    return Readout(evaluate)


def _hopper(env: Any) -> Readout:
    def healthy(after: Values) -> NDArray[np.bool_]:
        state = np.concatenate([after["qpos"], after["qvel"]], axis=1)[:, 2:]
        inside = _within(state, env._healthy_state_range).all(axis=1)
        return _upright(after, env) & inside

    return _runner(env, 1, healthy)


def _inverted_pendulum(env: Any) -> Readout:
    def evaluate(before: Values, action: Array, after: Values) -> tuple[Array, Array]:
        observation = np.concatenate([after["qpos"], after["qvel"]], axis=1)
        alive = np.isfinite(observation).all(axis=1) & (np.abs(observation[:, 1]) <= 0.2)
        return observation, alive.astype(np.float64)

    return Readout(evaluate)


def _inverted_double_pendulum(env: Any) -> Readout:
    def evaluate(before: Values, action: Array, after: Values) -> tuple[Array, Array]:
        qpos, qvel = after["qpos"], after["qvel"]
        force = np.clip(after["qfrc_constraint"], -10, 10)[:, :1]
        angles = (np.sin(qpos[:, 1:]), np.cos(qpos[:, 1:]))
        parts = [qpos[:, :1], *angles, np.clip(qvel, -10, 10), force]
        x, y = after["site_xpos"][:, 0, 0], after["site_xpos"][:, 0, 2]
        penalty = 0.01 * x**2 + (y - 2) ** 2 + 1e-3 * qvel[:, 1] ** 2 + 5e-3 * qvel[:, 2] ** 2
        return np.concatenate(parts, axis=1), env._healthy_reward * (y > 1) - penalty

    return Readout(evaluate, after=("site_xpos", "qfrc_constraint"))


def _ant(env: Any) -> Readout:
    torso = env.model.body(env._main_body).id
    skip = 2 * env._exclude_current_positions_from_observation

    def evaluate(before: Values, action: Array, after: Values) -> tuple[Array, Array]:
        qpos, qvel = after["qpos"], after["qvel"]
        forces = np.clip(after["cfrc_ext"], *env._contact_force_range)
        felt = [_flat(forces[:, 1:])] if env._include_cfrc_ext_in_observation else []
        forward = (after["xpos"][:, torso, 0] - before["xpos"][:, torso, 0]) / env.dt
        low, high = env._healthy_z_range
        finite = np.isfinite(qpos).all(axis=1) & np.isfinite(qvel).all(axis=1)
        healthy = finite & (low <= qpos[:, 2]) & (qpos[:, 2] <= high)
        effort = env._ctrl_cost_weight * _squares(action)
        impact = env._contact_cost_weight * _squares(_flat(forces))
        gain = env._forward_reward_weight * forward + env._healthy_reward * healthy
        return np.concatenate([qpos[:, skip:], qvel, *felt], axis=1), gain - effort - impact

    return Readout(evaluate, before=("xpos",), after=("xpos", "cfrc_ext"))


def _humanoid(env: Any) -> Readout:
    mass = env.model.body_mass / env.model.body_mass.sum()

    def evaluate(before: Values, action: Array, after: Values) -> tuple[Array, Array]:
        forward = (after["xipos"][:, :, 0] - before["xipos"][:, :, 0]) @ mass / env.dt
        gain = env._forward_reward_weight * forward
        healthy = _within(after["qpos"][:, 2], env._healthy_z_range)
        effort = env._ctrl_cost_weight * _squares(action)
        impact = env._contact_cost_weight * _squares(_flat(after["cfrc_ext"]))
        impact = np.clip(impact, *env._contact_cost_range)
        return _body(env, after), gain + env._healthy_reward * healthy - effort - impact

    return Readout(evaluate, before=("xipos",), after=("xipos", *_BODY_FIELDS))


def _humanoid_standup(env: Any) -> Readout:
    def evaluate(before: Values, action: Array, after: Values) -> tuple[Array, Array]:
        rise = after["qpos"][:, 2] / env.model.opt.timestep
        effort = env._ctrl_cost_weight * _squares(action)
        impact = env._impact_cost_weight * _squares(_flat(after["cfrc_ext"]))
        impact = np.clip(impact, *env._impact_cost_range)
        return _body(env, after), rise - effort - impact + 1

    return Readout(evaluate, after=_BODY_FIELDS)


_BODY_FIELDS = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")


def _body(env: Any, after: Values) -> Array:
    """Observation ``[K, O]`` of Humanoid and HumanoidStandup."""
    skip = 2 * env._exclude_current_positions_from_observation
    parts = [after["qpos"][:, skip:], after["qvel"]]
    if env._include_cinert_in_observation:
        parts.append(_flat(after["cinert"][:, 1:]))
    if env._include_cvel_in_observation:
        parts.append(_flat(after["cvel"][:, 1:]))
    if env._include_qfrc_actuator_in_observation:
        parts.append(after["qfrc_actuator"][:, 6:])
    if env._include_cfrc_ext_in_observation:
        parts.append(_flat(after["cfrc_ext"][:, 1:]))
    return np.concatenate(parts, axis=1)


def _upright(after: Values, env: Any) -> NDArray[np.bool_]:
    height, angle = after["qpos"][:, 1], after["qpos"][:, 2]
    return _within(height, env._healthy_z_range) & _within(angle, env._healthy_angle_range)


def _always(after: Values) -> NDArray[np.bool_]:
    return np.ones(len(after["qpos"]), dtype=np.bool_)


def _within(values: Array, bounds: tuple[float, float]) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (bounds[0] < values) & (values < bounds[1])
    return inside


def _norm(vectors: Array) -> Array:
    return np.sqrt(_squares(vectors))


def _squares(vectors: Array) -> Array:
    total: Array = np.square(vectors).sum(axis=-1)
    return total


def _flat(arrays: Array) -> Array:
    return arrays.reshape(len(arrays), -1)


_READOUTS: dict[str, Callable[[Any], Readout]] = {
    f"gymnasium.envs.mujoco.{name}": make
    for name, make in {
        "ant_v5.AntEnv": _ant,
        "half_cheetah_v5.HalfCheetahEnv": lambda env: _runner(env, 1, _always),
        "hopper_v5.HopperEnv": _hopper,
        "humanoid_v5.HumanoidEnv": _humanoid,
        "humanoidstandup_v5.HumanoidStandupEnv": _humanoid_standup,
        "inverted_double_pendulum_v5.InvertedDoublePendulumEnv": _inverted_double_pendulum,
        "inverted_pendulum_v5.InvertedPendulumEnv": _inverted_pendulum,
        "pusher_v5.PusherEnv": _pusher,
        "reacher_v5.ReacherEnv": _reacher,
        "swimmer_v5.SwimmerEnv": lambda env: _runner(env, 2, _always),
        "walker2d_v5.Walker2dEnv": lambda env: _runner(env, 1, lambda after: _upright(after, env)),
    }.items()
}
