"""The warning of a run that is about to follow a wrong gradient."""

import logging

from pgtoolkit.envs.registry.resolve import OBJECT
from pgtoolkit.scripts.cli.experiment import Experiment

LOG = logging.getLogger("pgtoolkit")


def warn_of_wrong_gradient(experiment: Experiment) -> str:
    """Warns if the agent follows a gradient that differs from differences of the environment.

    Three steps of an environment in torch are checked, which takes a fraction of a second; on a
    card nothing is checked.

    Returns:
        What was found, for the closing report; empty where nothing was.
    """
    env = experiment.environments.gradient.env
    if not experiment.agent.needs_gradient or env is None or experiment.device.type != "cpu":
        return ""
    from pgtoolkit.envs.checks.at_start import gradient_fault

    fault = gradient_fault(env, seed=experiment.settings.run.seed)
    if fault is None:
        return ""
    name = experiment.settings.run.env
    in_python = "`pgtoolkit.envs.checks.check_env.check_env(env)`"
    more = in_python if OBJECT.fullmatch(name) else f"`pgtoolkit check-env {name}`"
    LOG.warning(
        "%s",
        f"warning: {name}, in its first steps: {fault.finding}. So {fault.meaning}. What to "
        f"do: {fault.advice}. {more} checks every function",
    )
    return f"{fault.finding} ({more})"
