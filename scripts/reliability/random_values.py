"""Values for command-line options: useful ones, extreme ones, and text that is no value at all."""

import random
import re
from collections.abc import Callable, Sequence

SMALL = ("0", "-0", "1", "-1", "2", "3", "7", "0.5", "1.5")

HUGE = (
    "65536",
    "2147483647",
    "2147483648",
    "100000000",
    "9223372036854775807",
    "9223372036854775808",
    "9" * 23,
    "9" * 5000,
    "-" + "9" * 23,
)

FLOATS = ("1e400", "-1e400", "nan", "inf", "-inf", "1e-400", "1e308", "-1e308", "1e-45", "1e9")

NO_NUMBERS = (
    "1_0",
    "0x10",
    "\u0663",
    "\uff11",
    "",
    " ",
    "x",
    "None",
    "True",
    "[]",
    "1,2",
    "--",
    "-",
)

TEXTS = (
    "",
    " ",
    "x",
    "\u00e9\u2603",
    "\u202e",
    "a" * 3000,
    "a b " * 1000,
    "\n",
    "one\ntwo\nthree\nfour\nfive",
    "\r\x1b[31m",
    "%s%n%d",
    "$(id)",
    "{}",
    "{0}",
    "\ud800",
    "nul\0byte",
    "../..",
    "/dev/null",
    "/dev/full",
    "/",
    ".",
    "~",
    "nan",
    "None",
    "--help",
    ":",
    "a:b:c",
)

ENVS = (
    "pgtoolkit/PointMass-v0",
    "pgtoolkit/Wall-v0",
    "pgtoolkit/LQG-v0",
    "pgtoolkit/Pendulum-v0",
    "pgtoolkit/Hopper2D-v0",
    "pgtoolkit/Nope-v0",
    "pgtoolkit/Pendulum-v9",
    "CartPole-v1",
    "Pendulum-v1",
    "Pendulum",
    "InvertedPendulum-v5",
    "FrozenLake-v1",
    "Blackjack-v1",
    "Taxi-v3",
    "CarRacing-v3",
    "ALE/Pong-v5",
    "GymV21Environment-v0",
    "phys2d/CartPole-v1",
    "tabular/Blackjack-v0",
    "json:X-v0",
    "os:system-v0",
    "gymnasium:",
    "no_such_file.py:X",
    "file.py",
    "envs_of_mine.py:Sound",
    "envs_of_mine.py:RaisesTypeError",
    "envs_of_mine.py:RaisesValueError",
    "envs_of_mine.py:WantsNumber",
    "envs_of_mine.py:Nothing",
    "envs_of_mine.py",
)

OUTPUTS = (
    "out.json",
    "out.png",
    "out.gif",
    "out.pdf",
    "no/such/folder/out.png",
    "no/such/folder/out.json",
    "new_run",
    "run/config.yaml",
    "run",
)

