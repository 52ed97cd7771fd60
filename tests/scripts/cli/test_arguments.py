"""What is said of arguments that do not fit."""

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.experiment import parse_settings, settings_from_file

ENV = ("--env", "CartPole-v1")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--env is missing (see pgtoolkit train ppo --help)"),
        ((*ENV, "--total-steps", "1e5"), "--total-steps must be a whole number, written in digits"),
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


def test_a_setting_of_a_file_is_said_to_be_one() -> None:
    """No flag of the command that reads the file is named as if it had it."""
    config = {"agent": "ppo", "env": "CartPole-v1", "gamma": 7}
    with pytest.raises(RequestError) as caught:
        settings_from_file(config, [], command="evaluate")
    assert "a setting of the configuration does not fit" in str(caught.value)
    assert "gamma must be between 0 and 1, not 7.0" in str(caught.value)
    assert "--help" not in str(caught.value)
