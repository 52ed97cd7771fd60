"""``pgtoolkit.train``, ``load`` and ``evaluate``: the commands of these names, from Python."""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any, Literal

import torch

from pgtoolkit.config import Settings
from pgtoolkit.envs.registry.resolve import OBJECT
from pgtoolkit.envs.vectorized.given import EnvArgument
from pgtoolkit.errors import RequestError
from pgtoolkit.rollouts.evaluation import Evaluation
from pgtoolkit.scripts.api.callback import Callback, watch_of
from pgtoolkit.scripts.api.environment import given_env
from pgtoolkit.scripts.api.networks import MakeNetworks, with_networks
from pgtoolkit.scripts.api.run import Run, as_path, run_of
from pgtoolkit.scripts.api.session import python_session
from pgtoolkit.scripts.api.settings import require_type, settings_of
from pgtoolkit.scripts.cli.arguments import parse_json_object
from pgtoolkit.scripts.cli.display.run_views import SilentRun
from pgtoolkit.scripts.cli.environments import Environments
from pgtoolkit.scripts.cli.experiment import (
    FindEnvironments,
    RunConfig,
    env_factory_of,
)
from pgtoolkit.scripts.cli.presets import PresetChoice, find_preset
from pgtoolkit.scripts.cli.trust import names_of, require_signed, settings_of_run
from pgtoolkit.scripts.train import train_settings
from pgtoolkit.training.run_folder import RunFolder
from pgtoolkit.user_code import require_not_imported


def train(
    agent: str | Settings,
    env: EnvArgument,
    *,
    total_steps: int = 500_000,
    seed: int = 0,
    callback: Callback | None = None,
    networks: MakeNetworks | str | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    preset: PresetChoice = "auto",
    quiet: bool = False,
    **settings: Any,
) -> Run:
    """Trains an agent as ``pgtoolkit train`` does, and returns the run.

    The run has an ordinary folder, which every command takes. If ``env`` is an object or a
    function, the commands cannot make it again: ``pgtoolkit plot`` and ``evaluate --env`` work,
    ``resume`` says so, and ``Run.resume`` and ``load(directory, env=...)`` do it from Python.

    Args:
        agent: a name of `pgtoolkit list agents`, an agent's settings, ``ShacConfig(...)``, or
            ``path/to/file.py:Class`` of one of your own, whose settings may be given too.
        env: an id (``Pendulum-v1``), ``path/to/file.py:Class``, one environment, a vector
            environment, or a function or class that makes one of these. One environment is copied
            ``num_envs`` times and stays as it is; a vector environment is stepped itself, has its
            own ``num_envs``, and is copied for evaluations.
        total_steps: environment steps to train for, of all environments together.
        seed: the seed of all random numbers. Equal seeds give equal runs.
        callback: called as ``callback(progress, metrics)`` after every update, with a
            ``pgtoolkit.TrainingProgress`` and the latest value of each TensorBoard tag. It returns
            nothing; to stop the run it raises ``pgtoolkit.StopTraining``. The run can then be
            resumed.
        networks: hidden layers of your own for the policy, in the place of those that ``hidden``
            and ``activation`` describe: a function that takes the observation space and returns a
            new ``torch.nn.Module`` from (normalised) observations ``[..., O]`` to features
            ``[..., F]`` of any number, every row by itself. It is written into the run as
            ``file.py:function``, the setting ``torso``, so it must stand at the top of a file or
            module; such a name can be given too. Value and Q functions stay fully connected
            layers. Initial weights are drawn from torch's global generator, which has a seed of the
            run's meanwhile.
        run_dir: the run's folder; by default ``runs/ENV__AGENT__SEED__TIME``.
        preset: ``"auto"``: where the agent is a name and the environment an id, start from the
            settings that this package has for the two, if it has some, and print them;
            ``"none"``: from the agent's defaults.
        quiet: whether nothing is printed of the run; warnings and errors are.
        settings: any other setting of `pgtoolkit train AGENT --help`, by its name in Python:
            ``num_envs=32``, ``env_kwargs={"g": 9.8}``, ``eval_interval=10_000``. Those of the agent
            stand in its settings where these are given.

    Raises:
        RequestError: there is no such agent, environment or setting, they do not go together, or
            the networks are none that a policy can use.
        NonFiniteError: a number went bad; its notes name the last good checkpoint.
        EnvFaultError: the environment failed.
        KeyboardInterrupt: Ctrl-C; the update is finished and the run is saved first.
    """
    require_not_imported("pgtoolkit.train")
    with python_session():
        agent, settings = with_networks(agent, networks, settings)
        kwargs = settings.get("env_kwargs", {})
        given = given_env(env, kwargs if isinstance(kwargs, dict) else {})
        name, num_envs = (env, None) if given is None else (given.name, given.num_envs)
        require_type("preset", preset, PresetChoice)
        found = find_preset(preset, agent, str(name)) if isinstance(agent, str) else None
        start = {} if found is None else found.settings
        every = {"total_steps": total_steps, "seed": seed, **start, **settings}
        chosen = settings_of(agent, str(name), num_envs, every)
        watch = watch_of(callback, chosen.loop.total_steps)
        find = None if given is None else given.find
        folder = None if run_dir is None else str(_folder(run_dir))
        view = SilentRun() if quiet else None
        trained = train_settings(
            chosen, folder, preset=found, find_environments=find, watch=watch, view=view
        )
        return run_of(trained, find)


