"""Words of a command line, and JSON in them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli import main as cli
from pgtoolkit.scripts.cli.arguments import parse_json_object
from pgtoolkit.scripts.cli.text import require_text

ROOT = Path(__file__).parents[3]

REFUSED = {
    ("--run-dir", ""): "--run-dir is empty",
    ("--json", " "): "--json is empty",
    ("--plot=",): "--plot is empty",
    ("",): "an argument is empty",
    ("run", ""): "an argument is empty",
    ("\udcff",): "not text",
    ("a\0b",): "NUL",
    ("\u0663",): "digits 0 to 9",
    ("1_000",): "digits 0 to 9",
    ("-\uff11.5e3",): "digits 0 to 9",
}


@pytest.mark.parametrize("words", REFUSED)
def test_words_that_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(RequestError, match=REFUSED[words]):
        require_text(words)


def test_other_words_are_not_judged() -> None:
    require_text(["train", "--env", "é☃", "--env-kwargs={}", "-1.5e-3", "_", "a_1", "--hidden"])


JSON_REFUSED = {
    "{": "not JSON",
    "{" * 5000: "not JSON",
    '{"a":' * 5000: "nested too deeply",
    '{"a":' * 50 + "1" + "}" * 50: "nested too deeply",
    '{"a": 1, "a": 2}': "'a' is there twice",
    '{"a": NaN}': "NaN",
    '{"a": "\\ud800"}': "not JSON",
    '{"a": ' + "1" * 5000 + "}": "not JSON",
    "[1]": "must be a JSON object",
}


@pytest.mark.parametrize("text", JSON_REFUSED, ids=lambda text: text[:20])
def test_json_that_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=JSON_REFUSED[text]) as caught:
        parse_json_object(text, "--env-kwargs")
    assert str(caught.value).startswith("--env-kwargs ")


def test_json_that_is_read() -> None:
    """Infinity is a bound that some arguments may have."""
    found = parse_json_object('{"a": [1, {"b": -Infinity}], "c": "é"}', "--env-kwargs")
    assert found == {"a": [1, {"b": float("-inf")}], "c": "é"}


PENDULUM = ["train", "shac", "--env", "pgtoolkit/Pendulum-v0"]
DIFFERENCES = ["train", "shac", "--env", "Pendulum-v1", "--differentiate", "finite-difference"]

WRONG: dict[str, tuple[list[str], str]] = {
    "empty run folder": (["train", "shac", "--env", "X", "--run-dir", ""], "--run-dir is empty"),
    "empty run": (["evaluate", ""], "is empty"),
    "threads": (["train", "shac", "--env", "X", "--threads", "2147483648"], "at most 1,024"),
    "steps": (["train", "shac", "--env", "X", "--total-steps", "9" * 20], "--total-steps"),
    "environments": (
        ["train", "shac", "--env", "pgtoolkit/Pendulum-v0", "--num-envs", "100000000"],
        "GB of memory",
    ),
    "Python environments": (
        ["train", "ppo", "--env", "CartPole-v1", "--num-envs", "100000000"],
        "--num-envs",
    ),
    "probe environments": (
        ["train", "sac", "--env", "pgtoolkit/Pendulum-v0", "--probe-envs", "100000000"],
        "make --probe-envs or --probe-steps smaller",
    ),
    "probe steps": (
        ["train", "reppo", "--env", "pgtoolkit/Pendulum-v0", "--probe-steps", "1000000000"],
        "make --probe-envs or --probe-steps smaller",
    ),
    "hidden": (
        ["train", "ppo", "--env", "pgtoolkit/Pendulum-v0", "--hidden", "65000", "65000"],
        "make --hidden smaller",
    ),
    "epochs": (
        ["train", "ppo", "--env", "pgtoolkit/Pendulum-v0", "--n-epochs", "1000000000"],
        "--n-epochs",
    ),
    "trajectories": (
        [
            "variance",
            "--env",
            "pgtoolkit/Pendulum-v0",
            "--trajectories",
            "100000",
            "--horizons",
            "100000",
        ],
        "--trajectories or --horizons smaller",
    ),
    "wrapper": (
        [
            "train",
            "shac",
            "--env",
            "pgtoolkit/Pendulum-v0",
            "--wrappers",
            '{"ActionRepeat": {"repeat": 1.5}}',
        ],
        "ActionRepeat's repeat is 1.5: it must be an integer",
    ),
    "environment's argument": (
        ["train", "shac", "--env", "pgtoolkit/Pendulum-v0", "--env-kwargs", '{"g": "x"}'],
        "Pendulum's g is 'x': it must be a number",
    ),
    "adapter's argument": (
        [
            "train",
            "shac",
            "--env",
            "Pendulum-v1",
            "--differentiate",
            "finite-difference",
            "--adapter-kwargs",
            '{"tolerance": "x"}',
        ],
        "tolerance is 'x': it must be a number",
    ),
    "long text": (["train", "shac", "--env", "a" * 3000], "[...]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_one_short_line(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, advice = WRONG[name]
    with pytest.raises(SystemExit) as caught:
        cli.run_command(lambda words: cli.dispatch(words[0], words[1:]), arguments)
    message = capsys.readouterr().err
    assert caught.value.code == 2 and advice in message
    assert message.count("\n") == 1 and len(message) < 1600
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["train", "shac", "--help"],
        ["list"],
        ["train", "shac", "--env", "\u00e9\u2603"],
        ["variance", "--env", "pgtoolkit/Wall-v0", "--horizons", "2", "--trajectories", "20"],
        ["check-env", "pgtoolkit/Wall-v0", "--seconds", "0.05", "--samples", "4"],
    ],
    ids=lambda command: command[0],
)
def test_a_locale_without_utf8_loses_no_text(command: list[str]) -> None:
    """Under the C locale stdout and stderr are ASCII: other characters are escaped."""
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "pgtoolkit.scripts.cli", *command],
        env=os.environ | locale | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    said = (done.stdout + done.stderr).decode("ascii")
    assert done.returncode == (2 if "--env" in command and command[0] == "train" else 0), said
    assert said and "Traceback" not in said and "UnicodeEncodeError" not in said
