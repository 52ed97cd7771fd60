"""Clocks in a state, and the ends of episodes of known environments."""

from pgtoolkit.envs.analytic.lqg.env import LQG
from pgtoolkit.envs.checks.episodes import Clock, check_termination, find_clock
from pgtoolkit.envs.checks.random_play import random_play
from pgtoolkit.envs.control.pendulum import Pendulum


def test_a_clock_is_found_in_the_state() -> None:
    """LQG counts its steps in the second leaf; a pendulum has no clock."""
    lqg, pendulum = LQG(), Pendulum()
    played = random_play(lqg, num_envs=8, num_steps=6, seed=0, seconds=9.0)
    assert find_clock(played) == Clock(leaf=1, column=0, start=0.0, tick=1.0)
    played = random_play(pendulum, num_envs=8, num_steps=6, seed=0, seconds=9.0)
    assert find_clock(played) is None


def test_the_end_of_a_finite_horizon_is_no_time_limit() -> None:
    """LQG pays by the clock; without its last cost it still names its length."""
    for env in (LQG(horizon=7), LQG(horizon=7, Qf=0.0)):
        played = random_play(env, num_envs=8, num_steps=8, seed=0, seconds=9.0)
        (finding,) = check_termination(env, played)
        assert finding.status == "pass" and "after 7 steps" in finding.finding
