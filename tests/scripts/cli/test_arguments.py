"""What is said of arguments that do not fit."""

import io
import sys

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import require_flags
from pgtoolkit.scripts.cli.experiment import parse_settings, settings_from_file
from pgtoolkit.scripts.cli.main import run_arguments

ENV = ("--env", "CartPole-v1")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--env is missing (see pgtoolkit train ppo --help)"),
        ((*ENV, "--total-steps", "1k"), "--total-steps must be a whole number, not '1k'"),
        ((*ENV, "--total-steps", "1e-3"), "--total-steps must be a whole number, not '1e-3'"),
        ((*ENV, "--total-steps", "1.5"), "--total-steps must be a whole number, not '1.5'"),
        ((*ENV, "--gamma", "high"), "--gamma must be a number, not 'high'"),
        ((*ENV, "--hidden", "64,64"), "--hidden takes values with spaces between them, not commas"),
        ((*ENV, "--hidden", "wide"), "--hidden cannot be wide"),
    ],
)
def test_a_value_that_cannot_be_read_is_said_in_plain_words(
    flags: tuple[str, ...], words: str
) -> None:
    with pytest.raises(RequestError) as caught:
        parse_settings("ppo", list(flags), command="train ppo")
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_messages_are_one_sentence_in_any_encoding_of_the_terminal(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With LC_ALL=C, as in containers and batch jobs, the frame around errors is another one."""
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    for flags, words in (
        (["--gamma", "high"], "--gamma must be a number, not 'high'"),
        (["--num-envs", "-3"], "--num-envs must be at least 1, not -3"),
        (["--compile", "no"], "--compile must be one of 'auto', 'always', 'never', not 'no'"),
    ):
        with pytest.raises(RequestError) as caught:
            parse_settings("ppo", [*ENV, *flags], command="train ppo")
        assert str(caught.value).startswith(words) and "---" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "number"), [("1e5", 100_000), ("2.5E+6", 2_500_000), ("300.0", 300), ("1_000", 1000)]
)
def test_a_whole_number_may_have_an_exponent(text: str, number: int) -> None:
    for flags in (("--total-steps", text), (f"--total-steps={text}",)):
        parsed = parse_settings("ppo", [*ENV, *flags, "--gamma", "1e-1"], command="train ppo")
        assert parsed.loop.total_steps == number and parsed.agent.gamma == 0.1


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("evaluate", "pgtoolkit evaluate needs the run's folder (see pgtoolkit evaluate --help)"),
        ("check-env", "pgtoolkit check-env needs an id, or path/to/file.py:Class (see"),
        ("export", "pgtoolkit export needs the run's folder (see"),
    ],
)
def test_a_missing_argument_is_said_in_plain_words(command: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        run_arguments([command])
    assert str(caught.value).startswith(words)


def test_a_setting_of_a_file_is_said_to_be_one() -> None:
    """No flag of the command that reads the file is named as if it had it."""
    config = {"agent": "ppo", "env": "CartPole-v1", "gamma": 7}
    with pytest.raises(RequestError) as caught:
        settings_from_file(config, [], command="evaluate")
    assert "a setting of the configuration does not fit" in str(caught.value)
    assert "gamma must be between 0 and 1, not 7.0" in str(caught.value)
    assert "--help" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "ppo", "--lr", "1"], "has no option --lr: did you mean --learning-rate?"),
        (["train", "ppo", "--steps=9"], "no option --steps: did you mean --total-steps, --n-s"),
        (["train", "reppo", "--envs", "3"], "no option --envs: did you mean --num-envs, --prob"),
        (["train", "ppo", "--run-dri", "x"], "has no option --run-dri: did you mean --run-dir?"),
        (["train", "ppo", "--foo"], "has no option --foo: `pgtoolkit train ppo --help` shows all"),
        (["compare", "--env", "x", "--agent", "ppo"], "no option --agent: did you mean --agents?"),
        (["plot", "x", "--out", "y"], "has no option --out: did you mean --output?"),
        (["tune", "ppo", "--lr", "1"], "has no option --lr: did you mean --learning-rate?"),
        (["train", "ppo", "-lr", "1e-3"], "has no option -lr: did you mean --learning-rate?"),
        (["train", "ppo", "-lr=1e-3"], "has no option -lr: did you mean --learning-rate?"),
        (["train", "ppo", "-env", "x"], "has no option -env: did you mean --env? `"),
        (["train", "ppo", "-no-normalize-rewards"], "did you mean --no-normalize-rewards? `"),
        (["train", "ppo", "-n", "3"], "has no option -n: did you mean --n-steps or --n-epochs?"),
        (["tune", "ppo", "-gama", "1"], "has no option -gama: did you mean --gamma?"),
        (
            ["evaluate", "runs/x", "-episode", "3"],
            "has no option -episode: did you mean --episodes",
        ),
    ],
)
def test_an_option_that_there_is_not(arguments: list[str], words: str) -> None:
    """The close ones are named, before anything is said of those that are missing."""
    with pytest.raises(RequestError) as caught:
        run_arguments(arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize("value", ["-1", "-1e-3", "-.5", "-inf", "-Infinity", "-nan", "-x y", "-"])
def test_a_value_that_begins_with_a_hyphen_is_no_option(value: str) -> None:
    require_flags(["--log-std-init", value], ["log_std_init"], command="train ppo")


def test_underscores_and_switches_are_options() -> None:
    """As tyro takes them; a value may begin with a hyphen."""
    flags = [*ENV, "--total_steps", "9", "--no-normalize-rewards", '--env-kwargs={"x": -1}']
    settings = parse_settings("ppo", flags, command="train ppo")
    assert settings.loop.total_steps == 9 and not settings.agent.normalize_rewards


def test_a_setting_of_a_file_that_there_is_not() -> None:
    config = {"agent": "ppo", "env": "CartPole-v1", "lr": 0.1}
    with pytest.raises(RequestError, match=r"no setting 'lr': did you mean learning_rate\? take"):
        settings_from_file(config, [], command="train ppo")
