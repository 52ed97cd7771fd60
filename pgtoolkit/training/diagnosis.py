"""The diagnosis: reads a run's measurements while it trains, and says what is wrong with them."""

import dataclasses
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, final

from pgtoolkit.diagnostics.bias import BIAS_SHARE, BIAS_Z
from pgtoolkit.diagnostics.monitor import MEASUREMENTS
from pgtoolkit.diagnostics.statistics import MIN_TRAJECTORIES
from pgtoolkit.formatting import FLAG, format_number
from pgtoolkit.state import (
    StateError,
    anything,
    at,
    entries,
    flag,
    integer,
    optional,
    require,
    series,
)
from pgtoolkit.training import alarms
from pgtoolkit.training.alarms import RULES, Rule, variance_text
from pgtoolkit.training.history import History, Series

NOTHING = "nothing to report"
CHECK = "pgtoolkit check-env tests the environment's gradient"
RETURNS = (("eval/mean_reward", "evaluations"), ("rollout/ep_rew_mean", "training returns"))
"""Tags of the return, and what they are called in a sentence."""
SIMILAR = 1.2
"""Ratio of two variances below which they are said to be about the same."""


@final
@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: name of the rule.
        since_step: environment step at which the condition began.
        number: the measured value that it is about.
        sentence: what is measured, since when, and what to do.
        short: a few words for the progress line.
    """

    kind: str
    since_step: int
    number: float
    sentence: str
    short: str

    def as_dict(self) -> dict[str, Any]:
        """The content of one entry of ``summary.json``."""
        return {name: getattr(self, name) for name in ("kind", "since_step", "sentence", "number")}


@final
@dataclasses.dataclass
class Persistence:
    """How a rule's condition has turned out lately.

    Attributes:
        steps: environment steps of the last tests.
        outcomes: whether the condition held at them.
        since: the step at which the present finding began; None if there is none.
    """

    steps: deque[int]
    outcomes: deque[bool]
    since: int | None = None

    def add(self, holds: bool, step: int, rule: Rule) -> None:
        """Counts one test; begins or ends the finding."""
        self.steps.append(step)
        self.outcomes.append(holds)
        count = sum(self.outcomes)
        if self.since is None and count >= rule.begins:
            self.since = next(s for s, held in zip(self.steps, self.outcomes, strict=True) if held)
        elif self.since is not None and count <= rule.ends:
            self.since = None

    def since_at_end(self, rule: Rule) -> int | None:
        """``since`` if the run ends here."""
        alone = rule.at_end and bool(self.outcomes) and self.outcomes[-1]
        return self.steps[-1] if self.since is None and alone else self.since

    def state_dict(self) -> dict[str, Any]:
        return {"steps": list(self.steps), "outcomes": list(self.outcomes), "since": self.since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned.

        Raises:
            StateError: it does not fit.
        """
        steps, longest = series(integer(), 0, self.steps.maxlen or 0), optional(integer())
        require(state, entries({"steps": steps, "outcomes": anything, "since": longest}))
        count = len(state["steps"])
        require(state["outcomes"], series(flag, count, count), "outcomes")
        self.steps.extend(state["steps"])
        self.outcomes.extend(state["outcomes"])
        self.since = state["since"]


