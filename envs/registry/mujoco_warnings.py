"""What MuJoCo says while a model is loaded: each sentence once, and not for each environment."""

import contextlib
import functools
import importlib
import logging
from collections.abc import Iterator

import gymnasium

LOG = logging.getLogger("pgtoolkit")

GYMNASIUM_MUJOCO = "gymnasium.envs.mujoco"
"""Where Gymnasium's environments of MuJoCo are."""


@contextlib.contextmanager
def mujoco_says_once(env_id: str) -> Iterator[None]:
    """A block in which an environment is made.

    MuJoCo itself prints its warnings anew for every environment, and writes each of them to
    ``MUJOCO_LOG.TXT``. Of the models that come with Gymnasium some have attributes that MuJoCo
    calls deprecated, which is nothing that a user can act on: that is logged at level DEBUG. What
    MuJoCo says after the block, such as of an unstable simulation, it prints as ever.

    Args:
        env_id: the environment's id. Nothing is done for those that are not Gymnasium's own.
    """
    spec = gymnasium.registry.get(env_id)
    if spec is None or not str(spec.entry_point).startswith(GYMNASIUM_MUJOCO):
        yield
        return
    try:
        mujoco = importlib.import_module("mujoco")
    except ImportError:  # making the environment says so
        yield
        return
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(say_once)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


@functools.cache
def say_once(text: str) -> None:
    """Logs a sentence of MuJoCo's, the first time in this process."""
    level = logging.DEBUG if "deprecated" in text else logging.WARNING
    LOG.log(level, "MuJoCo: %s", text)
