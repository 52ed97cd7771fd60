"""Where a fault began: the recorded windows are taken again and followed number by number.

The order of the search is that of the computation: parameters, buffers and moments before a window;
its noise; actions, states, rewards and observations forward in time; layers and targets of the
update; derivatives backward in time; parameters after the step. The first that is bad is named.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.errors import EnvFaultError, NonFiniteError
from pgtoolkit.rollouts.rollout import collect, unroll
from pgtoolkit.rollouts.tape import TapedFaultError, TapeEndError
from pgtoolkit.rollouts.window import Window
from pgtoolkit.training.faults.adjoints import Growth, growth_of, jacobian_norm, raising_row
from pgtoolkit.training.faults.agent_parts import AgentParts
from pgtoolkit.training.faults.flight_recorder import copied, leaves
from pgtoolkit.training.faults.flight_replay import Outcome, Replay
from pgtoolkit.training.faults.trace_graph import GraphWatch, Origin
from pgtoolkit.training.faults.trace_steps import (
    ACTION,
    AFTER_RESET,
    OBSERVATION,
    REWARD,
    Bad,
    Step,
    WatchedEnv,
    first_bad,
    largest,
    taped_steps,
)

HUGE_PARAMETER = 1e6
"""Size from which a parameter counts as bad although it is finite: those of networks that learn are
below a thousandth of it."""
HUGE_NUMBER = 1e18
"""Size of a reward or an observation from which its square is no float32."""
LARGE_PARAMETER = 50.0
"""Size from which a parameter is named as the likely cause of an output that is not finite."""
JUMP = 10.0
"""Ratio of a parameter's size to that before from which a change from outside is named."""
NEAR_OVERFLOW = 1e12
"""Size of an adjoint from which its growth, and not one singular derivative, is the cause of an
overflow."""
OUTLIER = 1e3
"""Ratio of a reward or an observation to the median size from which a spike is put down to it."""
KINDS = ("parameter", "buffer", "moment", "state")


@final
@dataclasses.dataclass(frozen=True)
class Address:
    """Where a fault began.

    Attributes:
        tensor: the kind of tensor: ``reward``, ``parameter``, ``derivative``, ...
        sentence: the address and what is known of the cause.
        parameter: the parameter's, buffer's or layer's name.
        step: the step of the window.
        env_index: the environment.
        update: the number of the update, counted from 1.
    """

    tensor: str
    sentence: str
    parameter: str | None = None
    step: int | None = None
    env_index: int | None = None
    update: int | None = None


