"""The ``ppo-native`` benchmark: PPO on our batched Pendulum against SB3 on its vectorised one.

Both run 4 epochs over a window; the update is the same for as many samples. Stable-Baselines3 steps
1024 copies of Gymnasium's Pendulum in one process.
"""

from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.scripts.benchmarks.ppo import SB3, agent_run, describe, sb3_side
from pgtoolkit.scripts.benchmarks.timing import OURS, Case, Run

SHAPE = {"num_envs": 1024, "n_steps": 32, "n_epochs": 4, "batch_size": 512}

TARGET = 30.0


def cases() -> list[Case]:
    """A window of 1024 environments and its update."""
    steps = SHAPE["num_envs"] * SHAPE["n_steps"]
    sides = {OURS: our_side, SB3: lambda: sb3_side("Pendulum-v1", SHAPE)}
    return [Case(f"Pendulum, {describe(SHAPE)}", steps, "steps", sides, {SB3: TARGET})]


def our_side() -> Run:
    """With the compiled rollout and the compiled update."""
    return agent_run(DifferentiableVectorEnv(Pendulum(), SHAPE["num_envs"]), SHAPE)
