"""Each kind of fault of an environment, in this process and in workers, by what is done then."""

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from pgtoolkit.envs.registry.guard import guard
from pgtoolkit.envs.vectorized.stepping import OnFault, Stepping, Vectorization
from pgtoolkit.envs.vectorized.vector_env import MAX_RESTARTS, OrdinaryVectorEnv
from pgtoolkit.errors import EnvFaultError, RequestError
from pgtoolkit.rollouts.numpy_rollout import NOT_TAKEN

MODES: tuple[Vectorization, ...] = ("sync", "async")
BAD_STEP = 3


class Draws(gymnasium.Env[Any, Any]):
    """Observation: a number that is drawn at the reset, and the sum of the actions.

    The environment whose first reset had an odd seed misbehaves at its third step of each episode.
    """

    observation_space = Box(-99, 99, (2,), np.float32)
    action_space = Discrete(2)

    def __init__(self, bad: str) -> None:
        self.bad, self.is_odd = bad, False
        self.closed = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None and seed < 1000:  # that of a restart is larger
            self.is_odd = seed % 2 == 1
        self.number, self.total, self.count = self.np_random.uniform(), 0, 0
        return self.look(), {}

    def look(self) -> Any:
        return np.array([self.number, self.total], np.float32)

    def step(self, action: Any) -> Any:
        self.count += 1
        self.total += int(action)
        result: Any = (self.look(), 1.0, False, self.count == 5, {})
        if self.count == BAD_STEP and self.is_odd:
            return getattr(self, self.bad)(*result)
        return result

    def raises(self, *result: Any) -> Any:
        raise ValueError("sensor 3 is disconnected")

    def exits(self, *result: Any) -> Any:
        sys.exit("I quit")

    def interrupts(self, *result: Any) -> Any:
        raise KeyboardInterrupt

    def runs_out(self, *result: Any) -> Any:
        raise MemoryError

    def hangs(self, *result: Any) -> Any:
        time.sleep(1000)

    def hangs_on(self, *result: Any) -> Any:
        """It cannot be interrupted by what ``except Exception`` catches."""
        while True:
            try:
                time.sleep(1000)
            except Exception:
                continue

    def nan_reward(self, obs: Any, reward: Any, *rest: Any) -> Any:
        return obs, float("nan"), *rest

    def inf_observation(self, obs: Any, *rest: Any) -> Any:
        return np.array([np.inf, 0], np.float32), *rest

    def wrong_shape(self, obs: Any, *rest: Any) -> Any:
        return np.zeros(3, np.float32), *rest

    def objects(self, obs: Any, *rest: Any) -> Any:
        return np.array(["a", None], object), *rest

    def four_values(self, *result: Any) -> Any:
        return result[:4]

    def dies(self, *result: Any) -> Any:
        os._exit(3)

    def crashes(self, *result: Any) -> Any:
        ctypes.string_at(0)

    def is_killed(self, *result: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    def dies_with_a_child(self, *result: Any) -> Any:
        """The child keeps the worker's end of the connection open."""
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
        os._exit(4)


EVERYWHERE = {
    "raises": r"ValueError: sensor 3 is disconnected \(test_faults.py, line \d+\)",
    "exits": r"SystemExit: I quit \(test_faults.py, line \d+\)",
    "interrupts": r"KeyboardInterrupt \(test_faults.py, line \d+\)",
    "runs_out": r"MemoryError \(test_faults.py, line \d+\)",
    "wrong_shape": r"the observation has the shape \[3\] where the space has \[2\]",
    "objects": r"the observation is array\(\['a', None\]",
    "four_values": r"step returns 4 values",
}
NOT_FINITE = {
    "nan_reward": "the reward is nan, not finite",
    "inf_observation": r"the observation is \[inf.*\], not finite",
}
HANGS = {
    "hangs": "TimeoutError: no answer within 0.5 s \\(--step-timeout\\)",
    "hangs_on": "no answer within 0.5 s",
}
IN_WORKERS = {
    "dies": "its worker process ended with exit code 3",
    "crashes": "its worker process was killed by SIGSEGV",
    "is_killed": r"its worker process was killed by SIGKILL \(out of memory\?\)",
    "dies_with_a_child": "its worker process ended with exit code 4",
}
CASES = [
    *((mode, bad, text) for mode in MODES for bad, text in (EVERYWHERE | HANGS).items()),
    *(("async", bad, text) for bad, text in IN_WORKERS.items()),
]
SURVIVED = [*CASES, *((mode, bad, text) for mode in MODES for bad, text in NOT_FINITE.items())]


def ids(value: str) -> str:
    """Test names without regular expressions."""
    return value if value.isidentifier() else ""


def make(bad: str, mode: Vectorization, on_fault: OnFault, num_envs: int = 2) -> OrdinaryVectorEnv:
    """Environment 1 fails at its third step, if the seed of the reset is even."""
    limit = 0.5 if bad.startswith("hangs") else None
    stepping = Stepping(vectorization=mode, on_fault=on_fault, step_timeout=limit)
    return OrdinaryVectorEnv(
        lambda: guard(Draws(bad), "Draws"), num_envs, name="Draws", stepping=stepping
    )


ACTION = np.array([0, 1])


@pytest.mark.parametrize(("mode", "bad", "text"), CASES, ids=ids)
def test_stop(mode: Vectorization, bad: str, text: str) -> None:
    """The error names environment, step, seed and cause, and has what repeats the fault."""
    env = make(bad, mode, "stop")
    env.reset(seed=6)
    for _ in range(BAD_STEP - 1):
        assert NOT_TAKEN not in env.step(ACTION)[4]
    with pytest.raises(
        EnvFaultError, match=r"environment 1 of Draws failed at step 3 of its episode \(seed 7\): "
    ) as caught:
        env.step(ACTION)
    error = caught.value
    assert (error.env_index, error.step, error.seed) == (1, 3, 7)
    with pytest.raises(EnvFaultError, match=text):
        raise error
    assert "\n" not in str(error)
    assert json.loads(json.dumps(error.replay)) == {
        "start": {"seed": 7, "generator": None},
        "actions": [1, 1, 1],
        "env_index": 1,
    }
    env.close()


@pytest.mark.parametrize(("mode", "bad", "text"), SURVIVED, ids=ids)
def test_restart(
    mode: Vectorization, bad: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The step is not taken, the new environment is on, and the other one notices nothing."""
    env, alone = make(bad, mode, "restart"), make(bad, mode, "restart", num_envs=1)
    env.reset(seed=6)
    alone.reset(seed=6)
    for step in range(1, 13):
        obs, reward, terminated, truncated, info = env.step(ACTION)
        other = alone.step(ACTION[:1])
        np.testing.assert_array_equal(obs[0], other[0][0])
        assert (reward[0], truncated[0]) == (other[1][0], other[3][0])
        taken = not info.get(NOT_TAKEN, [False, False])[1]
        assert taken == (step != BAD_STEP)
        # Its next episode begins with step 4 and ends with step 8.
        assert bool(truncated[1]) == (step == 8) and not terminated.any()
        assert reward[1] == float(taken)
        if not taken:
            assert obs[1, 1] == 0.0, "the sum of the actions begins anew"
    assert env.num_faults == 1
    assert float(env.metrics()["rollout/env_faults"]) == 1.0
    [record] = caplog.records
    assert "environment 1 of Draws failed at step 3" in record.getMessage()
    assert "it is restarted with seed" in record.getMessage()
    env.close()
    alone.close()


@pytest.mark.parametrize(("mode", "bad", "text"), SURVIVED, ids=ids)
def test_drop(mode: Vectorization, bad: str, text: str, caplog: pytest.LogCaptureFixture) -> None:
    """From the fault on, the last observation is returned and no step is taken."""
    env = make(bad, mode, "drop")
    env.reset(seed=6)
    for step in range(1, 9):
        obs, reward, _, truncated, info = env.step(ACTION)
        if step < BAD_STEP:
            last = obs[1]
        else:
            assert info[NOT_TAKEN].tolist() == [False, True]
            np.testing.assert_array_equal(obs[1], last)
            assert (reward[1], truncated[1]) == (0.0, False)
    assert env.dropped.tolist() == [False, True] and env.num_faults == 1
    assert "it is dropped" in caplog.text
    env.reset(seed=6)
    assert env.step(ACTION)[4][NOT_TAKEN].tolist() == [False, True]
    env.close()


@pytest.mark.parametrize("mode", MODES)
def test_the_last_one_that_is_dropped_stops(mode: Vectorization) -> None:
    env = make("raises", mode, "drop", num_envs=1)
    env.reset(seed=7)
    with pytest.raises(EnvFaultError, match="all environments are dropped"):
        for _ in range(BAD_STEP):
            env.step(ACTION[:1])
    env.close()


@pytest.mark.parametrize("mode", MODES)
def test_restarts_are_repeatable(mode: Vectorization) -> None:
    """The seed of a restart follows from that of the run and from how many there were."""

    def observations(seed: int) -> list[Any]:
        env = make("raises", mode, "restart")
        env.reset(seed=seed)
        found = [env.step(ACTION)[0].tolist() for _ in range(5)]
        env.close()
        return found

    assert observations(6) == observations(6)
    assert observations(6)[3] != observations(8)[3]


class FailsAtOnce(Draws):
    """Every step fails from the second episode of the process on."""

    def step(self, action: Any) -> Any:
        if self.np_random_seed > 1000:
            raise OSError("no device")
        return super().step(action)


@pytest.mark.parametrize("mode", MODES)
def test_restarts_in_vain_are_bounded(mode: Vectorization) -> None:
    stepping = Stepping(vectorization=mode, on_fault="restart")
    env = OrdinaryVectorEnv(lambda: guard(FailsAtOnce("raises"), "F"), 1, stepping=stepping)
    env.reset(seed=7)
    for _ in range(BAD_STEP + MAX_RESTARTS - 1):
        env.step(ACTION[:1])
    with pytest.raises(EnvFaultError, match=f"{MAX_RESTARTS} restarts in a row were in vain"):
        env.step(ACTION[:1])
    env.close()


class FailsInReset(Draws):
    """Its second reset fails, and the first is good."""

    resets = 0

    def reset(self, **kwargs: Any) -> Any:
        self.resets += 1
        if self.resets == 2:
            raise OSError("cannot reset")
        return super().reset(**kwargs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("on_fault", ["stop", "restart", "drop"])
def test_a_reset_that_fails_after_an_episode(mode: Vectorization, on_fault: OnFault) -> None:
    """The last step of the episode counts; only what follows is lost."""
    stepping = Stepping(vectorization=mode, on_fault=on_fault)
    env = OrdinaryVectorEnv(lambda: guard(FailsInReset(""), "F"), 2, name="F", stepping=stepping)
    env.reset(seed=[0, None])
    if on_fault == "stop":
        with pytest.raises(
            EnvFaultError, match=r"environment 0 of F failed in the reset after 5 steps \(seed 0\)"
        ) as caught:
            for _ in range(5):
                env.step(ACTION)
        assert caught.value.step is None and caught.value.replay["actions"] == [0] * 5
        env.close()
        return
    for _ in range(4):
        env.step(ACTION)
    if on_fault == "drop":
        with pytest.raises(EnvFaultError, match="all environments are dropped"):
            env.step(ACTION)
    else:
        obs, reward, _, truncated, info = env.step(ACTION)
        assert reward.tolist() == [1.0, 1.0] and truncated.all() and NOT_TAKEN not in info
        assert info["final_obs"][1][1] == 5.0 and obs[1, 1] == 0.0
        assert NOT_TAKEN not in env.step(ACTION)[4]
    env.close()


def test_a_wrong_interface_is_a_wrong_request_at_first() -> None:
    class Wrong(Draws):
        def step(self, action: Any) -> Any:
            return None

    for on_fault in ("stop", "restart", "drop"):
        env = OrdinaryVectorEnv(
            lambda: guard(Wrong(""), "Wrong"), 1, stepping=Stepping(on_fault=on_fault)
        )
        env.reset(seed=0)
        with pytest.raises(RequestError, match="Wrong: step returns None"):
            env.step(ACTION[:1])


@pytest.mark.parametrize("mode", MODES)
def test_the_start_of_a_later_episode_is_the_generators_state(mode: Vectorization) -> None:
    """Replaying start and actions in a new environment gives the same last observation."""

    class Late(Draws):
        episodes = 0

        def reset(self, **kwargs: Any) -> Any:
            self.episodes += 1
            return super().reset(**kwargs)

        def step(self, action: Any) -> Any:
            result = super().step(action)
            if self.episodes == 3 and self.count == 2:
                raise ValueError(f"at {self.look().tolist()}")
            return result

    env = OrdinaryVectorEnv(
        lambda: guard(Late(""), "Late"), 2, stepping=Stepping(vectorization=mode)
    )
    env.reset(seed=[4, 6])
    with pytest.raises(EnvFaultError) as caught:
        for step in range(20):
            env.step(np.array([step % 2, 1]))
    replay = json.loads(json.dumps(caught.value.replay))
    assert caught.value.seed is None and replay["start"]["seed"] is None
    again = Draws("")
    again.reset(seed=0)
    again.np_random.bit_generator.state = replay["start"]["generator"]
    again.reset()
    for action in replay["actions"]:
        obs = again.step(action)[0]
    assert str(caught.value).split("ValueError: at ")[1].startswith(str(obs.tolist()))
    env.close()


def test_a_signal_of_the_users_is_no_fault() -> None:
    """``KeyboardInterrupt`` from SIGINT ends the step, with Python's handler or another one."""

    class Waits(Draws):
        def step(self, action: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            return super().step(action)

    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    env = OrdinaryVectorEnv(lambda: guard(Waits(""), "W"), 1, stepping=Stepping(on_fault="restart"))
    env.reset(seed=0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for handle in (signal.default_int_handler, handler):
            signal.signal(signal.SIGINT, handle)
            with pytest.raises(KeyboardInterrupt):
                env.step(ACTION[:1])
    finally:
        signal.signal(signal.SIGINT, before)
    assert env.num_faults == 0


def test_an_alarm_leaves_the_signal_as_it_was() -> None:
    before = signal.getsignal(signal.SIGALRM)
    env = make("hangs", "sync", "restart")
    env.reset(seed=6)
    for _ in range(4):
        env.step(ACTION)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
