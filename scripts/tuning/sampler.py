"""The sampler of a study: what it draws for a trial depends on the seed and the trial's number."""

import warnings
from collections.abc import Callable
from typing import Any, TypeVar, final

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from pgtoolkit.seeding import stream_seed

T = TypeVar("T")

FIRST_RANDOM = 8
"""Trials at the beginning that are drawn at random."""


@final
class SeededSampler(optuna.samplers.BaseSampler):
    """Optuna's TPE with a generator of its own for each trial, seeded by the trial's number.

    A study that was stopped and goes on then draws what it would have drawn without the stop, and
    two processes draw different settings, although both have the same seed.

    Args:
        seed: the study's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._current: tuple[int, optuna.samplers.BaseSampler] | None = None

    def _of(self, trial: FrozenTrial) -> optuna.samplers.BaseSampler:
        if self._current is None or self._current[0] != trial.number:
            seed = stream_seed(self.seed, f"trial {trial.number}")
            self._current = (
                trial.number,
                quietly(
                    lambda: optuna.samplers.TPESampler(
                        seed=seed,
                        n_startup_trials=FIRST_RANDOM,
                        multivariate=True,
                        constant_liar=True,
                    )
                ),
            )
        return self._current[1]

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)


def quietly(make: Callable[[], T]) -> T:
    """What a function returns, without the warnings that a part of Optuna is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()
