"""``pgtoolkit evaluate RUN``: runs a trained policy, here or on another environment."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, final

import tyro

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.cli.experiment import load_policy
from pgtoolkit.scripts.cli.files import write_json


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Runs a trained policy for whole episodes and reports its undiscounted returns."""

    run: Annotated[str, tyro.conf.Positional]
    """The run's folder."""
    env: str | None = None
    """Another environment with the same spaces, in any of the three forms; default: the run's."""
    env_kwargs: str | None = None
    """JSON object of arguments for the environment; default: the run's, if env is the run's."""
    episodes: int = 20
    """How many."""
    seed: int = 1000
    """Of the starts, and of the actions if stochastic."""
    stochastic: bool = False
    """Sample actions instead of taking the distribution's mode."""
    checkpoint: Literal["best", "last"] = "best"
    """best: of the evaluations while training (last, if there was none); last: at the end."""
    video: Path | None = None
    """Write one episode to this file, .gif or .mp4."""
    json: Path | None = None
    """Write the result to this file."""

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise RequestError(f"--episodes must be at least 1, not {self.episodes}")
        if not 0 <= self.seed < 2**31:
            raise RequestError(f"--seed must be at least 0 and below 2^31, not {self.seed}")


def run(arguments: Sequence[str]) -> None:
    """Parses, loads, evaluates, reports.

    Raises:
        RequestError: no such run or environment, or the policy does not fit the environment.
    """
    options = parse(EvaluateArguments, arguments, command="evaluate")
    import torch

    from pgtoolkit.rollouts.evaluation import evaluate
    from pgtoolkit.scripts.cli.experiment import environments_of, settings_from_file
    from pgtoolkit.training.run_folder import RunFolder

    folder, config = RunFolder.open(Path(options.run))
    settings = settings_from_file(config, [], command="evaluate")
    place = place_of(options, settings.run)
    device = torch.device("cpu")
    environments = environments_of(place, False, device)
    env = environments.make_for_evaluation(options.episodes)
    path = folder.saved_policy(options.checkpoint)
    policy = load_policy(path, settings, env)
    result = evaluate(
        env,
        policy,
        episodes=options.episodes,
        seed=options.seed,
        device=device,
        stochastic=options.stochastic,
    )
    print(
        f"mean return {result.mean_return:.2f}, standard deviation {result.std_return:.2f} over "
        f"{options.episodes} {'stochastic' if options.stochastic else 'deterministic'} episodes of "
        f"{place.env} (mean length {result.mean_length:.1f}; policy {path})"
    )
    if options.json is not None:
        write_json(options.json, describe(result, options, place.env, path))
    if options.video is not None:
        from pgtoolkit.scripts.cli.video import record_episode

        record_episode(environments.source, policy, options.video, seed=options.seed)
        print(f"video: {options.video}")


def place_of(options: EvaluateArguments, run: Any) -> Any:
    """The run's environment or another, for a policy that only acts: adapters are not needed.

    Args:
        options: the command's.
        run: the run's ``RunConfig``.
    """
    keep = run.wrappers != "{}" or run.differentiate in ("auto", "none")
    place = dataclasses.replace(run, differentiate=run.differentiate if keep else "none")
    if not keep:
        place = dataclasses.replace(place, adapter_kwargs="{}")
    if options.env is not None:
        place = dataclasses.replace(
            place,
            env=options.env,
            env_kwargs="{}",
            differentiate="auto" if place.differentiate == "auto" else "none",
            adapter_kwargs="{}",
            wrappers="{}",
        )
    if options.env_kwargs is not None:
        place = dataclasses.replace(place, env_kwargs=options.env_kwargs)
    return place


def describe(result: Any, options: EvaluateArguments, env: str, path: Path) -> dict[str, Any]:
    return {
        "mean_return": result.mean_return,
        "std_return": result.std_return,
        "episodes": len(result.returns),
        "returns": result.returns,
        "lengths": result.lengths,
        "mean_length": result.mean_length,
        "env": env,
        "seed": options.seed,
        "stochastic": options.stochastic,
        "checkpoint": str(path),
    }


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
