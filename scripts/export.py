"""``pgtoolkit export RUN --output FILE``: writes a policy for programs without this package."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, final

import tyro

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.cli.files import require_writable

if TYPE_CHECKING:
    from pgtoolkit.policies.policy import Policy
    from pgtoolkit.scripts.exporting.formats import Format
    from pgtoolkit.scripts.exporting.verification import Comparison

SUFFIXES = (".onnx", ".pt2")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Writes a trained policy as a graph from observations [N, O] to deterministic actions [N, A].

    Normaliser, squashing and bounds are inside, so that the file needs no pgtoolkit. It is written
    after its actions were found equal to the agent's on 1,000 observations of the environment.
    """

    run: Annotated[str, tyro.conf.Positional]
    """The run's folder."""
    output: Path
    """The new file: .onnx, which onnxruntime and others run (extra `export`), or .pt2, which torch
    alone runs."""
    checkpoint: Literal["best", "last"] = "best"
    """Policy to export. best: highest return in the evaluations while training (last if there was
    none); last: at the end of training."""
    trust: bool = False
    """Run the code that the run's folder names (file.py:Class, module:Id) though it was not trained
    here by you."""


def run(arguments: Sequence[str]) -> None:
    """Exports the policy, compares it with the agent's, and writes it.

    Raises:
        RequestError: no such run or environment, a package is missing, or the file cannot be
            written.
        ExportError: the exported actions are not the agent's; no file is left.
    """
    options = parse(ExportArguments, arguments, command="export")
    require_new_file(options.output)
    import torch

    from pgtoolkit.scripts.cli.experiment import env_factory_of, load_policy
    from pgtoolkit.scripts.cli.trust import names_of, require_signed, settings_of_run
    from pgtoolkit.scripts.comparison.plan import env_label
    from pgtoolkit.scripts.evaluate import EvaluateArguments, chosen_environment
    from pgtoolkit.scripts.exporting.formats import FORMATS, require_packages
    from pgtoolkit.scripts.exporting.metadata import describe_policy
    from pgtoolkit.scripts.exporting.verification import NUM_ENVS
    from pgtoolkit.training.run_folder import RunFolder

    wanted = FORMATS[options.output.suffix.lower()]
    require_packages(wanted)
    folder, config = RunFolder.open(options.run)
    settings = settings_of_run(config, command="export", trust=options.trust)
    if not options.trust:
        require_signed(config, names_of(settings.run))
    chosen = chosen_environment(EvaluateArguments(run=options.run), settings.run)
    environments = env_factory_of(chosen, False, torch.device("cpu"))
    env = environments.make_for_evaluation(NUM_ENVS)
    saved, path = folder.read_policy(options.checkpoint)
    policy = load_policy((saved, path), settings, env)
    metadata = describe_policy(
        env.single_observation_space,
        env.single_action_space,
        own_observation_space=environments.source.observation_space,
        own_action_space=environments.source.action_space,
        env=env_label(settings.run.env),
        agent=settings.agent_name,
        num_steps=saved.get("num_steps"),
    )
    content, comparison = export(policy, env, wanted, metadata)
    write(options.output, content)
    print(report(options.output, metadata, path, wanted, comparison))


def require_new_file(path: Path) -> None:
    """Checks that a file of this name can be written, and that there is none.

    Raises:
        RequestError: another suffix, there is something of this name, or it cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise RequestError(f"--output must end in {' or '.join(SUFFIXES)}, not {path.name}")
    try:
        there = os.path.lexists(path)
    except (OSError, ValueError):
        there = False
    if there:
        raise RequestError(f"--output {path} exists already: give another path, or remove it")
    require_writable(path, "--output")


def export(
    policy: "Policy", env: Any, wanted: "Format", metadata: dict[str, Any]
) -> tuple[bytes, "Comparison"]:
    """The content of the file, and how its actions differ from the agent's.

    Args:
        policy: the agent's.
        env: environments with the policy's spaces, for observations to compare on.
        wanted: the format.
        metadata: what the file says about itself.

    Raises:
        ExportError: the difference is too large.
    """
    import torch

    from pgtoolkit.policies.action_graph import ActionGraph, observation_dtype
    from pgtoolkit.scripts.exporting.verification import compare, observe

    spaces = env.single_observation_space, env.single_action_space
    graph = ActionGraph(policy, *spaces)
    with torch.no_grad():
        example = torch.zeros(2, *spaces[0].shape, dtype=graph.observation_dtype)
        content = wanted.encode(graph, example, metadata)
    act, dtype = wanted.load(content), observation_dtype(spaces[0])
    return content, compare(policy, act, observe(env, policy), spaces[1], dtype)


def write(path: Path, content: bytes) -> None:
    """Writes the file in one go.

    Raises:
        RequestError: the system refuses; no file is left.
    """
    from pgtoolkit.training.storage.files import replace_file, system_reason

    try:
        replace_file(path, [content], inside=path.parent)
    except OSError as error:
        raise RequestError(
            f"--output {path} cannot be written ({system_reason(error)}): give another path"
        ) from error


def report(
    path: Path, metadata: dict[str, Any], policy: Path, wanted: "Format", found: "Comparison"
) -> str:
    """What was written, and how well it was found to agree."""
    sides = (metadata["observation"], metadata["action"])
    first, second = (
        f"{side['name']} [{', '.join(map(str, side['shape']))}] {side['dtype']}" for side in sides
    )
    return (
        f"{path}: {first} -> {second}, of {metadata['env']} (policy {policy})\n"
        f"equal to the agent's actions on {found.num_observations:,} observations, run by "
        f"{wanted.runtime}: the largest difference is {found.largest:.2g} (at most "
        f"{found.limit:.2g} is allowed; rounding changes the agent's own by {found.rounding:.2g})"
    )


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