@final
class Diagnosis:
    """Reads the scalars of every update and keeps the findings that hold at present.

    All tags are optional: a rule whose tag is absent or not finite is not tested, and neither
    begins nor ends a finding.
    """

    def __init__(self) -> None:
        self.history = History()
        self._persistence = new_persistence()

    def observe(self, scalars: Mapping[str, float], step: int) -> None:
        """Reads the scalars of one update.

        Args:
            scalars: TensorBoard tag to value.
            step: environment steps so far.
        """
        found = self.history.add(scalars, step)
        for rule in RULES:
            if rule.trigger.format(followed=self.history.followed) in found:
                state = self._persistence[rule.kind]
                state.add(rule.holds(self.history), step, rule)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of the present findings, the most serious first."""
        return tuple(r.kind for r in RULES if self._persistence[r.kind].since is not None)

    @property
    def findings(self) -> list[Finding]:
        """The present findings, the most serious first."""
        since = {rule: self._persistence[rule.kind].since for rule in RULES}
        return [self._finding(rule, step) for rule, step in since.items() if step is not None]

    @property
    def findings_at_end(self) -> list[Finding]:
        """The findings if the run ends here: the last evaluation counts without a second one."""
        since = {rule: self._persistence[rule.kind].since_at_end(rule) for rule in RULES}
        return [self._finding(rule, step) for rule, step in since.items() if step is not None]

    def _finding(self, rule: Rule, since: int) -> Finding:
        words = rule.words(self.history, since)
        sentence = f"{words.sentence[0].upper()}{words.sentence[1:]}."
        return Finding(rule.kind, since, words.number, sentence, words.short)

    def state_dict(self) -> dict[str, Any]:
        states = {kind: state.state_dict() for kind, state in self._persistence.items()}
        return {"history": self.history.state_dict(), "rules": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned.

        Rules that the state does not have, as that of an earlier version, begin anew.

        Raises:
            StateError: it does not fit.
        """
        fresh = new_persistence()
        rules = entries(dict.fromkeys(fresh, anything), absent=tuple(fresh))
        require(state, entries({"history": anything, "rules": rules}))
        with at("history"):
            self.history.load_state_dict(state["history"])
        self._persistence = fresh
        for kind, found in state["rules"].items():
            with at(f"rules/{kind}"):
                fresh[kind].load_state_dict(found)
        self._require_evidence()

    def _require_evidence(self) -> None:
        """Raises unless the history has what the rules say that was tested and found."""
        for rule in RULES:
            found = self._persistence[rule.kind]
            try:
                if found.outcomes:
                    rule.holds(self.history)
                if found.since_at_end(rule) is not None:
                    rule.words(self.history, found.since_at_end(rule) or 0)
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                raise StateError(f"rules/{rule.kind}", "contradicts the history") from error


def new_persistence() -> dict[str, Persistence]:
    """The state of every rule before its first test."""
    return {
        rule.kind: Persistence(deque(maxlen=rule.window), deque(maxlen=rule.window))
        for rule in RULES
    }


def short_text(findings: Sequence[Finding]) -> str:
    """The most serious finding in a few words; empty if there is none."""
    if not findings:
        return ""
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"! {findings[0].short}{more}"


def markdown(findings: Sequence[Finding], gradient: str, nothing: str = NOTHING) -> str:
    """The closing report's lines for TensorBoard's Text tab, with the newest finding first.

    Args:
        findings: what is wrong.
        gradient: what :func:`gradient_text` says.
        nothing: what is said where there is no finding, :func:`nothing_text`.
    """
    newest = sorted(findings, key=lambda finding: -finding.since_step)
    rows = "\n".join(f"- {finding.sentence}" for finding in newest) or nothing
    text = f"**Gradient:** {gradient}\n\n**Diagnosis:**\n\n{rows}"
    return FLAG.sub(r"`\g<0>`", text)


def report_lines(diagnosis: Diagnosis) -> list[str]:
    """The lines of the closing report: the gradient's quality, and all findings in full."""
    findings = diagnosis.findings_at_end
    lines = [f"gradient:       {gradient_text(diagnosis)}"]
    if not findings:
        return [*lines, f"diagnosis:      {nothing_text(diagnosis.history)}"]
    return [*lines, "diagnosis:", *(f"  - {finding.sentence}" for finding in findings)]


def nothing_text(history: History) -> str:
    """What a run without findings ends with; one whose return did not rise is not called well."""
    known = returns_of(history)
    if known is None or alarms.has_risen(known[0]):
        return NOTHING
    count = num_measurements(history)
    few = f" in {measurements_text(count)}" if 0 < count < MEASUREMENTS else ""
    return (
        f"no rule found a fault{few}, but {learning_words(history)}: train longer, or try other "
        "settings (pgtoolkit tune) and agents (pgtoolkit compare)"
    )


def num_measurements(history: History) -> int:
    """Recent measurements of the followed gradient."""
    variance = alarms.of_followed(history, "variance")
    return 0 if variance is None else len(variance.recent)


def measurements_text(count: int) -> str:
    """``1 measurement``, ``3 measurements``."""
    return f"{count} measurement{'s' if count > 1 else ''}"


