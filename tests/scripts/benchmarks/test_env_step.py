"""The sides of the ``env-step`` benchmark run."""

import numpy as np
import pytest

from pgtoolkit.scripts.benchmarks import env_step


def test_env_step_sides_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each side gets its actions in the form that its library takes."""
    monkeypatch.setattr(env_step, "NUM_ENVS", 3)
    monkeypatch.setattr(env_step, "NUM_STEPS", 4)
    for name in env_step.ENV_CLASSES:
        env_step.plain_side(name)(0)
    env_step.gymnasium_side()(0)
    actions = env_step.given_actions("CartPole")
    assert actions.shape == (4, 3, 1) and set(np.unique(actions)) <= {-1.0, 1.0}
    assert np.array_equal(2 * env_step.to_discrete(actions) - 1, actions[..., 0])
