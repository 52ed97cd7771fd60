"""Settings of an agent that suit an environment: the files of ``scripts/presets``.

A file is named after the environment's id, and has a section of settings for each agent.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

from pgtoolkit.scripts.cli.arguments import read_yaml

FOLDER = Path(__file__).parents[1] / "presets"

PresetChoice = Literal["auto", "none"]


@final
class Preset(NamedTuple):
    """Settings that differ from the agent's defaults."""

    agent: str
    env: str
    settings: Mapping[str, Any]

    @property
    def sentence(self) -> str:
        """What is set, and how the defaults are had in its place."""
        values = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        return f"preset of {self.agent} on {self.env}: {values} (defaults: --preset none)"


def preset_files() -> dict[str, Path]:
    """The environment's id of each file of presets."""
    return {path.relative_to(FOLDER).as_posix()[:-5]: path for path in FOLDER.rglob("*.yaml")}


def find_preset(choice: PresetChoice, agent: str, env: str) -> Preset | None:
    """The settings for an agent on an environment; None if there are none, or none are wanted.

    Args:
        choice: auto, or none.
        agent: the agent's name.
        env: the environment's id; versions have settings of their own.
    """
    file = preset_files().get(env) if choice == "auto" else None
    settings = {} if file is None else read_yaml(file).get(agent, {})
    return Preset(agent, env, settings) if settings else None
