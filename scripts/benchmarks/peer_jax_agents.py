"""PPO and REPPO on Pendulum in idiomatic JAX: a window and its update compiled as a whole."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pgtoolkit.scripts.benchmarks.peer_jax import (
    pendulum_observation,
    pendulum_start,
    pendulum_step,
)
from pgtoolkit.scripts.benchmarks.timing import Run

TIME_LIMIT, GAMMA, LAMBDA = 200, 0.99, 0.95
OBS_SIZE, NUM_BINS, VALUE_RANGE = 3, 101, 100.0
ENTROPY_TARGET, KL_BOUND = -0.5, 0.1
HALF_LOG_2PI = 0.9189385332046727


class Rows(NamedTuple):
    """Steps of a window, ``[T, N, ...]`` or as rows of a batch."""

    obs: Any
    action: Any
    log_prob: Any
    mean: Any
    log_std: Any
    reward: Any
    next_obs: Any
    truncated: Any


class Learner(NamedTuple):
    """What differs between the agents."""

    policy: Callable[..., Any]
    """``(parameters, obs) -> (mean, log_std)`` ``[..., 1]``."""
    targets: Callable[..., Any]
    """``(parameters, rows, key) -> targets`` of the window, one row a step."""
    step: Callable[..., Any]
    """``(parameters, moments, rows, targets, key) -> (parameters, moments)`` of a minibatch."""


def ppo_run(num_envs: int, n_steps: int, n_epochs: int, batch_size: int, width: int) -> Run:
    """Clipped steps on standardised advantages, with a value function beside the policy."""
    keys = jax.random.split(jax.random.key(0), 2)
    parameters = {
        "policy": _layers(keys[0], OBS_SIZE, width, 1),
        "log_std": jnp.zeros(1),
        "value": _layers(keys[1], OBS_SIZE, width, 1),
    }
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(3e-4, eps=1e-5))

    def step(parameters: Any, moments: Any, rows: Rows, targets: Any, key: Any) -> Any:
        gradient = jax.grad(_ppo_loss)(parameters, rows, targets)
        change, moments = optimizer.update(gradient, moments, parameters)
        return optax.apply_updates(parameters, change), moments

    learner = Learner(_ppo_policy, _ppo_targets, step)
    carry = parameters, optimizer.init(parameters)
    return _run(learner, carry, num_envs, n_steps, n_epochs, batch_size)


def _ppo_policy(parameters: Any, obs: Any) -> Any:
    """Mean and log standard deviation ``[..., 1]``."""
    mean = _mlp(parameters["policy"], obs, jnp.tanh)
    return mean, jnp.broadcast_to(parameters["log_std"], mean.shape)


def _ppo_value(parameters: Any, obs: Any) -> Any:
    """``V(s)`` ``[...]``."""
    return _mlp(parameters["value"], obs, jnp.tanh)[..., 0]


def _ppo_targets(parameters: Any, rows: Rows, key: Any) -> Any:
    """Advantages and lambda returns ``[T, N]``."""
    target = _lambda_returns(rows, rows.reward, _ppo_value(parameters, rows.next_obs))
    return target - _ppo_value(parameters, rows.obs), target


def _ppo_loss(parameters: Any, rows: Rows, targets: Any) -> Any:
    """The clipped loss of the policy and half of the squared error of the values."""
    advantage, target = targets
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    mean, log_std = _ppo_policy(parameters, rows.obs)
    log_prob = _log_density(mean, log_std, rows.action)
    ratio = jnp.exp(log_prob - rows.log_prob)
    clipped = jnp.clip(ratio, 0.8, 1.2)
    surrogate = jnp.minimum(ratio * advantage, clipped * advantage).mean()
    return 0.5 * ((_ppo_value(parameters, rows.obs) - target) ** 2).mean() - surrogate


def reppo_run(num_envs: int, n_steps: int, n_epochs: int, batch_size: int, width: int) -> Run:
    """A critic with a histogram of values; a policy that climbs it within a bound on the KL."""
    keys = jax.random.split(jax.random.key(0), 2)
    actor = {
        "policy": _layers(keys[0], OBS_SIZE, width, 2),
        "log_alpha": jnp.log(0.3),
        "log_beta": jnp.log(0.3),
    }
    parameters = {"actor": actor, "critic": _layers(keys[1], OBS_SIZE + 1, width, NUM_BINS)}
    rules = {
        "actor": optax.chain(optax.clip_by_global_norm(15.0), optax.adam(3e-4)),
        "critic": optax.chain(optax.clip_by_global_norm(0.5), optax.adam(3e-4)),
    }
    moments = {name: rule.init(parameters[name]) for name, rule in rules.items()}
    learner = Learner(_reppo_policy, _reppo_targets, functools.partial(_reppo_step, rules))
    return _run(learner, (parameters, moments), num_envs, n_steps, n_epochs, batch_size)


def _reppo_step(
    rules: Any, parameters: Any, moments: Any, rows: Rows, targets: Any, key: Any
) -> Any:
    """A step of the critic, then one of the actor along the critic after its step."""
    after, kept = dict(parameters), dict(moments)
    losses = {
        "critic": lambda critic: _reppo_critic_loss(critic, rows, targets[0]),
        "actor": lambda actor: _reppo_actor_loss(actor, after["critic"], rows, key),
    }
    for name, loss in losses.items():
        gradient = jax.grad(loss)(after[name])
        change, kept[name] = rules[name].update(gradient, kept[name], after[name])
        after[name] = optax.apply_updates(after[name], change)
    return after, kept


def _reppo_policy(parameters: Any, obs: Any) -> Any:
    """Mean and log standard deviation ``[..., 1]``."""
    both = _mlp(parameters["actor"]["policy"], obs, jax.nn.silu, normed=True)
    mean, log_std = jnp.split(both, 2, -1)
    return mean, jnp.clip(log_std, -5, 2)


def _reppo_draw(parameters: Any, obs: Any, key: Any) -> Any:
    """Fresh actions before squashing ``[..., 1]``, and their log densities ``[...]``."""
    mean, log_std = _reppo_policy(parameters, obs)
    action = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
    return action, _log_density(mean, log_std, action)


def _reppo_targets(parameters: Any, rows: Rows, key: Any) -> Any:
    """Lambda returns ``[T, N]`` of soft rewards."""
    action, log_prob = _reppo_draw(parameters, rows.next_obs, key)
    alpha = jnp.exp(parameters["actor"]["log_alpha"])
    soft = rows.reward / 10 - GAMMA * alpha * log_prob
    return (_lambda_returns(rows, soft, _reppo_value(parameters["critic"], rows.next_obs, action)),)


def _reppo_critic_loss(critic: Any, rows: Rows, target: Any) -> Any:
    """Cross entropy to a Gaussian histogram around the target."""
    deviation = 0.75 * 2 * VALUE_RANGE / NUM_BINS
    clipped = jnp.clip(target, -VALUE_RANGE, VALUE_RANGE)[..., None]
    rank = jax.lax.erf((_bin_edges() - clipped) / (2**0.5 * deviation))
    mass = rank[..., 1:] - rank[..., :-1]
    histogram = mass / mass.sum(-1, keepdims=True)
    log_bins = jax.nn.log_softmax(_reppo_logits(critic, rows.obs, rows.action))
    return -(histogram * log_bins).sum(-1).mean()


def _reppo_actor_loss(actor: Any, critic: Any, rows: Rows, key: Any) -> Any:
    """The loss of the policy within the bound or beyond it, and those of the dual variables."""
    parameters = {"actor": actor}
    action, log_prob = _reppo_draw(parameters, rows.obs, key)
    kl = _gaussian_kl(rows, *_reppo_policy(parameters, rows.obs))
    alpha, beta = jnp.exp(actor["log_alpha"]), jnp.exp(actor["log_beta"])
    fixed_alpha, fixed_beta = jax.lax.stop_gradient((alpha, beta))
    climb = -(_reppo_value(critic, rows.obs, action) - fixed_alpha * log_prob)
    loss = jnp.where(kl < KL_BOUND, climb, fixed_beta * kl).mean()
    entropy_gap = jax.lax.stop_gradient(-log_prob.mean() - ENTROPY_TARGET)
    return loss + alpha * entropy_gap + beta * jax.lax.stop_gradient(KL_BOUND - kl.mean())


def _gaussian_kl(rows: Rows, mean: Any, log_std: Any) -> Any:
    """``KL(old, new)`` ``[...]`` of the Gaussians of one action."""
    ratio = jnp.exp(2 * (rows.log_std - log_std))
    shift = (rows.mean - mean) ** 2 / jnp.exp(2 * log_std)
    return (log_std - rows.log_std + 0.5 * (ratio + shift - 1))[..., 0]


def _reppo_value(critic: Any, obs: Any, action: Any) -> Any:
    """``Q(s, a)`` ``[...]``, the mean of the histogram."""
    edges = _bin_edges()
    return jax.nn.softmax(_reppo_logits(critic, obs, action)) @ (0.5 * (edges[1:] + edges[:-1]))


def _reppo_logits(critic: Any, obs: Any, action: Any) -> Any:
    """The logits of the bins, from actions before squashing."""
    inputs = jnp.concatenate([obs, jnp.tanh(action)], -1)
    return _mlp(critic, inputs, jax.nn.silu, normed=True)


def _bin_edges() -> Any:
    """The ends ``[NUM_BINS + 1]`` of the histogram's bins."""
    return jnp.linspace(-VALUE_RANGE, VALUE_RANGE, NUM_BINS + 1)


