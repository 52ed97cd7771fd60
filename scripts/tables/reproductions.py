"""The experiments of ``docs/results.md``, as data: what is trained, and what it is to reach.

``python scripts/reproduce.py NAME`` runs one of them.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, final

from pgtoolkit.scripts.cli.presets import find_preset

SLM_LAB = "SLM-Lab, docs/BENCHMARKS.md, March 2026: mean training return"
VALIDATION = (
    "gymnasium-mujuco-v5-envs-validation, March 2024: Stable-Baselines3 2.0.0a5, defaults, 10 seeds"
)
ZOO = "rl-baselines3-zoo: one run, deterministic, an older version of the environment"
RL_GAMES = "rl_games 2.0: 3 seeds, mean training return"

BarOn = Literal["every seed", "mean"]

TEN, FIVE, THREE = tuple(range(10)), tuple(range(5)), tuple(range(3))

OWN_SUITE = (
    "Pendulum",
    "CartPoleSwingUp",
    "AcrobotSwingUp",
    "DoublePendulum",
    "PointMass",
    "MountainCarContinuous",
    "ReacherTwoLink",
    "PusherFriction",
    "PlanarQuadrotor",
    "Quadrotor",
    "Hopper2D",
    "LQG",
)
"""The environments of this package whose reward has a gradient."""


@final
class Published(NamedTuple):
    """A number that somebody else has published for the same environment."""

    text: str
    """Agent, return and steps."""
    source: str


@final
class Bar(NamedTuple):
    """What an experiment is to reach."""

    least_return: float
    on: BarOn
    """Whether every seed must reach it, or their mean."""
    most_cpu_seconds: float | None = None
    """CPU seconds of a run's training, at most, on every seed."""


@final
class Experiment(NamedTuple):
    """An agent on an environment, with its settings."""

    agent: str
    env: str
    total_steps: int
    seeds: tuple[int, ...]
    bar: Bar | None = None
    published: Published | None = None
    settings: Mapping[str, Any] = {}
    """Settings of `pgtoolkit train` that differ from the agent's defaults."""


SUITE_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "reppo": {},
    "shac": {},
    "sapo": {},
    "ahac": {},
    "ppo": {"num_envs": 64, "n_steps": 32, "batch_size": 256},
}
"""The agents of the suite's table; ppo with the windows of shac."""

SUITE_BARS = {("reppo", "Hopper2D"): Bar(328, "mean")}

LONG = "-2M"
"""End of the names of the suite's experiments with 2,000,000 steps."""


def suite() -> dict[str, Experiment]:
    """Every agent of the suite's table on every environment of this package, with its preset.

    The two that use no gradient of the environment have longer runs too: it is measured in how few
    of their steps the others reach where they end.
    """
    short = {
        f"suite-{env}-{agent}": Experiment(
            agent,
            f"pgtoolkit/{env}-v0",
            300_000,
            FIVE,
            bar=SUITE_BARS.get((agent, env)),
            settings={**settings, **preset(agent, f"pgtoolkit/{env}-v0")},
        )
        for env in OWN_SUITE
        for agent, settings in SUITE_SETTINGS.items()
    }
    long = {
        f"suite-{env}-{agent}{LONG}": short[f"suite-{env}-{agent}"]._replace(
            total_steps=2_000_000, seeds=THREE, bar=None
        )
        for env in OWN_SUITE
        for agent in ("ppo", "reppo")
    }
    return short | long


def preset(agent: str, env: str) -> Mapping[str, Any]:
    """The settings with which `pgtoolkit train` starts for them: none where there is no file."""
    found = find_preset("auto", agent, env)
    return {} if found is None else found.settings


TWINS = ("pendulum-reppo", "halfcheetah-reppo", "hopper-reppo")
"""Experiments that are made by the other two gradients too, with all else equal."""

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "hl-gauss": {"critic": "hl_gauss", "num_bins": 51},
    "mask": {"kl_constraint": "mask"},
    "last-policy": {"policy_average": 0.0},
    "falling-rates": {"learning_rate_schedule": "linear"},
    "long-windows": {"n_steps": 128},
}
"""Choices of reppo's defaults that are taken back one at a time, on the twins' environments."""

ONCE: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("pendulum-reppo", "six-epochs"): {"gamma": 0.99, "n_epochs": 6, "layer_norm": True},
    ("pendulum-reppo", "short-horizon"): {
        "gamma": 0.95,
        "gae_lambda": 0.95,
        "n_epochs": 6,
        "layer_norm": True,
    },
    ("mountain-car-sac", "long-horizon"): {"gamma": 0.9999},
    ("lunar-lander-reppo", "windows-of-64"): {
        "num_envs": 16,
        "n_steps": 64,
        "gae_lambda": 0.95,
        "ent_coef_gain": 0.0,
    },
    ("lunar-lander-reppo", "sixteen-environments"): {"num_envs": 16},
    ("ant-reppo", "sixteen-environments"): {"num_envs": 16, "batch_size": 64},
    ("halfcheetah-sac", "hundred-random-steps"): {"learning_starts": 100},
    ("cartpole-a2c", "normalized-observations"): {"normalize_observations": True},
    ("cartpole-a2c", "normalized-rewards"): {
        "normalize_observations": True,
        "normalize_rewards": True,
        "n_steps": 8,
        "learning_rate": 1e-3,
    },
}
"""Settings that an experiment had before, or that were tried; their results stay beside those of
now."""

