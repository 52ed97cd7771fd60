"""Names that a user may have meant."""

import pytest

from pgtoolkit.scripts.cli.experiment import setting_names
from pgtoolkit.scripts.cli.suggestions import did_you_mean, similar_names


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("lr", "learning_rate"),
        ("bs", "batch_size"),
        ("gammma", "gamma"),
        ("learningrate", "learning_rate"),
        ("steps", "total_steps"),
        ("total_timesteps", "total_steps"),
        ("envs", "num_envs"),
        ("n_envs", "num_envs"),
        ("batch", "batch_size"),
        ("minibatch_size", "batch_size"),
        ("entropy_coef", "ent_coef"),
        ("lambda", "gae_lambda"),
        ("epochs", "n_epochs"),
    ],
)
def test_the_closest_setting(given: str, meant: str) -> None:
    """Shortened, misspelt, and as other packages call it."""
    assert similar_names(given, setting_names("ppo"))[0] == meant


@pytest.mark.parametrize("given", ["foo", "discount", "x", ""])
def test_no_suggestion_is_better_than_a_far_one(given: str) -> None:
    assert similar_names(given, setting_names("ppo")) == []


def test_a_sentence() -> None:
    names = ["total_steps", "n_steps", "eval_max_steps", "max_test_steps", "env"]
    said = did_you_mean("steps", names, lambda name: f"--{name}")
    assert said == "did you mean --total_steps, --n_steps or --eval_max_steps? "
    assert did_you_mean("en", names) == "did you mean env? "
    assert did_you_mean("reward", names) == ""