def load(
    directory: str | os.PathLike[str], *, env: EnvArgument | None = None, trust: bool = False
) -> Run:
    """The run in a folder: its policy and settings, to evaluate, resume or look at.

    Args:
        directory: a folder that ``pgtoolkit.train`` or the command made.
        env: the run's environment, where that was an object or a function in Python, which cannot
            be made again from the folder. (To play in another one: ``evaluate(run, env=...)``.)
        trust: whether code that the folder names (``file.py:Class``, ``module:Id``) is run though
            the run was not trained here by you.

    Raises:
        RequestError: there is no run, its files are damaged, or its environment cannot be made.
    """
    with python_session():
        folder, config = RunFolder.open(as_path(directory))
        settings = settings_of_run(config, command="evaluate", trust=trust)
        if not trust:
            names = names_of(settings.run) if env is None else frozenset[str]()
            require_signed(config, names)
        find = None if env is None else find_again(env, settings.run)
        return Run(folder, settings, find, trust=trust)


def find_again(env: EnvArgument, run: RunConfig) -> FindEnvironments:
    """Makes the environment that is given in the place of the one that a folder names.

    The folder's arguments of the environment are for functions alone.
    """
    kwargs = parse_json_object(run.env_kwargs, "--env-kwargs") if callable(env) else {}
    given = given_env(env, kwargs)
    find = functools.partial(env_factory_of, env=env) if given is None else given.find
    arguments = run.env_kwargs if callable(env) else "{}"

    def found(settings: RunConfig, needed: bool, device: torch.device) -> Environments:
        return find(dataclasses.replace(settings, env_kwargs=arguments), needed, device)

    return found


def evaluate(
    run: Run | str | os.PathLike[str],
    env: EnvArgument | None = None,
    *,
    episodes: int = 100,
    env_kwargs: dict[str, Any] | None = None,
    stochastic: bool = False,
    seed: int = 1000,
    checkpoint: Literal["best", "last"] = "best",
) -> Evaluation:
    """Plays whole episodes with the policy of a run, as :meth:`Run.evaluate` does.

    Args:
        run: a run, or its folder.
        env: another environment with the same spaces; the run's by default.
        episodes: the number of episodes.
        env_kwargs: arguments of the environment's constructor.
        stochastic: whether actions are sampled; by default they are the modes.
        seed: determines the starts, and the actions if they are sampled.
        checkpoint: the policy of the best evaluation in training, or the last one.

    Raises:
        RequestError: there is no such run or environment, or it has other spaces.
    """
    with python_session():
        opened = run if isinstance(run, Run) else _opened(as_path(run), env)
        return opened.evaluate(
            episodes,
            env=env,
            env_kwargs=env_kwargs,
            stochastic=stochastic,
            seed=seed,
            checkpoint=checkpoint,
        )


def _opened(directory: Path, env: EnvArgument | None) -> Run:
    """The run in a folder; made with ``env`` where its own was an object in Python."""
    config = RunFolder.open(directory)[1]
    lost = OBJECT.fullmatch(str(config.get("env")))
    return load(directory, env=env if lost else None)


def _folder(run_dir: object) -> Path:
    if not isinstance(run_dir, str | os.PathLike) or not os.fspath(run_dir):
        raise RequestError(f"run_dir must be the path of a folder, not {run_dir!r}")
    return Path(run_dir)
