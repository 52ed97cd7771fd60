"""The commands that install this package's optional parts."""

import importlib.metadata
import re

DISTRIBUTION = "policy-gradient-toolkit"


def install_command(extra: str) -> str:
    """A pip command that installs what an extra consists of, from any folder.

    It names the extra's packages and not this package, so that it also works where this package was
    installed from a clone, and on an installation that must not be replaced. Without an
    installation (the code is used in place) it names the extra, for the folder of pyproject.toml.

    Args:
        extra: name of an extra in pyproject.toml.

    Returns:
        Such as ``python -m pip install "gymnasium[mujoco]"``.
    """
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    wanted = [split_marker(text) for text in requirements]
    packages = [name for name, marker in wanted if belongs_to(marker, extra)]
    return "python -m pip install " + " ".join(f'"{name}"' for name in packages or [f".[{extra}]"])


def split_marker(requirement: str) -> tuple[str, str]:
    """A requirement without its environment marker, and the marker; ``""`` for none."""
    name, _, marker = requirement.partition(";")
    return name.strip(), marker.strip()


def belongs_to(marker: str, extra: str) -> bool:
    """Whether an environment marker asks for this extra."""
    return re.search(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]", marker) is not None
