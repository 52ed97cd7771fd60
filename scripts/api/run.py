"""A run as a value: its folder, settings and policy, and what can be done with it."""

import functools
import os
from pathlib import Path
from typing import Any, Literal, final

import torch

from pgtoolkit.agent import Agent
from pgtoolkit.envs.vectorized.given import EnvArgument
from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.rollouts.evaluation import Evaluation
from pgtoolkit.rollouts.trained_policy import TrainedPolicy
from pgtoolkit.scripts.api.callback import Callback, TrainingProgress, watch_of
from pgtoolkit.scripts.api.environment import given_env
from pgtoolkit.scripts.api.session import python_session
from pgtoolkit.scripts.api.settings import as_json, require_type
from pgtoolkit.scripts.cli.display.run_views import SilentRun
from pgtoolkit.scripts.cli.experiment import (
    Experiment,
    FindEnvironments,
    RunSettings,
    env_factory_of,
    fitting,
    load_policy,
)
from pgtoolkit.scripts.evaluate import EvaluateArguments, chosen_environment, evaluate_run
from pgtoolkit.scripts.resume import ResumeArguments, resume_locked
from pgtoolkit.scripts.train import Trained
from pgtoolkit.training.loop import TrainConfig
from pgtoolkit.training.progress import Progress
from pgtoolkit.training.run_folder import RunFolder


