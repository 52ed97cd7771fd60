"""State that first changes late: each row has its own, or the environment is refused.

The environments move a mass by the action. Most of them change something once it is beyond 1, which
random actions do not reach, but full thrust does.
"""

import copy
import dataclasses
import enum
import functools
import itertools
import random
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.wrappers import (
    ClipReward,
    DelayObservation,
    FlattenObservation,
    FrameStackObservation,
    NormalizeObservation,
    NormalizeReward,
    RecordEpisodeStatistics,
    TimeAwareObservation,
    TimeLimit,
)

from pgtoolkit.envs.adapters.gymnasium.adapter import finite_difference
from pgtoolkit.envs.adapters.gymnasium.simulator import GymnasiumSimulator
from pgtoolkit.envs.adapters.gymnasium.state_slots import stack_rows
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError

LIMIT = 100
calls = 0
visits: list[float] = []


class Mass(gymnasium.Env[Any, Any]):
    """``v' = v + 0.05 a``, ``x' = x + 0.05 v'``, reward ``-x'^2`` plus what a subclass adds."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.x, self.v = float(self.np_random.uniform(-0.1, 0.1)), 0.0
        self.begin()
        return np.array([self.x, self.v]), {}

    def step(self, action: Any) -> Any:
        self.v += 0.05 * float(np.clip(action[0], -1, 1))
        self.x += 0.05 * self.v
        added = self.after(self.x > 1, float(action[0]))
        return np.array([self.x, self.v]), -(self.x**2) + added, False, False, {}

    def begin(self) -> None:
        """Called at a reset."""

    def after(self, far: bool, action: float) -> Any:
        return 0.0


class Latch(Mass):
    """Set after 60 steps in a row at the upper bound."""

    def begin(self) -> None:
        self.held, self.latched = 0, False

    def after(self, far: bool, action: float) -> Any:
        self.held = self.held + 1 if action >= 1 else 0
        self.latched = self.latched or self.held > 60
        return 10.0 * self.latched


class LateAttribute(Mass):
    def begin(self) -> None:
        vars(self).pop("count", None)

    def after(self, far: bool, action: float) -> Any:
        if far:
            self.count = getattr(self, "count", 0) + 1
        return getattr(self, "count", 0)


class NoneThenNumber(Mass):
    def begin(self) -> None:
        self.goal: float | None = None

    def after(self, far: bool, action: float) -> Any:
        if far and self.goal is None:
            self.goal = self.x
        return 0.0 if self.goal is None else self.goal * self.x


class IntegerThenFloat(Mass):
    def begin(self) -> None:
        self.count: float = 0

    def after(self, far: bool, action: float) -> Any:
        self.count += 0.25 * self.x if far else 0
        return self.count


class GrowingDictionary(Mass):
    def __init__(self) -> None:
        self.seen: dict[str, float] = {}

    def begin(self) -> None:
        self.seen.clear()

    def after(self, far: bool, action: float) -> Any:
        if far and len(self.seen) < 9:
            self.seen[f"at {len(self.seen)}"] = self.x
        return sum(self.seen.values())


class GrowingArray(Mass):
    def begin(self) -> None:
        self.trace = np.zeros(1)

    def after(self, far: bool, action: float) -> Any:
        if far and len(self.trace) < 9:
            self.trace = np.append(self.trace, self.x)
        return self.trace.sum()


class Pair(NamedTuple):
    number: int
    last: float


class Records(Mass):
    def begin(self) -> None:
        self.pair, self.names = Pair(0, 0.0), {"start"}

    def after(self, far: bool, action: float) -> Any:
        if far:
            self.pair = Pair(self.pair.number + 1, self.x)
            self.names.add(f"{int(self.x)}")
        return self.pair.number + self.pair.last + len(self.names)


class Stage(enum.Enum):
    FIRST, SECOND = 1, 2


class Stages(Mass):
    def begin(self) -> None:
        self.stage, self.label = Stage.FIRST, "a"

    def after(self, far: bool, action: float) -> Any:
        if far:
            self.stage, self.label = Stage.SECOND, "later"
        return self.stage.value + len(self.label)


class Slotted:
    __slots__ = ("late", "stage")
    late: float
    stage: int

    def __init__(self) -> None:
        self.stage = 0


@dataclasses.dataclass(frozen=True)
class Frozen:
    count: int
    trace: tuple[int, ...] = ()


class Helpers(Mass):
    """A helper with slots, one with a reference back and a method of it, and a frozen one."""

    def __init__(self) -> None:
        self.slotted = Slotted()

    def begin(self) -> None:
        self.slotted.stage, self.frozen = 0, Frozen(0)
        self.parts = [Part(self), Part(self)]
        self.notify = self.parts[0].notify

    def after(self, far: bool, action: float) -> Any:
        self.notify()
        if far:
            self.slotted.stage, self.slotted.late = 2, self.x
            self.frozen = Frozen(self.frozen.count + 1, (*self.frozen.trace, 1)[:9])
        return self.slotted.stage + self.frozen.count + self.parts[0].count


class Part:
    def __init__(self, owner: Mass) -> None:
        self.owner, self.count = owner, 0

    def notify(self) -> None:
        self.count += self.owner.x > 1


class Generators(Mass):
    def __init__(self) -> None:
        self.mine = random.Random(3)
        self.old, self.new = np.random.RandomState(4), np.random.default_rng(5)

    def after(self, far: bool, action: float) -> Any:
        return self.mine.random() + self.old.rand() + self.new.normal() if far else 0.0


class Cached(Mass):
    @functools.cached_property
    def first(self) -> float:
        return self.x

    def begin(self) -> None:
        vars(self).pop("first", None)

    def after(self, far: bool, action: float) -> Any:
        return self.first if far else 0.0


class Closure(Mass):
    def __init__(self) -> None:
        count = 0

        def tick(far: bool) -> int:
            nonlocal count
            count += far
            return count

        self.tick = tick

    def after(self, far: bool, action: float) -> Any:
        return self.tick(far)


class Iterators(Mass):
    def __init__(self) -> None:
        self.numbers, self.items = itertools.count(), iter(list(range(1000)))

    def after(self, far: bool, action: float) -> Any:
        return next(self.numbers) + next(self.items) if far else 0.0


class View(Mass):
    """An attribute that is a part of another array."""

    def __init__(self) -> None:
        self.buffer = np.zeros(4)
        self.part = self.buffer[:2]

    def begin(self) -> None:
        self.buffer[:] = 0
        self.fresh = np.zeros(4)
        self.fresh_part = self.fresh[1:]

    def after(self, far: bool, action: float) -> Any:
        self.part += far
        self.fresh_part += far
        return self.buffer.sum() + self.fresh.sum()


class Tensors(Mass):
    def begin(self) -> None:
        self.sum = torch.zeros(2, dtype=torch.float64)

    def after(self, far: bool, action: float) -> Any:
        self.sum += far
        return float(self.sum.sum())


class Map(Mass):
    """Cells that were visited, in place."""

    def __init__(self) -> None:
        self.cells = np.zeros((16, 16), dtype=bool)

    def begin(self) -> None:
        self.cells[:] = False

    def after(self, far: bool, action: float) -> Any:
        cell = min(15, int(abs(self.x) * 5))
        new, self.cells[cell, cell] = not self.cells[cell, cell], True
        return float(new)


class Episodes(Mass):
    """A curriculum: a counter that resets do not set back."""

    def __init__(self) -> None:
        self.episodes = 0

    def begin(self) -> None:
        self.episodes += 1

    def after(self, far: bool, action: float) -> Any:
        return self.episodes


class Incomplete(Latch):
    """``get_state()`` forgets the latch."""

    def get_state(self) -> Any:
        return np.array([self.x, self.v])

    def set_state(self, state: Any) -> None:
        self.x, self.v = (float(number) for number in state)


class Table(Mass):
    """A large constant."""

    def __init__(self) -> None:
        self.table = np.arange(100_000.0)

    def after(self, far: bool, action: float) -> Any:
        return self.table[int(abs(self.x) * 100)]


class Shared(Mass):
    def __init__(self) -> None:
        self.log: list[float] = []

    def begin(self) -> None:
        self.log.clear()

    def after(self, far: bool, action: float) -> Any:
        return len(self.log)


class Logging(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Writes into the list of the environment, and has a stage of its own."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.log, self.stage, self.age = env.unwrapped.log, 0, 0

    def reset(self, **kwargs: Any) -> Any:
        self.stage, self.age = 0, 0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> Any:
        observation, reward, *rest = self.env.step(action)
        self.age += 1
        if self.age > 60:
            self.stage = 3
        if observation[0] > 1:
            self.log.append(1.0)
        return observation, float(reward) + self.stage, *rest


HELD: dict[str, Callable[[], Any]] = {
    kind.__name__: kind
    for kind in (
        Latch,
        LateAttribute,
        NoneThenNumber,
        IntegerThenFloat,
        GrowingDictionary,
        GrowingArray,
        Records,
        Stages,
        Helpers,
        Generators,
        Cached,
        Closure,
        Iterators,
        View,
        Tensors,
        Map,
        Episodes,
        Incomplete,
        Table,
    )
} | {
    "shared list": lambda: Logging(Shared()),
    "frames": lambda: FlattenObservation(FrameStackObservation(Mass(), 4)),
    "time": lambda: TimeAwareObservation(TimeLimit(Latch(), LIMIT)),
    "clipped reward": lambda: ClipReward(Latch(), -5, 5),
    "normalised observation": lambda: NormalizeObservation(Latch()),
    "normalised reward": lambda: NormalizeReward(Latch()),
    "statistics": lambda: RecordEpisodeStatistics(Latch()),
    "delay": lambda: DelayObservation(Latch(), 3),
}


def assert_rows_are_plain(found: GymnasiumSimulator, make: Callable[[], Any]) -> None:
    """Four rows in one batch against four environments of their own, over two episodes."""
    envs, rng = [make() for _ in range(4)], np.random.default_rng(0)
    starts = [found.reset(row) for row in range(4)]
    for row, env in enumerate(envs):
        assert np.array_equal(env.reset(seed=row)[0], starts[row][1])
    saved = stack_rows([start[0] for start in starts], found.saved_size)
    for step in range(LIMIT + 80):
        if step == LIMIT:
            starts = [found.reset_again(saved[row], 7 + row) for row in range(4)]
            saved = stack_rows([start[0] for start in starts], found.saved_size)
            for row, env in enumerate(envs):
                assert np.array_equal(env.reset(seed=7 + row)[0], starts[row][1])
        actions = np.array([[1.0], [-1.0], [1.0 - 2 * (step % 2)], [rng.uniform(-1, 1)]])
        outcome = found.step(saved, actions)
        saved = outcome.saved
        for row, env in enumerate(envs):
            observation, reward, *_ = env.step(actions[row])
            assert np.array_equal(outcome.observation[row], observation), (step, row)
            assert outcome.reward[row] == reward, (step, row)


@pytest.mark.parametrize("make", HELD.values(), ids=HELD.keys())
def test_each_row_has_its_own(make: Callable[[], Any]) -> None:
    assert_rows_are_plain(GymnasiumSimulator(make, max_episode_steps=LIMIT), make)


@pytest.mark.parametrize("name", ["Latch", "Helpers", "Closure", "shared list"])
def test_a_copy_has_its_own(name: str) -> None:
    """``copy.deepcopy``, as it is made of environments that are given as objects."""
    found = GymnasiumSimulator(HELD[name], max_episode_steps=LIMIT)
    copied = copy.deepcopy(found)
    found.step(found.reset(5)[0][None], np.ones((1, 1)))
    assert_rows_are_plain(copied, HELD[name])
    assert_rows_are_plain(found, HELD[name])


class ClassCounter(Mass):
    total = 0

    def after(self, far: bool, action: float) -> Any:
        type(self).total += far
        return type(self).total


class ClassList(Mass):
    seen: ClassVar[dict[str, int]] = {"count": 0}

    @classmethod
    def note(cls) -> None:
        cls.seen["count"] += 1

    def after(self, far: bool, action: float) -> Any:
        if far:
            self.note()
        return self.seen["count"]


class GlobalCounter(Mass):
    def after(self, far: bool, action: float) -> Any:
        global calls
        calls += far
        return calls


class GlobalList(Mass):
    def after(self, far: bool, action: float) -> Any:
        note(self.x)
        return len(visits)


def note(x: float) -> None:
    if x > 1:
        visits.append(x)


class DefaultArgument(Mass):
    def after(self, far: bool, action: float, memory: Any = []) -> Any:  # noqa: B006
        memory += [1] * far
        return len(memory)


class PythonGenerator(Mass):
    def __init__(self) -> None:
        self.numbers = (number for number in range(1000))

    def after(self, far: bool, action: float) -> Any:
        return next(self.numbers) if far else 0


class LateFunction(Mass):
    def begin(self) -> None:
        self.cost: Callable[[], float] | None = None

    def after(self, far: bool, action: float) -> Any:
        if far and self.cost is None:
            at = self.x
            self.cost = lambda: at
        return 0.0 if self.cost is None else self.cost()


class LateFile(Mass):
    def begin(self) -> None:
        self.file: Any = None

    def after(self, far: bool, action: float) -> Any:
        if far and self.file is None:
            self.file = open("/dev/null")  # noqa: SIM115
            self.file.close()
        return self.file is not None


class LateTable(Table):
    """A large array that changes in its middle, late."""

    def after(self, far: bool, action: float) -> Any:
        if far:
            self.table[50_000] = 7.0
        return self.table[50_000]


class GlobalRandomness(Mass):
    def after(self, far: bool, action: float) -> Any:
        return np.random.rand() if far else 0.0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ClassCounter, "writes ClassCounter.total, which all its environments share"),
        (ClassList, "writes ClassList.seen"),
        (GlobalCounter, "writes .*test_late_state.calls"),
        (GlobalList, "writes .*test_late_state.visits"),
        (DefaultArgument, "writes a default argument of DefaultArgument.after"),
        (PythonGenerator, "reads from numbers, a generator"),
        (LateFunction, "cost has become a function, which cannot be saved"),
        (LateFile, "file has become a TextIOWrapper, which cannot be saved"),
        (LateTable, "table has changed late. It is too large|gives another reward"),
        (GlobalRandomness, "draws random numbers from elsewhere"),
    ],
)
def test_what_cannot_be_held_is_refused(kind: type[Mass], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        GymnasiumSimulator(kind, max_episode_steps=LIMIT)


class VeryLate(Mass):
    """A goal that is set beyond 60, which takes more steps than the check on construction."""

    def begin(self) -> None:
        self.goal = 0.0

    def after(self, far: bool, action: float) -> Any:
        if self.x > 60 and self.goal == 0:
            self.goal = self.x
        return 3 * self.goal


class VeryLateFile(LateFile):
    def after(self, far: bool, action: float) -> Any:
        return super().after(self.x > 60, action)


class VeryLateCounter(ClassCounter):
    def after(self, far: bool, action: float) -> Any:
        return super().after(self.x > 60, action)


def up_to(env: DifferentiableVectorEnv, position: float) -> int:
    """Drives the first of two rows to a position; returns the number of steps."""
    env.reset(seed=0)
    thrust = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    for step in itertools.count(1):
        if env.step(thrust)[0][0, 0] > position:
            return step
    raise AssertionError("not reached")


def very_late_return(num_steps: int, actions: Any) -> float:
    """The sum of the rewards after ``num_steps`` at full thrust, in two plain environments."""
    seeds = torch.randint(2**31 - 1, (2,), generator=torch.Generator().manual_seed(0)).tolist()
    total = 0.0
    for row, seed in enumerate(seeds):
        env = VeryLate()
        env.reset(seed=seed)
        for _ in range(num_steps):
            env.step(np.array([1.0 - 2 * row]))
        total += sum(env.step(action[row])[1] for action in actions)
    return total


def test_what_becomes_state_while_it_runs_is_held_and_differentiated() -> None:
    """Against central differences of the return of plain environments."""
    adapter = finite_difference(VeryLate, max_episode_steps=400)
    size = adapter.simulator.tangent_size
    env = DifferentiableVectorEnv(adapter, 2, dtype=torch.float64)
    num_steps = up_to(env, 59.5)
    env.detach()
    assert adapter.simulator.tangent_size == size
    actions = torch.full((8, 2, 1), 0.5, dtype=torch.float64, requires_grad=True)
    total = torch.stack([env.step(action)[1].sum() for action in actions]).sum()
    assert total.item() == pytest.approx(very_late_return(num_steps, actions.detach().numpy()))
    assert adapter.simulator.tangent_size == size + 1
    (gradient,) = torch.autograd.grad(total, actions)
    for index in ((0, 0, 0), (1, 0, 0), (7, 0, 0), (3, 1, 0)):
        moved = np.zeros((8, 2, 1))
        moved[index] = 1e-4
        ends = [very_late_return(num_steps, actions.detach().numpy() + s * moved) for s in (1, -1)]
        assert gradient[index].item() == pytest.approx((ends[0] - ends[1]) / 2e-4, abs=1e-5)


def test_a_resumed_run_reads_what_became_state() -> None:
    one, other = (finite_difference(VeryLate, max_episode_steps=400) for _ in range(2))
    env, resumed = (DifferentiableVectorEnv(e, 2, dtype=torch.float64) for e in (one, other))
    up_to(env, 61)
    resumed.reset(seed=5)
    other.load_state_dict(one.state_dict())
    assert other.simulator.tangent_size == one.simulator.tangent_size
    resumed.set_state(tuple(env.get_state()))
    for _ in range(9):
        action = torch.rand(2, 1, dtype=torch.float64)
        pairs = zip(env.step(action)[:4], resumed.step(action)[:4], strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    with pytest.raises(RequestError, match="its attributes are others now"):
        finite_difference(Latch, max_episode_steps=400).load_state_dict(one.state_dict())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (VeryLateFile, "file has become a TextIOWrapper, which cannot be saved"),
        (VeryLateCounter, r"writes \w+.total, which all its environments share"),
    ],
)
def test_what_cannot_be_held_is_refused_while_it_runs(kind: type[Mass], message: str) -> None:
    adapter = finite_difference(kind, max_episode_steps=400)
    env = DifferentiableVectorEnv(adapter, 2, dtype=torch.float64)
    with pytest.raises(RequestError, match=message):
        up_to(env, 61)


UNRELATED = [0.0]
"""A variable of this module that has the name of an attribute below."""


class NamedAlike(Mass):
    """Has an attribute with the name of a variable of its module, which it does not use."""

    def begin(self) -> None:
        self.UNRELATED = 0.0

    def after(self, far: bool, action: float) -> Any:
        self.UNRELATED += far
        return self.UNRELATED


def test_a_variable_with_the_name_of_an_attribute_is_not_shared_state() -> None:
    """Others may change it while the environment runs, as a loop variable of a script."""
    env = DifferentiableVectorEnv(finite_difference(NamedAlike, max_episode_steps=60), 2)
    env.reset(seed=0)
    for step in range(20):
        UNRELATED[0] = float(step)
        env.step(torch.ones(2, 1))
