"""Makes vector environments of an environment that a user named."""

import logging
from typing import Literal

import torch

from pgtoolkit import parallel
from pgtoolkit.envs.ordinary.episode_state import ResumeChoice
from pgtoolkit.envs.ordinary.resume_check import (
    choose_resume,
    choose_resume_apart,
    resumable,
)
from pgtoolkit.envs.registry.resolve import EnvSpec
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.vectorized.stepping import PLAIN, Stepping
from pgtoolkit.envs.vectorized.vector_env import OrdinaryVectorEnv
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyVectorEnv

LOG = logging.getLogger("pgtoolkit")


def make_vector_env(
    source: EnvSpec,
    num_envs: int,
    *,
    device: torch.device | str = "cpu",
    differentiate: Literal["auto", "none"] = "auto",
    resume: ResumeChoice | None = None,
    stepping: Stepping = PLAIN,
) -> AnyVectorEnv:
    """A vector environment of ``num_envs`` copies, autoreset SAME_STEP.

    Args:
        source: a result of :func:`~pgtoolkit.envs.registry.resolve.find_env`.
        num_envs: the number of copies.
        device: the device of a differentiable environment's tensors; other environments are on the
            CPU.
        differentiate: ``"auto"`` makes a :class:`DifferentiableVectorEnv
            <pgtoolkit.envs.vector.DifferentiableVectorEnv>` if the environment is differentiable,
            ``"none"`` never does.
        resume: how a resumed run goes on with the episodes of ordinary environments; None finds
            out by a try (:func:`~pgtoolkit.envs.ordinary.resume_check.choose_resume`).
        stepping: where ordinary environments run, and what happens when one fails.

    Raises:
        RequestError: an environment cannot be made, or ``stepping`` asks for what one batch of
            tensors cannot do.
    """
    if source.differentiable is not None and differentiate == "auto":
        require_one_batch(source.name, stepping)
        return DifferentiableVectorEnv(source.differentiable, num_envs, device=device)
    choice = choice_of_resume(source, stepping) if resume is None else resume
    if stepping.divided:  # a try may end otherwise in another process: it may be timed
        choice = parallel.exchange(choice, "how to resume")[0]
    make = resumable(source.make_guarded, choice.for_envs(num_envs))
    return OrdinaryVectorEnv(
        make, num_envs, name=source.name, stepping=stepping, resume_choice=choice
    )


def choice_of_resume(source: EnvSpec, stepping: Stepping) -> ResumeChoice:
    """How a resumed run goes on with these environments, found out by a try."""
    if stepping.vectorization == "sync" and stepping.step_timeout is None:
        return choose_resume(source.make_guarded)
    return choose_resume_apart(source.make_guarded, stepping.step_timeout)


def require_one_batch(name: str, stepping: Stepping) -> None:
    """Raises unless environments that are rows of one batch can be stepped like that.

    Raises:
        RequestError: a fault is to concern one environment alone, or there is to be a time limit.
    """
    batch = f"the environments of {name} are rows of one computation on tensors"
    if stepping.on_fault != "stop":
        raise RequestError(
            f"{batch}, so a fault stops all of them: leave --on-fault {stepping.on_fault} out, or "
            "train with --differentiate none, which makes each one an object"
        )
    if stepping.step_timeout is not None:
        raise RequestError(
            f"{batch}, which is not timed: leave --step-timeout out, or train with "
            "--differentiate none, which makes each one an object"
        )
    if stepping.vectorization == "async":
        LOG.warning("%s: --vectorization async changes nothing", batch)
