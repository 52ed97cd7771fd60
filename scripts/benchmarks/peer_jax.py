"""Pendulum and CartPole in idiomatic JAX: all steps in one scan, compiled as a whole."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgtoolkit.scripts.benchmarks.timing import Run

HIDDEN = 64


def pathwise_run(num_envs: int, num_steps: int) -> Run:
    """Gradient of Pendulum's rewards by the parameters of a 64x64 tanh policy, clip and Adam.

    Args:
        num_envs: ``N``.
        num_steps: the horizon.
    """
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))
    key = jax.random.key(0)
    parameters = _network(key)
    carry = [parameters, optimizer.init(parameters), pendulum_start(key, num_envs), key]

    def update(parameters: Any, moments: Any, state: Any, key: Any) -> Any:
        key, part = jax.random.split(key)
        noise = jax.random.normal(part, (num_steps, num_envs, 1))
        gradient, state = jax.grad(_loss, has_aux=True)(parameters, state, noise)
        change, moments = optimizer.update(gradient, moments, parameters)
        return optax.apply_updates(parameters, change), moments, state, key

    compiled = jax.jit(update)

    def run(index: int) -> None:
        carry[:] = compiled(*carry)
        jax.block_until_ready(carry)

    return run


def _network(key: Any) -> Any:
    """Random parameters of the 64x64 policy."""
    sizes = ((3, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 1))
    keys = jax.random.split(key, len(sizes))
    layers = [
        (jax.random.normal(k, size) / size[0] ** 0.5, jnp.zeros(size[1]))
        for k, size in zip(keys, sizes, strict=True)
    ]
    return {"layers": layers, "log_std": jnp.zeros(1)}


def _loss(parameters: Any, state: Any, noise: Any) -> Any:
    """Minus the mean sum of rewards of a rollout, and its last state."""

    def step(state: Any, noise: Any) -> Any:
        x = pendulum_observation(state)
        for weight, bias in parameters["layers"][:-1]:
            x = jnp.tanh(x @ weight + bias)
        weight, bias = parameters["layers"][-1]
        pre_action = x @ weight + bias + jnp.exp(parameters["log_std"]) * noise
        return pendulum_step(state, 2 * jnp.tanh(pre_action)[:, 0])

    state, reward = jax.lax.scan(step, state, noise)
    return -reward.sum(0).mean(), state


def pendulum_start(key: Any, num_envs: int) -> Any:
    """Random start states ``[N, 2]``: angles and angular velocities."""
    unit = jax.random.uniform(key, (num_envs, 2), minval=-1, maxval=1)
    return unit * jnp.array([jnp.pi, 1.0])


def pendulum_observation(state: Any) -> Any:
    """Observation ``[N, 3]`` of a state ``[N, 2]``."""
    return jnp.stack([jnp.cos(state[:, 0]), jnp.sin(state[:, 0]), state[:, 1]], -1)


def pendulum_step(state: Any, torque: Any) -> Any:
    """Next state ``[N, 2]`` and reward ``[N]`` by the equations of Gymnasium's Pendulum-v1."""
    angle, speed = state[:, 0], state[:, 1]
    torque = jnp.clip(torque, -2, 2)
    wrapped = jnp.mod(angle + jnp.pi, 2 * jnp.pi) - jnp.pi
    reward = -(wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2)
    speed = jnp.clip(speed + (15 * jnp.sin(angle) + 3 * torque) * 0.05, -8, 8)
    return jnp.stack([angle + speed * 0.05, speed], -1), reward


def pendulum_run(actions: Any) -> Run:
    """``T`` steps of ``N`` Pendulums from fresh start states, in one scan.

    Args:
        actions: NumPy array ``[T, N, 1]``.
    """
    given = jnp.asarray(actions)

    def episode(key: Any) -> Any:
        def step(state: Any, action: Any) -> Any:
            state, reward = pendulum_step(state, action[:, 0])
            return state, (pendulum_observation(state), reward)

        return jax.lax.scan(step, pendulum_start(key, given.shape[1]), given)[1]

    return _repeated(jax.jit(episode))


def cart_pole_run(actions: Any) -> Run:
    """``T`` steps of ``N`` CartPoles in one scan; an ended episode is reset in the same step.

    Args:
        actions: NumPy array ``[T, N, 1]``.
    """
    given = jnp.asarray(actions)
    num_envs = given.shape[1]

    def fresh(key: Any) -> Any:
        return jax.random.uniform(key, (num_envs, 4), minval=-0.05, maxval=0.05)

    def steps(key: Any) -> Any:
        def step(carry: Any, action: Any) -> Any:
            state, elapsed, key = carry
            state, terminated = _cart_pole_step(state, 10 * jnp.clip(action[:, 0], -1, 1))
            truncated = elapsed + 1 >= 500
            done, (key, part) = terminated | truncated, jax.random.split(key)
            state = jnp.where(done[:, None], fresh(part), state)
            elapsed = jnp.where(done, 0, elapsed + 1)
            return (state, elapsed, key), (state, jnp.ones(num_envs), terminated, truncated)

        begin = fresh(key), jnp.zeros(num_envs, jnp.int32), key
        return jax.lax.scan(step, begin, given)[1]

    return _repeated(jax.jit(steps))


def _cart_pole_step(state: Any, force: Any) -> Any:
    """Next state ``[N, 4]`` of Gymnasium's CartPole-v1, and whether it is terminal ``[N]``."""
    _, x_dot, theta, theta_dot = state.T
    sine, cosine = jnp.sin(theta), jnp.cos(theta)
    push = (force + 0.05 * theta_dot**2 * sine) / 1.1
    theta_acc = (9.8 * sine - cosine * push) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
    x_acc = push - 0.05 * theta_acc * cosine / 1.1
    state = state + 0.02 * jnp.stack([x_dot, x_acc, theta_dot, theta_acc], -1)
    return state, (jnp.abs(state[:, 0]) > 2.4) | (jnp.abs(state[:, 2]) > 12 * np.pi / 180)


def _repeated(function: Any) -> Run:
    """Calls the compiled function with a new random key each time."""
    keys = [jax.random.key(0)]

    def run(index: int) -> None:
        keys[0], part = jax.random.split(keys[0])
        jax.block_until_ready(function(part))

    return run
