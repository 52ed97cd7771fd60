"""What ``auto`` stands for."""

import pytest

from pgtoolkit.agents.apg import Apg, ApgConfig
from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.envs import DifferentiableVectorEnv, Pendulum
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.cross_fitting import followed_estimator


@pytest.mark.parametrize("config", [ApgConfig, ShacConfig])
def test_auto_is_mixed_wherever_that_is_possible(config: type[ApgConfig | ShacConfig]) -> None:
    """It takes six environments and a Gaussian policy; what is asked for by name is kept."""
    assert config().estimator == "auto"
    assert followed_estimator(config()) == followed_estimator(config(num_envs=6)) == "mixed"
    assert followed_estimator(config(num_envs=5)) == "pathwise"
    assert followed_estimator(config(distribution="beta")) == "pathwise"
    assert followed_estimator(config(estimator="pathwise")) == "pathwise"
    with pytest.raises(RequestError, match="num_envs"):
        config(estimator="mixed", num_envs=5)


@pytest.mark.parametrize(("num_envs", "expected"), [(6, "mixed"), (5, "pathwise")])
def test_agents_follow_what_auto_stands_for(num_envs: int, expected: str) -> None:
    """The metrics of a measured update say which estimator it was."""
    env = DifferentiableVectorEnv(Pendulum(), num_envs)
    for agent in (
        Apg(ApgConfig(num_envs=num_envs, n_steps=4, hidden=(8,)), env),
        Shac(ShacConfig(num_envs=num_envs, n_steps=4, hidden=(8,)), env),
    ):
        assert f"gradient/{expected}/followed" in agent.update(agent.collect())