def _run(
    learner: Learner, carry: Any, num_envs: int, n_steps: int, n_epochs: int, batch_size: int
) -> Run:
    """One window and its epochs of minibatches in each call."""
    key = jax.random.key(1)
    start = pendulum_start(key, num_envs), jnp.zeros(num_envs, jnp.int32)
    carries = [(*carry, start, key)]

    def update(parameters: Any, moments: Any, envs: Any, key: Any) -> Any:
        key, for_window, for_targets, for_orders, for_steps = jax.random.split(key, 5)
        envs, rows = _collect(learner, parameters, envs, for_window, n_steps)
        targets = learner.targets(parameters, rows, for_targets)
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (rows, targets))
        size = num_envs * n_steps
        orders = [
            jax.random.permutation(part, size)[: size // batch_size * batch_size]
            for part in jax.random.split(for_orders, n_epochs)
        ]
        index = jnp.concatenate(orders).reshape(-1, batch_size)

        def minibatch(carry: Any, given: Any) -> Any:
            chosen, part = given
            rows, targets = jax.tree.map(lambda x: x[chosen], batch)
            return learner.step(*carry, rows, targets, part), None

        parts = jax.random.split(for_steps, len(index))
        (parameters, moments), _ = jax.lax.scan(minibatch, (parameters, moments), (index, parts))
        return parameters, moments, envs, key

    compiled = jax.jit(update)

    def run(index: int) -> None:
        carries[0] = compiled(*carries[0])
        jax.block_until_ready(carries[0])

    return run


def _collect(learner: Learner, parameters: Any, envs: Any, key: Any, n_steps: int) -> Any:
    """The environments after ``T`` steps, and the steps ``[T, N, ...]``."""

    def step(envs: Any, key: Any) -> Any:
        state, elapsed = envs
        for_noise, for_reset = jax.random.split(key)
        obs = pendulum_observation(state)
        mean, log_std = learner.policy(parameters, obs)
        action = mean + jnp.exp(log_std) * jax.random.normal(for_noise, mean.shape)
        after, reward = pendulum_step(state, 2 * jnp.tanh(action)[:, 0])
        log_prob = _log_density(mean, log_std, action)
        truncated = elapsed + 1 >= TIME_LIMIT
        next_obs = pendulum_observation(after)
        rows = Rows(obs, action, log_prob, mean, log_std, reward, next_obs, truncated)
        fresh = pendulum_start(for_reset, len(state))
        after = jnp.where(truncated[:, None], fresh, after)
        return (after, jnp.where(truncated, 0, elapsed + 1)), rows

    return jax.lax.scan(step, envs, jax.random.split(key, n_steps))


def _lambda_returns(rows: Rows, reward: Any, next_value: Any) -> Any:
    """TD(lambda) returns ``[T, N]``; a time limit cuts the sum and keeps the value."""

    def step(following: Any, given: Any) -> Any:
        reward, value, truncated = given
        mixed = (1 - LAMBDA) * value + LAMBDA * following
        found = reward + GAMMA * jnp.where(truncated, value, mixed)
        return found, found

    given = reward, next_value, rows.truncated
    return jax.lax.scan(step, next_value[-1], given, reverse=True)[1]


def _log_density(mean: Any, log_std: Any, action: Any) -> Any:
    """Of a diagonal Gaussian ``[...]``."""
    z = (action - mean) / jnp.exp(log_std)
    return -(0.5 * z**2 + log_std + HALF_LOG_2PI).sum(-1)


def _layers(key: Any, inputs: int, width: int, outputs: int) -> Any:
    """Random weights and zero biases of two hidden layers and an output."""
    sizes = ((inputs, width), (width, width), (width, outputs))
    keys = jax.random.split(key, len(sizes))
    return [
        (jax.random.normal(k, size) / size[0] ** 0.5, jnp.zeros(size[1]))
        for k, size in zip(keys, sizes, strict=True)
    ]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _mlp(layers: Any, x: Any, activation: Any, normed: bool = False) -> Any:
    """Hidden layers with the activation, with a LayerNorm after it if ``normed``."""
    for weight, bias in layers[:-1]:
        x = activation(x @ weight + bias)
        if normed:
            x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    weight, bias = layers[-1]
    return x @ weight + bias
