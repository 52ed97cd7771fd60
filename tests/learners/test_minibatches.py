"""Steps on minibatches: against torch's own optimiser, and compiled against plain."""

import logging
import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from pgtoolkit.agents.ppo import Batch, Ppo, PpoConfig, ppo_loss
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.estimators.proximal import standardized
from pgtoolkit.learners.minibatches import GivenModules, Minibatches, Objective, draw_minibatches
from pgtoolkit.learners.step_rules.flat_adam import Blocks, FlatAdam, adam_state

SETTINGS: dict[str, Any] = {
    "num_envs": 2,
    "hidden": (8,),
    "distribution": "gaussian",
    "clip_range": 0.2,
    "vf_coef": 0.5,
    "ent_coef": 0.01,
    "max_grad_norm": 0.5,
    "adam_epsilon": 1e-5,
}
# torch's compiler uses what torch itself has deprecated.


def make(dtype: torch.dtype, *, compiled: bool = False, **settings: Any) -> Minibatches[Batch]:
    """The minibatch steps of a PPO agent, with its modules in the given precision."""
    config = PpoConfig(**(SETTINGS | settings), compile="never")
    agent = Ppo(config, DifferentiableVectorEnv(Pendulum(), 2), seed=1)
    modules = {name: module.to(dtype) for name, module in agent.minibatches.modules.items()}
    rule = agent.minibatches.objectives[0].rule
    found: Minibatches[Batch] = Minibatches(
        [Objective(modules, agent.loss, rule)], compiled=compiled
    )
    agent.minibatches = found
    return found


def batch_for(update: Minibatches[Batch], size: int, dtype: torch.dtype) -> Batch:
    generator = torch.Generator().manual_seed(2)
    obs = torch.randn(size, 3, generator=generator, dtype=dtype)
    noise = torch.randn(size, 1, generator=generator, dtype=dtype)
    advantage, target = torch.randn(2, size, generator=generator, dtype=dtype)
    with torch.no_grad():
        distribution = update.modules["policy"](obs)
        pre_action = distribution.pre_action(noise)
        log_prob = distribution.log_prob_of_pre_action(pre_action)
    return Batch(obs, pre_action, noise, log_prob, advantage, target)


def assert_same_metrics(
    found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-12
) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=tolerance, atol=tolerance)


