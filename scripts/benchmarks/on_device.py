"""Rows of ``python scripts/gpu_check.py``: the same work on one device, ours beside JAX.

Run as ``python -m pgtoolkit.scripts.benchmarks.on_device ROW --device cuda --json FILE``. What is
timed here is wall time: on a card the processor waits.
"""

import argparse
import functools
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, final

from pgtoolkit.scripts.benchmarks.timing import OURS, Run, take_turns

JAX = "JAX"

REPEATS = 5


@final
class Sizes(NamedTuple):
    """The size of the work; the small one only shows that it runs."""

    num_envs: int
    n_steps: int
    n_epochs: int
    batch_size: int
    width: int

    @property
    def steps(self) -> int:
        """Environment steps of one call."""
        return self.num_envs * self.n_steps

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of our agents."""
        sizes = {name: getattr(self, name) for name in self._fields if name != "width"}
        return sizes | {"hidden": (self.width, self.width)}


SMALL = Sizes(num_envs=8, n_steps=4, n_epochs=2, batch_size=8, width=8)
SIZES = {
    "pathwise": Sizes(num_envs=4096, n_steps=32, n_epochs=1, batch_size=1, width=64),
    "ppo-native": Sizes(num_envs=1024, n_steps=32, n_epochs=4, batch_size=512, width=64),
    "reppo": Sizes(num_envs=1024, n_steps=32, n_epochs=4, batch_size=512, width=256),
}


AS_IN_JAX: dict[str, dict[str, Any]] = {"reppo": {"critic": "hl_gauss", "num_bins": 101}}
"""Settings of our agents that make them what the side in JAX is."""


def sides_of(row: str, sizes: Sizes, device: str) -> dict[str, Callable[[], Run]]:
    """Our side and JAX's, which are set up when they are called."""
    if row == "pathwise":
        return {
            OURS: functools.partial(pathwise_side, sizes, device),
            JAX: functools.partial(jax_pathwise_side, sizes),
        }
    agent = {"ppo-native": "ppo", "reppo": "reppo"}[row]
    return {
        OURS: functools.partial(agent_side, agent, sizes, device),
        JAX: functools.partial(jax_agent_side, agent, sizes),
    }


def pathwise_side(sizes: Sizes, device: str) -> Run:
    """A gradient through a window, clip and Adam, with plain steps."""
    from pgtoolkit.scripts.benchmarks.pathwise import make_gradient_step

    step = make_gradient_step(sizes.num_envs, compile="never", device=device)
    return synchronised(lambda index: step(sizes.n_steps))


def agent_side(agent: str, sizes: Sizes, device: str) -> Run:
    """A window of the agent and its update on our batched Pendulum, with the plain loop."""
    from pgtoolkit.envs.control.pendulum import Pendulum
    from pgtoolkit.envs.vector import DifferentiableVectorEnv
    from pgtoolkit.scripts.benchmarks.reppo import agent_run

    env = DifferentiableVectorEnv(Pendulum(), sizes.num_envs, device=device)
    settings = sizes.settings | AS_IN_JAX.get(agent, {})
    return synchronised(agent_run(agent, env, **settings, compile="never"))


def jax_pathwise_side(sizes: Sizes) -> Run:
    """The same gradient in JAX."""
    from pgtoolkit.scripts.benchmarks import peer_jax

    return peer_jax.pathwise_run(sizes.num_envs, sizes.n_steps)


def jax_agent_side(agent: str, sizes: Sizes) -> Run:
    """The same window and update in JAX."""
    from pgtoolkit.scripts.benchmarks import peer_jax_agents

    make: Callable[..., Run] = getattr(peer_jax_agents, f"{agent}_run")
    return make(*sizes)


def synchronised(run: Run) -> Run:
    """The run, which returns when the card has done its work."""
    import torch

    def whole(index: int) -> None:
        run(index)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return whole


def jax_reason(device: str) -> str:
    """Why JAX cannot run there; empty if it can."""
    try:
        import jax
        import optax  # noqa: F401  # is it installed?
    except ImportError as error:
        return f"{error.name} is not installed"
    wanted = "gpu" if device == "cuda" else "cpu"
    found = jax.devices()[0].platform
    return "" if found == wanted else f"JAX runs on {found} here"


def measure_row(row: str, device: str, *, small: bool) -> dict[str, Any]:
    """Environment steps per second of wall time, ours and JAX's, and the median of their ratio.

    Returns:
        ``ours``, ``jax``, ``ratio`` (None without JAX) and ``note``.
    """
    sizes = SMALL if small else SIZES[row]
    reason = jax_reason(device)
    sides = sides_of(row, sizes, device)
    runs = {name: side() for name, side in sides.items() if name == OURS or not reason}
    samples = take_turns(runs, 1 if small else REPEATS)
    wall = {name: [seconds.wall for seconds in found] for name, found in samples.items()}
    speed = {name: sizes.steps / statistics.median(found) for name, found in wall.items()}
    ratio = None
    if JAX in wall:
        ratio = statistics.median(b / a for a, b in zip(wall[OURS], wall[JAX], strict=True))
    return {"ours": speed[OURS], "jax": speed.get(JAX), "ratio": ratio, "note": reason}


def main() -> None:
    """Measures one row and writes it as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("row", choices=list(SIZES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    # Else JAX takes most of the card's memory at its start.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    found = measure_row(given.row, given.device, small=given.small)
    given.json.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