@final
@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a replay found.

    Attributes:
        address: where the fault began; None where nothing was found.
        repeated: whether the replay came to the same fault, to the bit.
        replay: what the replay came to, in words.
        notes: further sentences.
    """

    address: Address | None
    repeated: bool
    replay: str
    notes: tuple[str, ...] = ()


@final
class Investigation:
    """Looks through windows that were taken again.

    Args:
        replay: the agent that took them, as it was made.
        outcomes: what became of each window.
        fault: the content of the fault's file.
        at_fault: the agent's state when the fault was recorded; None if unknown.
    """

    def __init__(
        self,
        replay: Replay,
        fresh: Mapping[str, Any],
        outcomes: Sequence[Outcome],
        fault: Mapping[str, Any],
        at_fault: Mapping[str, Any] | None,
    ) -> None:
        self.replay, self.outcomes, self.fault, self.at_fault = replay, outcomes, fault, at_fault
        self.parts = AgentParts(replay.agent)
        # What is infinite in a fresh agent, such as bounds, is meant to be.
        self.meant = {path for path, x in leaves(fresh).items() if not finite(x)}

    def begin(self) -> Address | None:
        """Where the fault began."""
        for number, outcome in enumerate(self.outcomes):
            found = self.before(number) or self.noise(outcome)
            failed = outcome.error is not None and not isinstance(outcome.error, TapeEndError)
            if found is None and (failed or self.bad_state(outcome.after, KINDS[:3])):
                found = Trace(self, outcome).address()
            if found is not None:
                return found
        return self.at_the_fault() or self.passing()

    # The state --------------------------------------------------------------------------------

    def bad_state(
        self, state: Mapping[str, Any], kinds: Sequence[str] = KINDS
    ) -> tuple[str, str, str, float, int] | None:
        """The first entry of a state that is bad: kind, name, words, value, place; else None."""
        found = []
        for path, tensor in leaves(state).items():
            if path in self.meant or not tensor.is_floating_point() or tensor.numel() == 0:
                continue
            flat = tensor.flatten()
            bad = ~torch.isfinite(flat) | (flat.abs() > HUGE_PARAMETER)
            if not bool(bad.any()):
                continue
            place = int(bad.nonzero()[0])
            named = self.parts.describe(path, place)
            if named.kind != "parameter":
                bad = ~torch.isfinite(flat)
                if not bool(bad.any()):
                    continue
                place = int(bad.nonzero()[0])
                named = self.parts.describe(path, place)
            row = place // (tensor.numel() // len(tensor)) if tensor.dim() else 0
            if named.kind in kinds:
                found.append((named.kind, named.name, named.words, float(flat[place]), row))
        return min(found, key=lambda entry: KINDS.index(entry[0])) if found else None

    def before(self, number: int) -> Address | None:
        """What is bad before a window begins, and who made it so."""
        outcome = self.outcomes[number]
        update = outcome.flight.num_updates + 1
        bad = self.bad_state(outcome.before)
        if bad is None:
            return self.changed_largely(number)
        kind, name, words, value, row = bad
        when = f"is {value:g} already before update {update}, the first that is recorded"
        if outcome.changed:
            when = (
                f"became {value:g} between update {update - 1} and update {update}: none of the "
                f"recorded updates did it (update {update - 1}, taken again, leaves it finite)"
            )
        env_index = row if kind == "state" and ".env." in name else None
        return Address(kind, f"{words} {when}", name, None, env_index, update)

    def changed_largely(self, number: int) -> Address | None:
        """A parameter that something other than the recorded updates made far larger."""
        if number == 0:
            return None
        outcome = self.outcomes[number]
        update = outcome.flight.num_updates + 1
        when = f"between update {update - 1} and update {update}"
        one, two = self.outcomes[number - 1].after, outcome.before
        return self.jump(one, two, outcome.changed, when, update)

    def jump(
        self,
        before: Mapping[str, Any],
        after: Mapping[str, Any],
        changed: Sequence[str],
        when: str,
        update: int,
    ) -> Address | None:
        """The first changed parameter, buffer or moment that is far larger than it was."""
        one, two = leaves(before), leaves(after)
        for path in changed:
            named = self.parts.describe(path, 0)
            if path not in one or path not in two or named.kind not in KINDS[:3]:
                continue
            small, large = (float(x[path].abs().max()) for x in (one, two))
            if large > JUMP * max(small, 1.0):
                sentence = (
                    f"{named.words} was changed {when} by something "
                    f" other than the recorded updates: its largest entry went from "
                    f"{small:g} to {large:g}"
                )
                return Address(named.kind, sentence, named.name, None, None, update)
        return None

    def noise(self, outcome: Outcome) -> Address | None:
        """Noise that was recorded and is not finite."""
        for noise in outcome.flight.noise:
            bad = (~torch.isfinite(noise)).nonzero()
            if len(bad):
                step, env_index = int(bad[0, 0]), int(bad[0, 1])
                sentence = (
                    f"the noise of the action of environment {env_index} at step {step} of the "
                    f"window is {float(noise[tuple(bad[0])]):g}: the generator gave it, or what "
                    "stands in its place"
                )
                update = outcome.flight.num_updates + 1
                return Address("noise", sentence, None, step, env_index, update)
        return None

    def at_the_fault(self) -> Address | None:
        """What was bad when the fault was recorded, and is not when the window is taken again."""
        if self.at_fault is None or not self.outcomes:
            return None
        last = self.outcomes[-1]
        bad, update = self.bad_state(self.at_fault, KINDS[:3]), last.flight.num_updates
        if bad is None:
            changed = self.replay.different(last.after, self.at_fault)
            when = f"between update {last.flight.num_updates} and the fault"
            return self.jump(last.after, self.at_fault, changed, when, update + 1)
        kind, name, words, value, _ = bad
        sentence = (
            f"{words} was {value:g} when the fault was recorded, and is finite when update "
            f"{update + 1} is taken again: something other than the agent changed it meanwhile"
        )
        return Address(kind, sentence, name, None, None, update + 1)

    # Faults that do not stop a run ------------------------------------------------------------

    def passing(self) -> Address | None:
        """Where a spike or a collapse began."""
        if self.fault.get("kind") == "spike" and self.outcomes:
            return Trace(self, self.outcomes[-1]).spike()
        if self.fault.get("kind") == "collapse" and self.outcomes:
            return self.collapse()
        return None

    def collapse(self) -> Address:
        """The recorded update that moved the policy most."""

        def moved(outcome: Outcome) -> float:
            kl = outcome.metrics.get("train/approx_kl")
            return -math.inf if kl is None or math.isnan(float(kl)) else float(kl)

        worst = max(self.outcomes, key=moved)
        shares = movement(self.parts, worst)
        name = max(shares, key=lambda one: shares[one], default=None)
        first, last = (x.flight.num_updates + 1 for x in (self.outcomes[0], self.outcomes[-1]))
        sentence = (
            f"of the recorded updates ({first} to {last}) update {worst.flight.num_updates + 1} "
            f"moved the policy most (KL {moved(worst):.3g} nats)"
        )
        if name is not None:
            sentence += f", most of all its parameter {name} (by {shares[name]:.3g} of its size)"
        return Address("return", sentence, name, None, None, worst.flight.num_updates + 1)

    # Whether it repeats -----------------------------------------------------------------------

    def repeats(self) -> tuple[bool, str]:
        """Whether the replay came to the same fault, and what it came to, in words."""
        last, fault = self.outcomes[-1], self.fault
        update = f"update {last.flight.num_updates + 1}"
        if fault.get("where") == "state":
            same = self.bad_state(last.before) is not None
            return same, f"the recorded state before {update} {'is' if same else 'is not'} bad"
        if fault.get("kind") == "spike":
            same = last.norm is not None and str(last.norm) == str(fault.get("norm"))
            return same, f"{update}, taken again, has a gradient of norm {last.norm}"
        if last.error is None:
            same = self.at_fault is not None and not self.replay.different(
                last.after, self.at_fault
            )
            same &= fault.get("kind") == "collapse" or fault.get("where") == "evaluation"
            return same, f"{update}, taken again, ends without an error"
        if isinstance(last.error, TapedFaultError):
            player = self.replay.player
            same = player is not None and player.different is None
            return same, (
                f"{update}, taken again, comes by the same actions to the step at which the "
                "environment failed"
                if same
                else f"{update}, taken again, takes other actions than those recorded"
            )
        name = type(last.error).__name__
        same = (name, str(last.error)) == (fault.get("type"), fault.get("message"))
        return same, f"{update}, taken again, ends with {name}: {last.error}"


@final
class Trace:
    """Takes one window again with every layer and derivative watched.

    Args:
        investigation: gives the replay, the agent's parts and the fault.
        outcome: the window.
    """

    def __init__(self, investigation: Investigation, outcome: Outcome) -> None:
        self.all, self.outcome = investigation, outcome
        self.replay, self.parts = investigation.replay, investigation.parts
        self.agent, self.collector = self.replay.agent, self.replay.collector
        self.update = outcome.flight.num_updates + 1
        noise = outcome.flight.noise
        num_steps, num_envs = noise[0].shape[:2] if noise else (0, 0)
        output = getattr(self.agent.policy.head, "output", None)
        self.watch = GraphWatch(self.parts.layers(), num_steps, num_envs, output)
        self.steps: list[Step] = []
        self.error: Exception | None = None
        self.window: Window | None = None
        self.collected = False
        self._fly()

    def _fly(self) -> None:
        outcome, player = self.outcome, self.replay.player
        self.replay.restore(outcome.before, outcome.rollout)
        watched = None
        if player is None and self.collector is not None:
            watched = WatchedEnv(self.collector.env, self.watch.seen)
        with plain(self.agent, self.parts, watched), self.watch.watching():
            window, self.metrics, self.error = self.replay.fly(outcome.flight)
        self.window, self.collected = window, window is not None
        if watched is not None:
            self.steps = watched.steps
        elif outcome.rollout is not None:
            dtype = self.agent.policy.normalizer.input_dtype
            kept = torch.float64 if dtype == "float64" else torch.float32
            self.steps = taped_steps(outcome.flight.events, outcome.rollout["obs"], kept)

    def address(self) -> Address | None:
        """Where the fault of this window began."""
        bad = first_bad(self.steps)
        if bad is not None:
            return self.collected_bad(bad)
        if not self.collected and self.error is not None:
            return self.raised() or self.of_error(self.error)
        if self.error is not None:
            found = self.of_window() or self.huge() or self.of_update()
            return found or self.of_error(self.error)
        return self.stepped()

    # The collected window ---------------------------------------------------------------------

    def collected_bad(self, bad: Bad) -> Address:
        """The address of a number of the window that is not finite."""
        step = self.steps[bad.step]
        where = self.place(bad.step, bad.env_index)
        given = self.given(step, bad.env_index)
        if bad.tensor == ACTION:
            return self.action(bad, where, given)
        beyond = ", which float32 cannot hold" if math.isfinite(bad.value) else ""
        words = {
            REWARD: f"the reward of {where} is {bad.value:g}{beyond}: the environment returned it "
            f"({given})",
            OBSERVATION: f"the observation after the step of {where} has {bad.value:g}: the "
            f"environment returned it ({given})",
            AFTER_RESET: f"the observation after a reset of {where} has {bad.value:g}: the "
            "environment's reset returned it",
        }
        transition = (
            f"the transition of {where} gives {bad.value:g} in its {bad.tensor} ({given}): "
            "the environment computed it"
        )
        tensor = "state" if bad.tensor.startswith("state") else bad.tensor
        sentence = words.get(bad.tensor, transition)
        return Address(tensor, sentence, None, bad.step, bad.env_index, self.update)

    def action(self, bad: Bad, where: str, given: str) -> Address:
        """The address of an action that is not finite: the policy made it from finite inputs."""
        layer = self.first_bad_layer(self.steps[bad.step].obs)
        name, large = self.large_parameter()
        cause = f"the first layer whose output is not finite is {layer}" if layer else ""
        cause += f"{'; ' if cause and large else ''}{large}"
        sentence = (
            f"the action of {where} is {bad.value:g}: the policy made it from finite numbers "
            f"({given}){': ' if cause else ''}{cause}"
        )
        return Address(ACTION, sentence, name, bad.step, bad.env_index, self.update)

    def large_parameter(self) -> tuple[str | None, str]:
        """The policy's parameter with the largest entry, if that is very large, and words on it."""
        parameters = leaves(self.outcome.before)
        sizes = {
            named.name: float(parameters[path].abs().max())
            for path, named in ((path, self.parts.describe(path, 0)) for path in parameters)
            if named.kind == "parameter" and named.words.endswith("of the policy")
        }
        name = max(sizes, key=lambda one: sizes[one], default=None)
        if name is None or not sizes[name] > LARGE_PARAMETER:
            return None, ""
        return name, f"its parameter {name} has an entry of size {sizes[name]:g}"

    def of_window(self) -> Address | None:
        """The first pre-squash action or log-density of the window that is not finite."""
        if self.window is None:
            return None
        pairs = zip(self.window.pre_action.detach(), self.window.log_prob.detach(), strict=True)
        named = [Step(u, {"pre-squash action": u, "log-probability": p}, []) for u, p in pairs]
        bad = first_bad(named)
        if bad is None:
            return None
        name, large = self.large_parameter()
        where = self.place(bad.step, bad.env_index)
        sentence = f"the {bad.tensor} of {where} is {bad.value:g}{': ' if large else ''}{large}"
        return Address(bad.tensor, sentence, name, bad.step, bad.env_index, self.update)

    @torch.no_grad()
    def first_bad_layer(self, obs: Tensor) -> str | None:
        """The first layer of the policy whose output at ``obs`` ``[N, O]`` is not finite."""
        watch = GraphWatch(self.watch.layers, 0, len(obs))
        handles = [layer.register_forward_hook(watch._layer_hook) for layer in watch.layers]
        with contextlib.suppress(Exception):
            self.agent.policy(obs)
        for handle in handles:
            handle.remove()
        return None if watch.forward_origin is None else watch.forward_origin.name

    def raised(self) -> Address | None:
        """The address of an exception that the environments raised; None if it is not theirs."""
        if not self.steps or set(self.steps[-1].tensors) != {ACTION}:
            return None
        number, step = len(self.steps) - 1, self.steps[-1]
        fault, env_index = self.all.fault, self.all.fault.get("env_index")
        if not isinstance(env_index, int) and self.replay.player is None:
            env_index = raising_row(self.collector.env, step)
        known = isinstance(env_index, int) and 0 <= env_index < len(step.obs)
        env_index = env_index if known else None
        error = self.error
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, TapedFaultError | EnvFaultError):
            text = f"{fault.get('type')}: {fault.get('message')}"
        where = (
            f"the environments at {self.when(number)}"
            if env_index is None
            else self.place(number, env_index)
        )
        given = "" if env_index is None else f" ({self.given(step, env_index)})"
        sentence = f"the environment raised in the step of {where}: {text}{given}"
        tensor = next((x for x in (REWARD, OBSERVATION) if x in text.lower()), "environment")
        return Address(tensor, sentence, None, number, env_index, self.update)

    # The update -------------------------------------------------------------------------------

    def huge(self) -> Address | None:
        """A reward or an observation so large that sums or squares of it overflow."""
        for name in (REWARD, OBSERVATION):
            found = largest(self.steps, name)
            if found is not None and abs(found.value) > HUGE_NUMBER:
                where = self.place(found.step, found.env_index)
                sentence = (
                    f"the {name} of {where} has the size {found.value:g}, and what is computed "
                    f"from it overflows ({self.error}): the environment returned it "
                    f"({self.given(self.steps[found.step], found.env_index)})"
                )
                return Address(name, sentence, None, found.step, found.env_index, self.update)
        return None

    def of_update(self) -> Address | None:
        """The first layer or derivative of the update that is not finite."""
        watch = self.watch
        if watch.forward_origin is not None and watch.origin is None:
            return self.of_layer(watch.forward_origin)
        if watch.origin is None:
            return None
        origin = watch.origin
        env_index = origin.env_index if origin.env_index is not None else index_of(self.error)
        growth = None if env_index is None else growth_of(watch.adjoints, env_index)
        near = growth is not None and growth.largest > NEAR_OVERFLOW
        if near and growth is not None and (origin.step is None or growth.step >= origin.step):
            return self.of_growth(growth, origin, env_index)
        place = "" if origin.step is None else f" at step {origin.step} of the window"
        which = "" if env_index is None else f" in environment {env_index}"
        line = f", the derivative of `{origin.line}`" if origin.line else ""
        sentence = (
            f"the derivative becomes {origin.value:g} in {origin.name}{line}{place}{which}: what "
            "is differentiated is finite there, and its derivative is not"
        )
        if origin.step is not None and env_index is not None and origin.step < len(self.steps):
            sentence += f" ({self.given(self.steps[origin.step], env_index)})"
        return Address("derivative", sentence, None, origin.step, env_index, self.update)

    def of_layer(self, origin: Origin) -> Address:
        """The address of a layer whose output is not finite although its input is."""
        place = "" if origin.step is None else f" at step {origin.step} of the window"
        which = "" if origin.env_index is None else f", environment {origin.env_index}"
        sentence = f"the output of the layer {origin.name} is {origin.value:g}{place}{which}"
        return Address("layer", sentence, origin.name, origin.step, origin.env_index, self.update)

    def of_growth(self, growth: Growth, origin: Origin, env_index: int | None) -> Address:
        """The address of an adjoint that grows until it overflows."""
        assert env_index is not None
        ends = f"until it overflows at step {origin.step}" if origin.step is not None else ""
        step = self.steps[growth.step] if growth.step < len(self.steps) else None
        norm = None if step is None else jacobian_norm(self.collector.env, step, env_index)
        text = "" if norm is None else f": the Jacobian of the transition there has norm {norm:.3g}"
        given = "" if step is None else f" ({self.given(step, env_index)})"
        sentence = (
            f"the adjoint dJ/ds grows {growth.factor:.3g} times in the transition of step "
            f"{growth.step} of the window in environment {env_index}{text}{given}; over the "
            f"window it grows {growth.mean:.3g} times a step {ends}"
        )
        return Address("derivative", sentence.rstrip(), None, growth.step, env_index, self.update)

    def of_error(self, error: Exception) -> Address:
        """What the error itself says."""
        step, env_index = getattr(error, "step", None), index_of(error)
        tensor = getattr(error, "tensor", type(error).__name__)
        name = tensor.removeprefix("gradient of ") if tensor.startswith("gradient of ") else None
        large, text = self.large_parameter() if isinstance(error, NonFiniteError) else (None, "")
        name, sentence = name or large, f"{error}{': in the policy, ' if text else ''}{text}"
        return Address(tensor, sentence, name, step, env_index, self.update)

    def stepped(self) -> Address | None:
        """The first parameter, buffer or moment that the update made bad."""
        bad = self.all.bad_state(self.outcome.after, KINDS[:3])
        if bad is None:
            return None
        kind, name, words, value, _ = bad
        rate = self.metrics.get("train/learning_rate")
        sentence = f"{words} became {value:g} in update {self.update}"
        for (_, own), parameter in self.parts.parameters().items():
            if own == name and kind == "parameter" and parameter.grad is not None:
                size = float(parameter.grad.abs().max())
                sentence += f": its gradient was at most {size:.3g}"
                break
        if rate is not None:
            sentence += f"; the learning rate is {float(rate):g}"
        return Address(kind, sentence, name, None, None, self.update)

    # A spike ----------------------------------------------------------------------------------

    def spike(self) -> Address | None:
        """Trajectory, step and parameter that make up most of a large gradient."""
        measured = measured_gradients(self)
        rows, sentence, env_index, step, name = None, "", None, None, None
        if measured:
            squares = {n: g.double().flatten(1).square().sum(1) for n, g in measured.items()}
            rows = torch.stack([*squares.values()]).sum(0)
            env_index = int(rows.argmax())
            share = float(rows[env_index] / rows.sum())
            name = max(squares, key=lambda one: float(squares[one][env_index]))
            part = float(squares[name][env_index] / rows[env_index])
            sentence = (
                f"environment {env_index} has {share:.0%} of the gradients' squared norm, "
                f"{part:.0%} of that in the parameter {name}"
            )
        by_output = [x for x in self.watch.by_output if bool(torch.isfinite(x).all())]
        if by_output:
            size = by_output[0].double().flatten(2).norm(dim=-1)
            env_index = int(size.amax(0).argmax()) if env_index is None else env_index
            step = int(size[:, env_index].argmax())
            sentence += (
                f"{'; ' if sentence else ''}the gradient by the policy's output is largest at "
                f"step {step} of the window in environment {env_index}: "
                f"{float(size[step, env_index]):.3g}"
            )
        if env_index is not None and self.replay.player is None:
            growth = growth_of(self.watch.adjoints, env_index)
            if growth is not None:
                step = growth.step
                norm = jacobian_norm(self.collector.env, self.steps[step], env_index)
                text = "" if norm is None else f", where the Jacobian has norm {norm:.3g}"
                sentence += (
                    f"; the adjoint dJ/ds grows {growth.factor:.3g} times in the transition of "
                    f"step {step}{text} ({self.given(self.steps[step], env_index)})"
                )
        outlier = self.outlier(env_index)
        if outlier is not None:
            where = self.place(outlier.step, outlier.env_index)
            first = f"the {outlier.tensor} of {where} has the size {outlier.value:g}"
            given = self.given(self.steps[outlier.step], outlier.env_index)
            sentence = f"{first} ({given}){'; ' if sentence else ''}{sentence}"
            step, env_index = outlier.step, outlier.env_index
        if not sentence:
            return None
        tensor = "gradient" if outlier is None else outlier.tensor
        return Address(tensor, sentence, name, step, env_index, self.update)

    def outlier(self, env_index: int | None) -> Bad | None:
        """A reward or an observation of the environment far larger than all others are."""
        for name in (REWARD, OBSERVATION):
            found = largest(self.steps, name)
            sizes = [s.tensors[name].abs().flatten() for s in self.steps if name in s.tensors]
            if found is None or env_index not in (None, found.env_index):
                continue
            if abs(found.value) > OUTLIER * max(float(torch.cat(sizes).median()), 1e-12):
                return found
        return None

    # Words ------------------------------------------------------------------------------------

    def when(self, step: int) -> str:
        """The step of the window, and of the run."""
        total = self.outcome.flight.num_steps + step * self.watch.num_envs
        return f"step {step} of the window (environment step {total:,})"

    def place(self, step: int, env_index: int) -> str:
        return f"environment {env_index} at {self.when(step)}"

    def given(self, step: Step, env_index: int) -> str:
        """Action and observation or state of one environment at a step."""
        parts = (
            [f"action {numbers(step.tensors[ACTION][env_index])}"]
            if step.tensors.get(ACTION) is not None
            else []
        )
        parts.append(f"observation {numbers(step.obs[env_index])}")
        if step.state:
            flat = torch.cat([leaf[env_index].double().flatten() for leaf in step.state])
            parts.append(f"state {numbers(flat)}")
        return ", ".join(parts)


