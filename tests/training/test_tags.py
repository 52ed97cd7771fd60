"""Every tag that an agent writes has a definition in the run."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from pgtoolkit.agents.ahac import Ahac, AhacConfig
from pgtoolkit.agents.apg import Apg, ApgConfig
from pgtoolkit.agents.npg import Npg, NpgConfig
from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.agents.reinforce import Reinforce, ReinforceConfig
from pgtoolkit.agents.reppo import Reppo, ReppoConfig
from pgtoolkit.agents.rpo import Rpo, RpoConfig
from pgtoolkit.agents.sac import Sac, SacConfig
from pgtoolkit.agents.sapo import Sapo, SapoConfig
from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.agents.svg import Svg, SvgConfig
from pgtoolkit.agents.td3 import Td3, Td3Config
from pgtoolkit.agents.trpo import Trpo, TrpoConfig
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.training.dashboard import Chart, layout
from pgtoolkit.training.tags import DEFINITIONS

SMALL: dict[str, Any] = {
    "num_envs": 6,
    "n_steps": 8,
    "hidden": (8,),
    "diagnostics_interval": 1,
    "compile": "never",
}
PLAIN: dict[str, Any] = {name: value for name, value in SMALL.items() if name != "compile"}
AGENTS: dict[str, Callable[[DifferentiableVectorEnv], Any]] = {
    "apg": lambda env: Apg(ApgConfig(**SMALL), env),
    "shac": lambda env: Shac(ShacConfig(**SMALL), env),
    "sapo": lambda env: Sapo(SapoConfig(**SMALL), env),
    "ahac": lambda env: Ahac(AhacConfig(**SMALL), env),
    "rpo": lambda env: Rpo(RpoConfig(**SMALL), env),
    "mixed": lambda env: Shac(ShacConfig(**SMALL, estimator="mixed"), env),
    "reinforce": lambda env: Reinforce(ReinforceConfig(**PLAIN), env),
    "npg": lambda env: Npg(NpgConfig(**PLAIN), env),
    "trpo": lambda env: Trpo(TrpoConfig(**PLAIN), env),
    "ppo": lambda env: Ppo(PpoConfig(**SMALL, batch_size=24), env),
    "reppo": lambda env: Reppo(ReppoConfig(**SMALL, batch_size=24), env),
    "svg": lambda env: Svg(SvgConfig(**PLAIN, horizon="1", learning_starts=1, batch_size=8), env),
    "sac": lambda env: Sac(SacConfig(**SMALL, batch_size=24, learning_starts=0), env),
    "td3": lambda env: Td3(Td3Config(**SMALL, batch_size=24, learning_starts=0), env),
}


def defined() -> list[re.Pattern[str]]:
    """A pattern for each defined tag.

    ``group/a, b`` means ``group/a`` and ``group/b``, and ``group/...`` all tags of a group.
    """
    patterns = []
    for entry in DEFINITIONS:
        first, *others = entry.split(", ")
        group = first.rpartition("/")[0]
        for tag in (first, *(f"{group}/{other}" for other in others)):
            pattern = re.escape(tag).replace(r"\{estimator\}", r"[a-z_]+").replace(r"\.\.\.", ".+")
            patterns.append(re.compile(pattern.replace(r"\{name\}", r"[A-Za-z0-9_.]+")))
    return patterns


@pytest.mark.parametrize("name", AGENTS)
def test_every_tag_is_defined(name: str) -> None:
    agent = AGENTS[name](DifferentiableVectorEnv(Pendulum(), 6))
    metrics = agent.update(agent.collect())
    patterns = defined()
    # One picture shows all curves by step, under the group's name.
    tags = {tag for tag in metrics if not tag.startswith("gradient/by_step/")}
    assert len(tags) >= 8
    assert [tag for tag in tags if not any(p.fullmatch(tag) for p in patterns)] == []


def tags_of(chart: Chart) -> list[str]:
    kind, tags = chart
    return [
        re.sub(r"\\(.)", r"\1", tag).strip("^$") if kind == "Multiline" else tag for tag in tags
    ]


def test_every_tag_of_the_page_of_charts_is_defined() -> None:
    patterns = defined()
    charts = [chart for group in layout(has_critic=True).values() for chart in group.values()]
    tags = [tag for chart in charts for tag in tags_of(chart)]
    assert len(tags) > 30
    assert [tag for tag in tags if not any(p.fullmatch(tag) for p in patterns)] == []