def gradient_text(diagnosis: Diagnosis) -> str:
    """What the last measurements say of the gradient that was followed, in one line.

    A gradient may be sound in a run that learns nothing, so the line begins with both: the
    gradient's quality, and what became of the return.
    """
    history = diagnosis.history
    if not history.estimators():
        return (
            f"not measured: that needs {MIN_TRAJECTORIES} trajectories or more in an update "
            "(--num-envs), a --diagnostics-interval above 0, an update that was made, and layers "
            "that torch.func can take"
        )
    if alarms.of_followed(history, "variance") is None:
        return "measured, but the metrics do not say which estimator is followed"
    unreliable = [rule.kind for rule in RULES if rule.gradient and rule.kind in diagnosis.kinds]
    parts = [variance_words(history), signal_words(history), bias_words(history, unreliable)]
    parts.append(critic_words(history))
    begin = f"{verdict(history, unreliable)}, while {learning_words(history)}"
    return f"{begin}: " + "; ".join(part for part in parts if part)


def verdict(history: History, unreliable: Sequence[str]) -> str:
    """The followed gradient's quality in a word or two.

    A gradient that varies more than another one still serves its purpose if an update's signal is
    above its noise.
    """
    name, number = str(history.followed), history.now("gradient/trajectories") or 0.0
    count = num_measurements(history)
    if count < MEASUREMENTS:
        return f"only {measurements_text(count)}"
    update = (alarms.snr(history, name) or 0.0) * number
    if list(unreliable) == ["variance"] and update >= 1:
        return "usable, but noisier than need be"
    if unreliable:
        return "unreliable"
    if bias_is_open(history) or critic_is_open(history):
        return "unproven"
    if signal_is_seen(history):
        return "sound"
    known = returns_of(history)
    has_learned = known is not None and alarms.has_learned(known[0])
    return "too small to see, as near the best return" if has_learned else "unproven"


def returns_of(history: History) -> tuple[Series, str] | None:
    """The evaluations, if there are two or more, else the training returns, and their name."""
    found = [(history.get(tag), subject) for tag, subject in RETURNS]
    known = [(series, subject) for series, subject in found if series and len(series.recent) > 1]
    return known[0] if known else None


def learning_words(history: History) -> str:
    """What became of the return: ``the evaluations rose from -1,000 to -200``.

    Of the evaluations if there are two or more, else of the training episodes.
    """
    known = returns_of(history)
    if known is None:
        return "there are too few returns to tell whether the agent learns"
    returns, subject = known
    values = returns.early[0], returns.highest, returns.recent[-1]
    first, best, last = (format_number(x, 4) for x in values)
    if alarms.has_learned(returns):
        return f"the {subject} rose from {first} to {last}"
    if alarms.has_risen(returns):
        return f"the {subject} rose from {first} to {best} and fell to {last}"
    if returns.recent[-1] > returns.early[0]:
        return f"the {subject} rose little (from {first} to {last})"
    return f"the {subject} did not improve (from {first} to {last})"


def variance_words(history: History) -> str:
    """The followed gradient's variance, beside that of each other estimator."""
    name = str(history.followed)
    text = f"{alarms.noun(name)} is followed, with a variance of {variance_text(history, name)}"
    ratios = {other: alarms.usual_ratio(history, other) for other in alarms.others(history)}
    found = [
        f"{times_text(ratio)} {alarms.noun(other)}'s {variance_text(history, other)}"
        f"{ratio_note(history, other)}"
        for other, ratio in ratios.items()
        if ratio > 0
    ]
    return ", ".join([text, *found]) if found else f"{text} (no other is measured beside it)"


def ratio_note(history: History, other: str) -> str:
    """What belongs to a ratio of two variances: of which objective it is, and its interval."""
    notes = []
    if alarms.matched_ratio(history, other) is not None:
        notes.append("the ratio is of one objective")
    interval = alarms.ratio_interval(history, other)
    if interval is not None:
        low, high = (format_number(x, 2) for x in interval)
        notes.append(f"95 % interval at the last measurement: {low} to {high} times")
    return f" ({', '.join(notes)})" if notes else ""


def times_text(ratio: float) -> str:
    """``12 times more than``, ``12 times less than``, or ``about``."""
    larger = max(ratio, 1 / ratio)
    if larger < SIMILAR:
        return "about"
    return f"{format_number(larger, 2)} times {'more' if ratio > 1 else 'less'} than"