@final
class Run:
    """A run: what ``pgtoolkit.train`` and ``pgtoolkit.load`` return.

    Every command takes its folder, too: ``pgtoolkit evaluate DIRECTORY``.

    Attributes:
        directory: the run's folder.
        settings: all settings: ``settings.run``, ``settings.loop`` and ``settings.agent``.
        policy: the policy of the best evaluation (the last one if there was none), as the folder
            had it when this object was made.
    """

    def __init__(
        self,
        folder: RunFolder,
        settings: RunSettings,
        find_environments: FindEnvironments | None,
        *,
        trust: bool = False,
        trained: Trained | None = None,
    ) -> None:
        folder = RunFolder(folder.path.absolute())  # it stays the same wherever the process goes
        self.directory, self.settings = folder.path, settings
        self._folder, self._find, self._trust = folder, find_environments, trust
        self._trained = trained
        self.policy = read_policy(folder, settings, find_environments)

    def __repr__(self) -> str:
        return f"Run({str(self.directory)!r}: {self.settings.agent_name}, {self.settings.run.env})"

    @property
    def config(self) -> Any:
        """The agent's settings, such as a ``ShacConfig``."""
        return self.settings.agent

    @functools.cached_property
    def agent(self) -> Agent:
        """The agent as it was after the last update, with its environments.

        A run that was loaded makes it when it is first asked for.

        Raises:
            RequestError: the environment cannot be made, or the folder's files do not fit it.
        """
        if self._trained is not None:
            return self._trained.experiment.agent
        with python_session():
            experiment = Experiment(self.settings, find_environments=self._find)
            state, file = self._folder.read_resume()
            with fitting(f"{file} does not fit {self._folder.config_file}: was that edited?"):
                experiment.agent.load_state_dict(state["agent"])
            return experiment.agent

    @functools.cached_property
    def _progress(self) -> Progress:
        if self._trained is not None:
            return self._trained.progress
        progress = Progress()
        with python_session(), fitting(f"the progress of {self.directory} cannot be read"):
            progress.load_state_dict(self._folder.read_progress())
        return progress

    @property
    def progress(self) -> TrainingProgress:
        """Steps, updates and returns at the last checkpoint."""
        return TrainingProgress.of(self._progress, self.settings.loop.total_steps)

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each TensorBoard tag; those of times only in a run just trained."""
        return dict(self._progress.scalars)

    @property
    def mean_return(self) -> float | None:
        """Return of the best evaluation; without one, of the last training episodes."""
        progress = self._progress
        return progress.mean_return if progress.best_return is None else progress.best_return

    def evaluate(
        self,
        episodes: int = 100,
        *,
        env: EnvArgument | None = None,
        env_kwargs: dict[str, Any] | None = None,
        stochastic: bool = False,
        seed: int = 1000,
        checkpoint: Literal["best", "last"] = "best",
    ) -> Evaluation:
        """Plays whole episodes with the saved policy, in environments of their own.

        Args:
            episodes: the number of episodes.
            env: another environment with the same spaces; the run's by default.
            env_kwargs: arguments of the environment's constructor.
            stochastic: whether actions are sampled; by default they are the modes.
            seed: determines the starts, and the actions if they are sampled.
            checkpoint: the policy of the best evaluation in training, or the last one.

        Returns:
            ``mean_return``, ``std_return``, ``returns`` and ``lengths``; returns are undiscounted.

        Raises:
            RequestError: the environment cannot be made, or has other spaces than the run's.
        """
        with python_session():
            require_type("episodes", episodes, int)
            require_type("seed", seed, int)
            require_type("stochastic", stochastic, bool)
            require_type("checkpoint", checkpoint, Literal["best", "last"])
            given = None if env is None else given_env(env, env_kwargs or {})
            options = EvaluateArguments(
                run=str(self.directory),
                env=given.name if given is not None else None if env is None else str(env),
                env_kwargs=None if env_kwargs is None else as_json("env_kwargs", env_kwargs),
                episodes=episodes,
                seed=seed,
                stochastic=stochastic,
                checkpoint=checkpoint,
                trust=self._trust,
            )
            own = self._find if env is None else None
            played = evaluate_run(options, own if given is None else given.find)
            played.env.close()
            return played.result

    def resume(
        self,
        total_steps: int | None = None,
        *,
        callback: Callback | None = None,
        quiet: bool = False,
    ) -> "Run":
        """Continues the run from its last checkpoint; returns it as it is afterwards.

        Args:
            total_steps: the new total of environment steps; the planned one by default.
            callback: as in ``pgtoolkit.train``.
            quiet: as in ``pgtoolkit.train``.

        Raises:
            RequestError: the run is finished, its environment cannot be made again, or another
                process writes its folder.
        """
        with python_session():
            total = self.settings.loop.total_steps
            if total_steps is not None:
                total = TrainConfig(total_steps=total_steps).total_steps
            watch = watch_of(callback, total)
            options = ResumeArguments(
                run=str(self.directory),
                total_steps=None if total_steps is None else total,
                trust=self._trust,
            )
            view = SilentRun() if quiet else None
            trained = resume_locked(options, find_environments=self._find, watch=watch, view=view)
            return run_of(trained, self._find)


def run_of(trained: Trained, find_environments: FindEnvironments | None) -> Run:
    """The run that has just been trained; its environments for evaluations are closed."""
    trained.experiment.eval_env.close()
    settings = trained.experiment.settings
    return Run(trained.folder, settings, find_environments, trained=trained)


def read_policy(
    folder: RunFolder, settings: RunSettings, find_environments: FindEnvironments | None
) -> TrainedPolicy:
    """The best policy of a folder, with the spaces of its environment.

    Raises:
        RequestError: the environment cannot be made, or the policy does not fit it.
    """
    options = EvaluateArguments(run=str(folder.path), episodes=1)
    chosen = chosen_environment(options, settings.run)
    find = find_environments or env_factory_of
    environments = find(chosen, False, torch.device("cpu"))
    env = environments.make_for_evaluation(1)
    policy = load_policy(folder.read_policy("best"), settings, env)
    spaces = env.single_observation_space, env.single_action_space
    env.close()
    source = environments.source
    return TrainedPolicy(
        policy, *spaces, source.observation_space, source.action_space, source.to_own_action
    )


def as_path(directory: object) -> Path:
    """The path of a run's folder.

    Raises:
        RequestError: it is no path.
    """
    if isinstance(directory, TrainedPolicy):
        raise RequestError("this is a policy: give its run, or the folder of the run")
    if not isinstance(directory, str | os.PathLike) or not os.fspath(directory):
        given = single_line(repr(directory))[:100]
        raise RequestError(f"{given} is not the folder of a run: give its path")
    return Path(directory)