def test_it_is_the_loop_that_a_user_would_write() -> None:
    update, plain = make(torch.float64), make(torch.float64)
    batch = batch_for(update, 40, torch.float64)
    rows = draw_minibatches(40, 8, 3, torch.Generator().manual_seed(3))
    metrics = update.run(batch, rows, 0.01)
    policy, value_function = plain.modules["policy"], plain.modules["value"]
    parameters = [*policy.parameters(), *value_function.parameters()]
    optimizer = torch.optim.Adam(parameters, 0.01, eps=1e-5)
    for step, index in enumerate(rows):
        mini = Batch(*(x[index] for x in batch))
        distribution = policy(mini.features)
        loss, _ = ppo_loss(
            distribution.log_prob_of_pre_action(mini.pre_action),
            mini.log_prob,
            standardized(mini.advantage),
            value_function(mini.features),
            mini.target,
            distribution.entropy(mini.noise),
            clip_range=0.2,
            vf_coef=0.5,
            ent_coef=0.01,
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        torch.testing.assert_close(metrics["loss"][step], loss.detach())
        torch.testing.assert_close(metrics["norm"][step], norm)
    for found, expected in zip(update.parameters, parameters, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_compiled_and_plain_take_the_same_steps(dtype: torch.dtype, tolerance: float) -> None:
    """They agree again on a window of another size with another number of minibatches."""
    plain, compiled = make(dtype), make(dtype, compiled=True)
    for size, epochs in ((64, 2), (80, 1)):
        batch = batch_for(plain, size, dtype)
        rows = draw_minibatches(size, 16, epochs, torch.Generator().manual_seed(3))
        expected, found = plain.run(batch, rows, 0.01), compiled.run(batch, rows, 0.01)
        assert_same_metrics(found, expected, tolerance)
    for a, b in zip(compiled.parameters, plain.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=10 * tolerance, atol=10 * tolerance)


def test_what_cannot_be_compiled_is_said_and_runs_plainly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any, free: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr("pgtoolkit.learners.minibatches.CompiledLoop", lambda function: fail)
    plain, compiled = make(torch.float64), make(torch.float64, compiled=True)
    batch = batch_for(plain, 32, torch.float64)
    rows = draw_minibatches(32, 8, 1, torch.Generator().manual_seed(3))
    with caplog.at_level(logging.WARNING, logger="pgtoolkit"):
        found = [compiled.run(batch, rows, 0.01) for _ in range(2)]
    expected = [plain.run(batch, rows, 0.01) for _ in range(2)]
    assert ["no compiler here" in r.message for r in caplog.records] == [True]
    for one, other in zip(found, expected, strict=True):
        assert_same_metrics(one, other)


def test_it_compiles_for_few_shapes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows in which ever fewer steps happened do not compile for ever."""
    made = []

    def loop(function: Any) -> Any:
        made.append(function)
        return lambda *arguments, free: function(*arguments)

    monkeypatch.setattr("pgtoolkit.learners.minibatches.CompiledLoop", loop)
    plain, compiled = make(torch.float64), make(torch.float64, compiled=True)
    for size in (16, 15, 14, 13):
        batch = batch_for(plain, size, torch.float64)
        rows = draw_minibatches(size, 16, 2, torch.Generator().manual_seed(3))
        expected, found = plain.run(batch, rows, 0.01), compiled.run(batch, rows, 0.01)
        assert_same_metrics(found, expected)
    assert len(made) == 2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("target", math.inf, "loss of minibatch 2 of the update is not finite"),
        ("target", 1e152, "norm of the gradient of minibatch 2 of the update is not finite"),
    ],
)
def test_bad_numbers_name_their_minibatch_and_change_nothing(
    field: str, value: float, message: str
) -> None:
    update = make(torch.float64, vf_coef=1e3)  # squared only in the norm
    batch = batch_for(update, 40, torch.float64)
    rows = draw_minibatches(40, 8, 1, torch.Generator().manual_seed(3))
    getattr(batch, field)[rows[2, 0]] = value
    before = [x.clone() for x in update.parameters], update.state
    with pytest.raises(NonFiniteError, match=message):
        update.run(batch, rows, 0.01)
    assert all(torch.equal(a, b) for a, b in zip(update.parameters, before[0], strict=True))
    assert update.state is before[1]


def test_a_saved_optimiser_goes_on_exactly() -> None:
    first, second = make(torch.float64), make(torch.float64)
    batch = batch_for(first, 32, torch.float64)
    rows = draw_minibatches(32, 8, 1, torch.Generator().manual_seed(3))
    first.run(batch, rows, 0.01)
    second.modules.load_state_dict(first.modules.state_dict())
    second.load_state_dict(first.state_dict())
    for update in (first, second):
        update.run(batch, rows, 0.01)
    assert torch.equal(first.state.parameters, second.state.parameters)


class Two(NamedTuple):
    """A batch of one number a row."""

    x: Tensor


class Scalar(torch.nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value, dtype=torch.float64))

    def forward(self) -> Tensor:
        return self.value


def test_objectives_step_in_order_and_see_what_was_stepped_before() -> None:
    """``a <- a - lr mean x`` and then, with that ``a``, ``b <- b - lr a fresh``: by hand.

    Each minibatch has its own fresh number. With an epsilon of 1e9, Adam's first steps without
    momentum are the gradient over 1e9.
    """
    rule = FlatAdam(betas=(0.0, 0.0), epsilon=1e9, max_grad_norm=1e9)

    def first(modules: GivenModules, mini: Two, fresh: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return modules["a"]() * mini.x.mean(), {"mean": mini.x.mean()}

    def second(modules: GivenModules, mini: Two, fresh: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return modules["b"]() * modules["a"]() * fresh, {}

    one, other = Scalar(2.0), Scalar(5.0)
    update: Minibatches[Two] = Minibatches(
        [
            Objective({"a": one}, first, rule, "one"),
            Objective({"b": other}, second, rule, "other"),
        ]
    )
    batch = Two(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    fresh = torch.tensor([10.0, 20.0], dtype=torch.float64)
    found = update.run(batch, torch.tensor([[3, 0], [1, 2]]), 1e9, fresh)
    a, b, expected = 2.0, 5.0, []
    for mean, own in ((2.5, 10.0), (2.5, 20.0)):
        loss, a = a * mean, a - mean
        expected.append((loss, mean, mean, b * a * own, abs(a * own)))
        b -= a * own
    assert list(found) == ["one_loss", "mean", "one_norm", "other_loss", "other_norm"]
    for values, row in zip(found.values(), zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(values, torch.tensor(row, dtype=torch.float64))
    assert one.value.item() == pytest.approx(a, rel=1e-6)
    assert other.value.item() == pytest.approx(b, rel=1e-6)


def test_the_bad_objective_is_named() -> None:
    rule = FlatAdam(betas=(0.9, 0.999), epsilon=1e-8, max_grad_norm=1.0)

    def loss(modules: GivenModules, mini: Two) -> tuple[Tensor, dict[str, Tensor]]:
        return modules["a"]() * mini.x.mean(), {}

    update: Minibatches[Two] = Minibatches([Objective({"a": Scalar(1.0)}, loss, rule, "critic")])
    batch = Two(torch.tensor([1.0, math.inf], dtype=torch.float64))
    with pytest.raises(NonFiniteError, match="critic loss of minibatch 1 of the update"):
        update.run(batch, torch.tensor([[0], [1]]), 0.1)


def test_blocks_are_clipped_and_paced_by_their_own_rules() -> None:
    """The first block's gradient of norm 5 is clipped to 1; the other has half the rate."""
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.randn(n, generator=generator, dtype=torch.float64) for n in (2, 3)]
    gradient = torch.tensor([3.0, 4.0, 7.0, 8.0, 9.0], dtype=torch.float64)
    rules = [
        FlatAdam(betas=(0.9, 0.99), epsilon=1.0, max_grad_norm=norm, pace=pace)
        for norm, pace in ((1.0, 1.0), (math.inf, 0.5))
    ]
    state = adam_state(parameters)
    rate = torch.tensor(0.1, dtype=torch.float64)
    after, norm = Blocks(tuple(rules), (2, 3)).step(state, gradient, rate)
    alone = [
        rule.step(adam_state([x]), part, rate)[0]
        for rule, x, part in zip(rules, parameters, torch.split(gradient, [2, 3]), strict=True)
    ]
    for place in range(3):
        torch.testing.assert_close(after[place], torch.cat([one[place] for one in alone]))
    assert float(norm) == 5.0 and float(after.steps) == 1.0
    moved = state.parameters - after.parameters
    torch.testing.assert_close(moved[:2], 0.1 * gradient[:2] / 5 / (gradient[:2] / 5 + 1))
    torch.testing.assert_close(moved[2:], 0.05 * gradient[2:] / (gradient[2:] + 1))


def rows_of(size: int, batch_size: int, n_epochs: int) -> Tensor:
    return draw_minibatches(size, batch_size, n_epochs, torch.Generator().manual_seed(0))


def test_every_epoch_is_a_permutation_less_its_remainder() -> None:
    rows = rows_of(10, 3, 4)
    assert rows.shape == (12, 3)
    for epoch in rows.view(4, 9):
        assert len(set(epoch.tolist())) == 9
    assert rows_of(2, 5, 1).shape == (1, 2)