def signal_words(history: History) -> str:
    """The SNR of an update, and the number of trajectories that would give 1."""
    name, number = str(history.followed), history.now("gradient/trajectories")
    ratio = alarms.snr(history, name)
    if ratio is None or number is None:
        return ""
    per_state = is_of_states(history)
    count = f"{number:,.0f} {'states' if per_state else 'trajectories'}"
    if not signal_is_seen(history):
        return f"no gradient is seen in the noise of {count}: near the best return, or too few"
    update, needed = format_number(ratio * number, 2), max(1, round(1 / ratio))
    enough = f"{needed:,} {'is' if needed == 1 else 'are'} enough for an SNR of 1"
    if per_state:
        return f"{count}, as many as are measured, have an SNR of {update} ({enough})"
    return f"{count} give an update an SNR of {update} ({enough})"


def is_of_states(history: History) -> bool:
    """Whether the followed gradient was measured on single states, where a critic is beside it."""
    measured = history.get("gradient/critic/variance") is not None
    return measured and history.followed != "pathwise"


def signal_is_seen(history: History) -> bool:
    """Whether there is a sign of a gradient in the followed estimate, or no measure of it."""
    name = str(history.followed)
    ratio, z = alarms.snr(history, name), alarms.pooled_z(history, name)
    return (ratio is None or ratio > 0) and (z is None or z >= alarms.SEEN_Z)


def bias_words(history: History, unreliable: Sequence[str]) -> str:
    """Whether a bias of pathwise is seen."""
    z = history.get("gradient/bias_z")
    if z is None:
        return f"no bias is measured ({check_words(history)})" if bias_is_open(history) else ""
    highest = max(z.last(MEASUREMENTS))
    if highest > BIAS_Z:
        return f"a bias of pathwise is seen (highest z {alarms.z_text(highest)})"
    if {"variance", "one_trajectory"} & set(unreliable):
        return "a bias of pathwise would not be seen in this variance"
    text = f"no bias of pathwise is seen (highest z {alarms.z_text(highest)})"
    if bias_would_be_seen(history):
        return text
    check = check_words(history)
    return f"{text}, but so few trajectories do not exclude one that matters ({check})"


def check_words(history: History) -> str:
    """What else tells of a bias: the checks of an environment, or the errors of a learned model."""
    error = history.now("environment/model_error")
    if error is None:
        return CHECK
    return (
        "the gradient is that of a learned model, whose relative squared error on held-out steps, "
        f"environment/model_error, is {format_number(error, 2)}"
    )


def bias_is_open(history: History) -> bool:
    """Whether a bias of pathwise that reaches the followed gradient, and matters, is possible."""
    follows = history.followed == "pathwise" or alarms.follows_mixed_with(history, "pathwise")
    return follows and not bias_would_be_seen(history)


def bias_would_be_seen(history: History) -> bool:
    """Whether a bias that matters would have been seen at one of the last measurements."""
    z, least = history.get("gradient/bias_z"), history.get("gradient/log10_detectable_bias")
    if z is None or least is None:
        return False
    begin = z.steps[-len(z.last(MEASUREMENTS))]
    found = (x for step, x in zip(least.steps, least.recent, strict=True) if step >= begin)
    return any(value <= math.log10(BIAS_SHARE) for value in found)


def critic_is_open(history: History) -> bool:
    """Whether the critic's gradient is followed, and is not known to be without a bias."""
    z = history.get("gradient/critic/bias_z")
    seen = z is None or max(z.last(MEASUREMENTS)) > BIAS_Z
    return alarms.follows_critic(history) and seen


def critic_words(history: History) -> str:
    """How the critic's gradient lies to the exact one, where both were measured."""
    cosine, z = (history.get(f"gradient/critic/{name}") for name in ("cosine", "bias_z"))
    if cosine is None or z is None:
        return "no bias of the critic's is measured" if critic_is_open(history) else ""
    if not alarms.critic_is_biased(history):
        highest = max(z.last(MEASUREMENTS))
        text = f"at the end (highest z {alarms.z_text(highest)})"
        if highest > BIAS_Z:
            return f"a bias of the critic's is possible, and not proven {text}"
        return f"no bias of the critic's is seen {text}"
    low, high = (history.now(f"gradient/critic/cosine_{end}") for end in ("low", "high"))
    interval = f" ({low:.2f} to {high:.2f})" if low is not None and high is not None else ""
    return (
        f"the critic's gradient is biased (z {alarms.z_text(z.recent[-1])}) and has a cosine of "
        f"{cosine.recent[-1]:.2f}{interval} to the exact one"
    )