SAPO_ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "entropy-in-return": {"entropy_in_value": False},
    "entropy-in-value": {"entropy_in_return": False},
    "no-entropy": {"entropy_in_return": False, "entropy_in_value": False},
}
"""Where sapo's entropy counts, one place at a time, on an environment of stiff contacts."""

EXPERIMENTS: dict[str, Experiment] = {
    "pendulum-reppo": Experiment(
        "reppo",
        "Pendulum-v1",
        100_000,
        TEN,
        bar=Bar(-160, "every seed", most_cpu_seconds=20),
        published=Published("PPO -172 at 100k", ZOO),
        settings=preset("reppo", "Pendulum-v1"),
    ),
    "pendulum-sac": Experiment(
        "sac",
        "Pendulum-v1",
        20_000,
        TEN,
        bar=Bar(-155, "mean"),
        published=Published("SAC -157 at 20k", ZOO),
    ),
    "pendulum-td3": Experiment(
        "td3",
        "Pendulum-v1",
        20_000,
        TEN,
        bar=Bar(-155, "mean"),
        published=Published("TD3 -152 at 20k", ZOO),
    ),
    "pendulum-svg": Experiment("svg", "Pendulum-v1", 20_000, TEN, bar=Bar(-170, "mean")),
    "halfcheetah-reppo": Experiment(
        "reppo",
        "HalfCheetah-v5",
        400_000,
        TEN,
        bar=Bar(4500, "mean", most_cpu_seconds=120),
        published=Published("PPO 6241 at 10M", SLM_LAB),
        settings=preset("reppo", "HalfCheetah-v5"),
    ),
    "halfcheetah-ppo": Experiment(
        "ppo",
        "HalfCheetah-v5",
        1_000_000,
        THREE,
        bar=Bar(3500, "mean"),
        published=Published("PPO 3517 ± 1169 at 1M", "FlashSAC's runs, v4"),
        settings=preset("ppo", "HalfCheetah-v5"),
    ),
    "swimmer-ppo": Experiment(
        "ppo",
        "Swimmer-v5",
        1_000_000,
        THREE,
        bar=Bar(280, "mean"),
        published=Published("PPO 281.6 ± 9.7 at 1M", ZOO),
        settings=preset("ppo", "Swimmer-v5"),
    ),
    "halfcheetah-sac": Experiment(
        "sac",
        "HalfCheetah-v5",
        1_000_000,
        THREE,
        bar=Bar(9000, "mean"),
        published=Published("SAC 11140 ± 665 at 1M", RL_GAMES),
        settings=preset("sac", "HalfCheetah-v5"),
    ),
    "hopper-reppo": Experiment(
        "reppo",
        "Hopper-v5",
        1_000_000,
        TEN,
        bar=Bar(2714, "mean"),
        published=Published("PPO 2714 ± 594 at 1M", VALIDATION),
        settings=preset("reppo", "Hopper-v5"),
    ),
    "ant-reppo": Experiment(
        "reppo",
        "Ant-v5",
        1_000_000,
        FIVE,
        bar=Bar(1835, "mean"),
        published=Published("PPO 1412 ± 329 at 1M, 1835 ± 439 at 2M", VALIDATION),
        settings=preset("reppo", "Ant-v5"),
    ),
    "walker2d-reppo": Experiment(
        "reppo",
        "Walker2d-v5",
        1_000_000,
        FIVE,
        bar=Bar(3500, "mean"),
        published=Published("PPO 4379 at 10M", SLM_LAB),
    ),
    "walker2d-ppo": Experiment(
        "ppo",
        "Walker2d-v5",
        1_000_000,
        THREE,
        bar=Bar(3000, "mean"),
        published=Published("PPO 4379 at 10M", SLM_LAB),
        settings=preset("ppo", "Walker2d-v5"),
    ),
    "inverted-double-pendulum-reppo": Experiment(
        "reppo",
        "InvertedDoublePendulum-v5",
        300_000,
        TEN,
        bar=Bar(9200, "mean"),
        published=Published("TD3 8392 ± 2941 at 400k", VALIDATION),
    ),
    "reacher-reppo": Experiment(
        "reppo",
        "Reacher-v5",
        1_000_000,
        FIVE,
        bar=Bar(-5.0, "mean"),
        published=Published("TD3 -5.03 ± 0.24 at 200k", VALIDATION),
    ),
    "reacher-shac": Experiment(
        "shac",
        "Reacher-v5",
        500_000,
        THREE,
        bar=Bar(-4.2, "mean"),
        published=Published("TD3 -5.03 ± 0.24 at 200k", VALIDATION),
    ),
    "pusher-reppo": Experiment(
        "reppo",
        "Pusher-v5",
        1_000_000,
        FIVE,
        bar=Bar(-35, "mean"),
        published=Published("TD3 -45.1 ± 7.7 at 200k", VALIDATION),
    ),
    "lunar-lander-sac": Experiment(
        "sac",
        "LunarLanderContinuous-v3",
        300_000,
        FIVE,
        bar=Bar(260, "mean"),
        published=Published("CrossQ 268.9 at 300k, SAC 125.0", SLM_LAB),
    ),
    "lunar-lander-reppo": Experiment(
        "reppo",
        "LunarLanderContinuous-v3",
        500_000,
        TEN,
        bar=Bar(250, "mean"),
        published=Published("PPO 132.6 at 300k", SLM_LAB),
        settings=preset("reppo", "LunarLanderContinuous-v3"),
    ),
    "bipedal-walker-reppo": Experiment(
        "reppo",
        "BipedalWalker-v3",
        1_000_000,
        FIVE,
        bar=Bar(290, "mean"),
        published=Published("PPO 287.9 at 5M", ZOO),
    ),
    "mountain-car-sac": Experiment(
        "sac",
        "MountainCarContinuous-v0",
        50_000,
        TEN,
        bar=Bar(93, "mean"),
        published=Published("SAC 94.7 at 50k", ZOO),
        settings=preset("sac", "MountainCarContinuous-v0"),
    ),
    "mountain-car-ppo": Experiment(
        "ppo",
        "MountainCarContinuous-v0",
        100_000,
        TEN,
        bar=Bar(88, "mean"),
        published=Published("PPO 88.3 at 20k", ZOO),
        settings=preset("ppo", "MountainCarContinuous-v0"),
    ),
    "cartpole-ppo": Experiment(
        "ppo",
        "CartPole-v1",
        100_000,
        TEN,
        bar=Bar(500, "mean"),
        published=Published("PPO 500 at 100k", ZOO),
    ),
    "cartpole-npg": Experiment("npg", "CartPole-v1", 100_000, TEN, bar=Bar(500, "mean")),
    "cartpole-trpo": Experiment(
        "trpo",
        "CartPole-v1",
        100_000,
        TEN,
        bar=Bar(500, "mean"),
        published=Published("TRPO 500 at 100k", ZOO),
    ),
    "cartpole-reinforce": Experiment(
        "reinforce",
        "CartPole-v1",
        200_000,
        TEN,
        bar=Bar(475, "mean"),
        published=Published("REINFORCE 483.3 at 200k", SLM_LAB),
    ),
    "cartpole-a2c": Experiment(
        "a2c",
        "CartPole-v1",
        200_000,
        TEN,
        published=Published("A2C 496.7 at 200k", SLM_LAB),
        settings=preset("a2c", "CartPole-v1"),
    ),
    "pendulum-ppo": Experiment(
        "ppo",
        "Pendulum-v1",
        100_000,
        TEN,
        bar=Bar(-180, "mean"),
        published=Published("PPO -172 at 100k", ZOO),
        settings=preset("ppo", "Pendulum-v1"),
    ),
    "own-pendulum-apg": Experiment("apg", "pgtoolkit/Pendulum-v0", 300_000, FIVE),
    **suite(),
}
"""Name to experiment."""


def varied(name: str, settings: Mapping[str, Any]) -> Experiment:
    """An experiment with these settings more, and nothing that it is to reach."""
    given = EXPERIMENTS[name]
    return given._replace(bar=None, settings={**given.settings, **settings})


EXPERIMENTS |= {
    f"{name}-{estimator.replace('_', '-')}": varied(name, {"estimator": estimator})
    for name in TWINS
    for estimator in ("score_function", "mixed")
}
EXPERIMENTS |= {
    f"{name}-{ablation}": varied(name, settings)
    for name in TWINS
    for ablation, settings in ABLATIONS.items()
}
EXPERIMENTS |= {f"{name}-{kind}": varied(name, settings) for (name, kind), settings in ONCE.items()}
EXPERIMENTS |= {
    f"suite-Hopper2D-sapo-{ablation}": varied("suite-Hopper2D-sapo", settings)
    for ablation, settings in SAPO_ABLATIONS.items()
}
EXPERIMENTS["halfcheetah-reppo-hl-gauss"] = varied(
    "halfcheetah-reppo-long-windows", ABLATIONS["hl-gauss"]
)