@contextlib.contextmanager
def plain(agent: Any, parts: AgentParts, watched: WatchedEnv | None) -> Iterator[None]:
    """A context without compiled code and checkpointing, so that every step can be watched."""
    collector: Any = getattr(agent, "collector", None)
    compiled = {one: one.compiled for one in parts.loops}
    kept = None if collector is None else (collector.rollout, collector.stepped)
    for one in compiled:
        one.compiled = False
    if collector is not None and collector.rollout is not collect:
        collector.rollout = unroll
    if watched is not None:
        collector.stepped = watched
    try:
        yield
    finally:
        for one, was in compiled.items():
            one.compiled = was
        if collector is not None and kept is not None:
            collector.rollout, collector.stepped = kept


def measured_gradients(trace: Trace) -> Mapping[str, Tensor]:
    """The gradient of every trajectory ``{parameter: [N, ...]}`` in a window taken once more."""
    found: list[Mapping[str, Tensor]] = []

    def keeping(function: Callable[..., Any]) -> Callable[..., Any]:
        def kept(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            found.append(result[0] if isinstance(result, tuple) else result)
            return result

        return kept

    monitors = trace.parts.monitors
    intervals = [monitor.interval for monitor in monitors]
    for monitor in monitors:
        monitor.interval = 1
        monitor.backward_beside = keeping(monitor.backward_beside)  # type: ignore[method-assign]
        monitor.measure = keeping(monitor.measure)  # type: ignore[method-assign]
    try:
        trace._fly()
    finally:
        for monitor, interval in zip(monitors, intervals, strict=True):
            monitor.interval = interval
            del monitor.backward_beside, monitor.measure
    return next((gradients for gradients in found if gradients), {})


def movement(parts: AgentParts, outcome: Outcome) -> dict[str, float]:
    """How far an update moved each parameter, as a share of its size."""
    found = {}
    before, after = leaves(outcome.before), leaves(outcome.after)
    for path in before.keys() & after.keys():
        named = parts.describe(path, 0)
        if named.kind == "parameter":
            size = float(before[path].double().norm())
            moved = float((after[path].double() - before[path].double()).norm())
            found[named.name] = moved / max(size, 1e-12)
    return found


def index_of(error: Exception | None) -> int | None:
    """The environment that an error names."""
    return error.env_index if isinstance(error, NonFiniteError | EnvFaultError) else None


def numbers(tensor: Tensor, most: int = 8) -> str:
    """The first entries of a tensor, in brackets."""
    flat = tensor.detach().double().flatten().tolist()
    shown = ", ".join(f"{x:.4g}" for x in flat[:most])
    return f"[{shown}{', ...' if len(flat) > most else ''}]"


def finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def explain(
    replay: Replay,
    flights: Sequence[Any],
    fault: Mapping[str, Any],
    at_fault: Mapping[str, Any] | None,
) -> Explanation:
    """Takes the recorded windows again and says where the fault began.

    Args:
        replay: an agent as it was made from the run's settings.
        flights: the recorded windows.
        fault: the content of the fault's file.
        at_fault: the agent's state when the fault was recorded.
    """
    fresh = copied(replay.agent.state_dict())
    outcomes = replay.run(flights)
    investigation = Investigation(replay, fresh, outcomes, fault, at_fault)
    repeated, words = investigation.repeats()
    notes = []
    address = investigation.begin()
    if not repeated and at_fault is not None:
        repeated, words = retried(replay, outcomes[-1], fault, at_fault) or (repeated, words)
    changed = [path for outcome in outcomes for path in outcome.changed]
    if changed:
        notes.append(
            f"the recorded states differ from those that the updates leave, first in {changed[0]}: "
            "something else changed them, or the environments do not repeat themselves"
        )
    if replay.noise_differs:
        notes.append("the recorded noise is not what the recorded generator draws")
    return Explanation(address, repeated, words, tuple(notes))


def retried(
    replay: Replay, last: Outcome, fault: Mapping[str, Any], at_fault: Mapping[str, Any]
) -> tuple[bool, str] | None:
    """Takes the last window again with the parameters that the agent had at the fault.

    They are those before the window if it failed while it was collected. Something else than the
    recorded updates may have changed them since the last recorded state.

    Returns:
        True and what happened, if it came to the same fault; else None.
    """
    if "collector" not in at_fault or "collector" not in last.before:
        return None
    replay.restore({**at_fault, "collector": last.before["collector"]}, last.rollout)
    error = replay.fly(last.flight)[2]
    if (type(error).__name__, str(error)) != (fault.get("type"), fault.get("message")):
        return None
    return True, (
        f"update {last.flight.num_updates + 1}, taken again with the parameters that the agent had "
        f"at the fault, ends with {type(error).__name__}: {error}"
    )
