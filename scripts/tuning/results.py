"""What a study has found: the best settings as YAML, the results as JSON, and a table."""

import statistics
from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from pgtoolkit.scripts.cli.files import number_or_null
from pgtoolkit.scripts.cli.formatting import format_number, join_names, markdown_row
from pgtoolkit.scripts.tuning.carry_out import Plan
from pgtoolkit.scripts.tuning.study import REASON, RETURNS, SECONDS, SNRS, VALUES, Study, value_of
from pgtoolkit.scripts.tuning.view import WORDS, counts_text
from pgtoolkit.training.storage.config_file import config_text
from pgtoolkit.training.storage.files import replace_file

BEST_NAME = "best.yaml"

SHOWN_TRIALS = 5

ELSEWHERE = (
    "Another process is still at work at this study; it writes the best settings again when a "
    "trial ends."
)

NOT_OF_THE_BEST = ("eval_interval", "seed")
"""Settings of the trials that are not written beside the best ones: they belong to the search."""


def write_best(study: Study, plan: Plan) -> None:
    """Writes the best settings so far as a file for ``pgtoolkit train --config``, if there are any.

    Raises:
        OSError: the system refuses.
    """
    best = study.best
    if best is None:
        return
    settings = best_settings(best, plan)
    returns = join_names(format_number(value, 4) for value in best.user_attrs[RETURNS])
    head = (
        f"# Trial {best.number} of `pgtoolkit tune {plan.agent}`: mean return "
        f"{format_number(value_of(best), 4)}\n"
        f"# ({returns} with {plan.seeds_text}), of {len(study.trials)} trials.\n"
        f"# Train with it: pgtoolkit train {plan.agent} --config {study.root / BEST_NAME}\n"
    )
    text = head + config_text(settings)
    replace_file(study.root / BEST_NAME, [text.encode()], inside=study.root)


def best_settings(trial: FrozenTrial, plan: Plan) -> dict[str, Any]:
    """The settings of a trial, for training with any seed."""
    fixed = {name: value for name, value in plan.fixed.items() if name not in NOT_OF_THE_BEST}
    return {"agent": plan.agent, **fixed, **trial.user_attrs[VALUES]}


def as_dict(study: Study, plan: Plan) -> dict[str, Any]:
    """All results of a study, for a JSON file."""
    best = study.best
    return {
        "agent": plan.agent,
        "env": plan.fixed["env"],
        "seeds": list(plan.seeds),
        "total_steps": plan.total_steps,
        "final_episodes": plan.final_episodes,
        "fixed": dict(plan.fixed),
        "searched": [dimension.text for dimension in study.space],
        "best": None if best is None else best.number,
        "best_settings": None if best is None else best_settings(best, plan),
        "trials": [_trial_as_dict(trial) for trial in study.trials],
    }


def _trial_as_dict(trial: FrozenTrial) -> dict[str, Any]:
    attributes: Mapping[str, Any] = trial.user_attrs
    complete = trial.state == TrialState.COMPLETE
    told = sorted(trial.intermediate_values.items())
    return {
        "number": trial.number,
        "state": WORDS[trial.state],
        "settings": attributes.get(VALUES),
        "mean_return": value_of(trial) if complete else None,
        "returns": attributes.get(RETURNS),
        "snr": attributes.get(SNRS),
        "cpu_seconds": attributes.get(SECONDS),
        "reason": attributes.get(REASON),
        "evaluations": [[point, number_or_null(value)] for point, value in told],
    }


def report(study: Study, plan: Plan) -> str:
    """The lines at the end: the best trials, that with the defaults, and what to do next."""
    trials = study.trials
    complete = sorted((t for t in trials if t.state == TrialState.COMPLETE), key=value_of)[::-1]
    names = [dimension.name for dimension in study.space]
    shown = complete[:SHOWN_TRIALS]
    shown += [t for t in complete[SHOWN_TRIALS:] if t.number == 0 and study.begins_with_defaults]
    lines = [
        markdown_row(("trial", "mean return", "SNR", *names)),
        "|" + "---|" * (len(names) + 3),
        *(_row(trial, names, study.begins_with_defaults) for trial in shown),
        "",
        f"{counts_text(trials)}. The mean return is that of {plan.final_episodes} deterministic "
        f"episodes of the last policy, with {plan.seeds_text}. The SNR is that of the "
        "gradient that trains, of one trajectory: the median over training. The best of many "
        "trials is also the luckiest: train it with other seeds before you compare it.",
        *([ELSEWHERE] if any(t.state == TrialState.RUNNING for t in trials) else []),
        f"best settings: {study.root / BEST_NAME}",
        f"train:         pgtoolkit train {plan.agent} --config {study.root / BEST_NAME} "
        f"--seed {plan.seeds.stop}",
    ]
    return "\n".join(lines)


def _row(trial: FrozenTrial, names: list[str], begins_with_defaults: bool) -> str:
    number = (
        f"{trial.number} (defaults)" if begins_with_defaults and not trial.number else trial.number
    )
    values = trial.user_attrs[VALUES]
    known = [snr for snr in trial.user_attrs.get(SNRS, []) if snr is not None]
    snr = format_number(statistics.median(known), 2) if known else "-"
    cells = (str(values[name]) for name in names)
    return markdown_row((str(number), format_number(value_of(trial), 4), snr, *cells))
