"""Worker processes: they end with their owner, ignore what stops it, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from pgtoolkit.envs.vectorized.stepping import Stepping
from pgtoolkit.envs.vectorized.vector_env import OrdinaryVectorEnv
from pgtoolkit.errors import EnvFaultError

ASYNC = Stepping(vectorization="async")


class Plain(gymnasium.Env[Any, Any]):
    """Observation: the id of its process."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float64)
    action_space = Discrete(2)

    def reset(self, **kwargs: Any) -> Any:
        super().reset(seed=kwargs.get("seed"))
        return np.array([os.getpid()], np.float64), {}

    def step(self, action: Any) -> Any:
        return np.array([os.getpid()], np.float64), 0.0, False, False, {}


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie counts, because it has not been waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(holds: Callable[[], bool]) -> bool:
    """Whether it holds within a minute."""
    deadline = time.monotonic() + 60
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def test_each_environment_has_a_process_which_ends_with_close() -> None:
    env = OrdinaryVectorEnv(Plain, 3, stepping=ASYNC)
    pids = env.reset()[0][:, 0].astype(int).tolist()
    assert len({*pids, os.getpid()}) == 4 and all(map(is_alive, pids))
    env.close()
    assert not any(map(is_alive, pids))


def test_two_vector_environments_close_in_any_order() -> None:
    """The processes of the second one are forked while the connections of the first are open."""
    first, second = (OrdinaryVectorEnv(Plain, 1, stepping=ASYNC) for _ in range(2))
    pids = [int(env.reset()[0][0, 0]) for env in (first, second)]
    first.close()
    assert [is_alive(pid) for pid in pids] == [False, True]
    second.close()
    assert not is_alive(pids[1])


def test_a_worker_that_is_killed_is_no_zombie() -> None:
    env = OrdinaryVectorEnv(Plain, 2, stepping=ASYNC)
    pids = env.reset()[0][:, 0].astype(int).tolist()
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(EnvFaultError, match=r"environment 1 .* killed by SIGKILL"):
        env.step(np.zeros(2, int))
    assert [is_alive(pid) for pid in pids] == [True, False]
    env.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_that_stop_a_run_do_not_stop_its_workers(number: signal.Signals) -> None:
    """A terminal sends them to all processes; the one that owns the workers decides."""
    env = OrdinaryVectorEnv(Plain, 2, stepping=ASYNC)
    before = env.reset()[0]
    for pid in before[:, 0].astype(int).tolist():
        os.kill(pid, number)
    np.testing.assert_array_equal(env.step(np.zeros(2, int))[0], before)
    env.close()


class SlowToStep(Plain):
    def step(self, action: Any) -> Any:
        time.sleep(2)
        return super().step(action)


def test_an_answer_that_was_not_waited_for_is_passed_over() -> None:
    """After an interrupted step, a reset does not take the step's answer for its own."""
    env = OrdinaryVectorEnv(SlowToStep, 1, stepping=ASYNC)
    env.reset()
    single: Any = env._singles[0]
    single.send_step(np.int64(0))
    assert env.reset()[0][0, 0] != os.getpid()
    env.close()


OWNER = """
import sys, time
import numpy as np
sys.path.insert(0, {folder!r})
from test_worker import ASYNC, Plain, OrdinaryVectorEnv, time

class Hangs(Plain):
    def step(self, action):
        while True:
            time.sleep(1000)

env = OrdinaryVectorEnv({kind}, 2, stepping=ASYNC)
other = OrdinaryVectorEnv(Plain, 1, stepping=ASYNC)
pids = [*env.reset()[0][:, 0], other.reset()[0][0, 0], env._launcher._pid, other._launcher._pid]
print(*(int(pid) for pid in pids), flush=True)
{then}
"""


@pytest.mark.parametrize("kind", ["Plain", "Hangs"])
@pytest.mark.parametrize("end", ["SIGKILL", "exit", "error"])
def test_workers_end_with_their_owner(kind: str, end: str) -> None:
    """Also if it is killed while they hang in a step, and if it closes nothing."""
    step = "env.step(np.zeros(2, int))\n" if kind == "Hangs" or end != "SIGKILL" else ""
    send = "[single.send_step(0) for single in env._singles]\n"
    then = {
        "SIGKILL": step or "time.sleep(1000)",
        "exit": send if kind == "Hangs" else step,
        "error": (send if kind == "Hangs" else step) + "raise SystemExit(1)",
    }[end]
    source = OWNER.format(folder=str(Path(__file__).parent), kind=kind, then=then)
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert len(pids) == 5
        if end == "SIGKILL":
            assert all(map(is_alive, pids))
            owner.kill()
        owner.wait(timeout=60)
    # Orphans are waited for by the process that adopts them; where that is slow, they are zombies.
    assert wait_until(lambda: not any(runs(pid) for pid in pids))


def runs(pid: int) -> bool:
    """Whether the process is alive and no zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


class CannotBeMade(Plain):
    def __init__(self) -> None:
        os._exit(9)


def test_an_environment_that_cannot_be_made_in_a_worker() -> None:
    with pytest.raises(ValueError, match=r"X cannot be made in a worker: .* exit code 9"):
        OrdinaryVectorEnv(CannotBeMade, 2, name="X", stepping=ASYNC)