JSON_TEXTS = (
    "{}",
    "[]",
    "null",
    "1",
    "1" * 5000,
    "{",
    "",
    "1e400",
    "{" * 5000,
    '{"a":' * 5000,
    "[" * 5000 + "]" * 5000,
    '{"a": 1}',
    '{"a": 1, "a": 2}',
    '{"g": 9.8, "g": 1.0}',
    '{"\\ud800": 1}',
    '{"g": "\\ud800"}',
    '{"g": 1e308}',
    '{"g": NaN}',
    '{"g": Infinity}',
    '{"g": 1e400}',
    '{"g": "x"}',
    '{"g": null}',
    '{"g": [1]}',
    '{"g": true}',
    '{"g": 12.0}',
    '{"' + "a" * 3000 + '": 1}',
    '{"self": 1}',
    '{"env": 1}',
    '{"id": "x"}',
    '{"make": 1}',
    '{"config": {}}',
    '{"render_mode": "human"}',
    '{"render_mode": 5}',
    '{"disable_env_checker": 3}',
    '{"max_episode_steps": 0}',
    '{"max_episode_steps": -1}',
    '{"max_episode_steps": 1.5}',
    '{"max_episode_steps": "x"}',
    '{"max_episode_steps": 1e400}',
    '{"max_episode_steps": 3}',
    '{"dt": NaN}',
    '{"dt": "x"}',
    '{"dt": null}',
    '{"horizon": 0}',
    '{"horizon": 3}',
    '{"horizon": 2.5}',
    '{"horizon": 1e9}',
    '{"horizon": 1000000000}',
    '{"horizon": -3}',
    '{"A": [[1, 2]], "B": 1}',
    '{"A": "x"}',
    '{"A": {}}',
    '{"A": [[1, "x"]]}',
    '{"A": [[1], [2, 3]]}',
    '{"A": true}',
    '{"W": -1}',
    '{"gamma": 2}',
    '{"friction": "x"}',
    '{"waypoints": 3}',
    '{"waypoints": [[1]]}',
    '{"waypoints": "ab"}',
    '{"waypoints": []}',
    '{"number": 3}',
    '{"number": "x"}',
    '{"start": "x"}',
    '{"frame_skip": "x"}',
    '{"frame_skip": 0}',
    '{"step": 0}',
    '{"step": "x"}',
    '{"step": -1}',
    '{"step": 1e-3}',
    '{"tolerance": "x"}',
    '{"tolerance": -1}',
    '{"seed": -1}',
    '{"seed": 1.5}',
    '{"seed": 1e400}',
    '{"hidden": [0]}',
    '{"hidden": 8}',
    '{"hidden": ["x"]}',
    '{"hidden": [100000000]}',
    '{"ensemble_size": 0}',
    '{"ensemble_size": "x"}',
    '{"ensemble_size": 100000000}',
    '{"initial_steps": 10, "initial_fit_steps": 1, "hidden": [4]}',
    '{"capacity": 1000000000000}',
    '{"learning_rate": "x"}',
    '{"GradientGate": {}}',
    '{"GradientGate": []}',
    '{"GradientGate": {"clip_norm": -1}}',
    '{"GradientGate": {"clip_norm": "x"}}',
    '{"GradientGate": {"clip_norm": NaN}}',
    '{"GradientGate": {"clip_norm": 1, "decay": 2}}',
    '{"GradientGate": {"drop_nonfinite": "x"}}',
    '{"ActionRepeat": {}}',
    '{"ActionRepeat": {"repeat": 0}}',
    '{"ActionRepeat": {"repeat": 2}}',
    '{"ActionRepeat": {"repeat": 1.5}}',
    '{"ActionRepeat": {"repeat": "x"}}',
    '{"ActionRepeat": {"repeat": 1e9}}',
    '{"ActionRepeat": {"repeat": 1000000000}}',
    '{"SmoothingBundle": {"branches": 2, "action_std": 0.1}}',
    '{"SmoothingBundle": {"branches": 0, "action_std": 0.1}}',
    '{"SmoothingBundle": {"branches": 1000000000, "action_std": 0.1}}',
    '{"SmoothingBundle": {"branches": 2, "action_std": "x"}}',
    '{"SmoothingBundle": {"branches": 2, "action_std": -1}}',
    '{"SmoothingBundle": {"branches": 2, "action_std": 1e400}}',
    '{"SurrogateCost": {}}',
    '{"SurrogateCost": {"surrogate": "x"}}',
    '{"SurrogateCost": {"surrogate": 3}}',
    '{"ObservationDetach": {}}',
    '{"ObservationDetach": {"x": 1}}',
    '{"TimeLimit": {"max_episode_steps": 5}}',
    '{"TimeLimit": {"max_episode_steps": "x"}}',
    '{"TimeLimit": {}}',
    '{"FrameStackObservation": {"stack_size": 3}}',
    '{"FrameStackObservation": {"stack_size": "x"}}',
    '{"FrameStackObservation": {"stack_size": 1000000000}}',
    '{"RescaleAction": {"min_action": "x", "max_action": 1}}',
    '{"ClipReward": {"min_reward": -1, "max_reward": 1}}',
    '{"ClipReward": {"min_reward": "x"}}',
    '{"TransformReward": {}}',
    '{"envs_of_mine.py:Wrap": {}}',
    '{"envs_of_mine.py:Wrap": {"number": "x"}}',
    '{"envs_of_mine.py:Sound": {}}',
    '{"X": {}}',
    '{"X": 1}',
    '{"": {}}',
    '{"os:system": {}}',
    '{"\u00e9": {}}',
)

Draw = Callable[[random.Random], list[str]]


def draw_value(flag: str, choices: Sequence[str], generator: random.Random) -> list[str]:
    """The words to give to an option: none, one or a few.

    Args:
        flag: the option, such as ``--env-kwargs``; its name says what kind of value is likely.
        choices: the values that its help lists; empty where there is no list.
        generator: draws.
    """
    if generator.random() < 0.1:
        return [generator.choice(TEXTS)]
    if choices and generator.random() < 0.7:
        return [generator.choice(choices)]
    return kind_of(flag)(generator)


def kind_of(flag: str) -> Draw:
    """What draws the value of an option of this name; numbers where the name says nothing."""
    name = flag.removeprefix("--")
    if re.search(r"kwargs|wrappers", name):
        return lambda generator: [generator.choice(JSON_TEXTS)]
    if name == "env":
        return lambda generator: [generator.choice(ENVS + TEXTS)]
    if re.search(r"^json$|video|plot|output|dir|config|file|html", name):
        return lambda generator: [generator.choice(OUTPUTS + TEXTS)]
    return draw_numbers


def draw_numbers(generator: random.Random) -> list[str]:
    """Mostly one number, now and then none, or as many as a tuple takes."""
    count = generator.choice((1, 1, 1, 1, 1, 0, 2, 3))
    kinds = (SMALL, SMALL, HUGE, FLOATS, NO_NUMBERS)
    return [generator.choice(generator.choice(kinds)) for _ in range(count)]
