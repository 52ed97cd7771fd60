"""``pgtoolkit evaluate RUN``: runs a trained policy, here or on another environment."""

import dataclasses
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, final

import tyro

from pgtoolkit.limits import MAX_COUNT
from pgtoolkit.scripts.cli.arguments import parse, require_options
from pgtoolkit.scripts.cli.files import require_writable, write_json

if TYPE_CHECKING:
    from pgtoolkit.envs.registry.resolve import EnvSpec
    from pgtoolkit.gymnasium_types import AnyVectorEnv
    from pgtoolkit.policies.policy import Policy
    from pgtoolkit.rollouts.evaluation import Evaluation
    from pgtoolkit.scripts.cli.experiment import FindEnvironments

LINE_WIDTH = 80


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Runs a trained policy for whole episodes and reports its undiscounted returns."""

    run: Annotated[str, tyro.conf.Positional]
    """The run's folder."""
    env: str | None = None
    """Another environment with the same spaces: an id, module:Id-v0 or path/to/file.py:Class.
    The module or file is run as Python code. Default: the run's."""
    env_kwargs: str | None = None
    """JSON object of arguments for the environment. Default: the run's, if env is the run's."""
    gym_wrappers: str | None = None
    """JSON object of Gymnasium's wrappers for the environment, as in `pgtoolkit train`. Default:
    the run's, if env is the run's."""
    episodes: int = 20
    """Number of episodes."""
    eval_max_steps: int | None = None
    """Steps after which an episode is cut off and counts with its return so far. Default: the
    run's; in another environment its time limit, or 1,000 where none is known."""
    seed: int = 1000
    """Seed of the starts, and of the actions if they are stochastic."""
    stochastic: bool = False
    """Sample the actions; by default each action is the distribution's mode."""
    checkpoint: Literal["best", "last"] = "best"
    """Policy to evaluate. best: highest return in the evaluations while training (last if there was
    none); last: at the end of training."""
    video: Path | None = None
    """File for a video of one episode: .gif or .mp4."""
    json: Path | None = None
    """File for the result, as JSON."""
    trust: bool = False
    """Run the code that the run's folder names (file.py:Class, module:Id) though it was not trained
    here by you."""

    def __post_init__(self) -> None:
        max_steps = self.eval_max_steps
        conditions = {
            "episodes": (1 <= self.episodes <= MAX_COUNT, f"from 1 to {MAX_COUNT:,}"),
            "eval_max_steps": (
                max_steps is None or 1 <= max_steps <= MAX_COUNT,
                f"from 1 to {MAX_COUNT:,}",
            ),
            "seed": (0 <= self.seed < 2**31, "at least 0 and below 2^31"),
        }
        require_options(self, conditions)


@final
class Evaluated(NamedTuple):
    """The episodes of a policy, and what they were played with."""

    result: "Evaluation"
    policy: "Policy"
    path: Path
    """The policy's file."""
    num_steps: int | None
    """Environment steps after which it was saved."""
    env_name: str
    """The environment's name as it was given."""
    env: "AnyVectorEnv"
    source: "EnvSpec"
    max_steps: int
    """Steps after which an episode was cut off."""


def run(arguments: Sequence[str]) -> None:
    """Loads the policy, runs it, and reports its returns.

    Raises:
        RequestError: no such run or environment, or the policy does not fit the environment.
    """
    options = parse(EvaluateArguments, arguments, command="evaluate")
    from pgtoolkit.scripts.cli.display.video import record_episode, require_video
    from pgtoolkit.scripts.cli.experiment import cut_off_sentence

    if options.json is not None:
        require_writable(options.json, "--json")
    if options.video is not None:
        require_video(options.video)
    evaluated = evaluate_run(options)
    result, source = evaluated.result, evaluated.source
    print("\n".join(result_lines(evaluated, options)))
    if result.success_rate is not None:
        print(f"success rate {result.success_rate:.0%} (is_success of the episodes' last steps)")
    if result.cut_off:
        sentence = cut_off_sentence(result, evaluated.env, source.name, evaluated.max_steps)
        print(textwrap.fill(sentence, LINE_WIDTH, break_long_words=False, break_on_hyphens=False))
    if options.json is not None:
        found = describe(result, options, evaluated.env_name, evaluated.path)
        write_json(options.json, found)
    if options.video is not None:
        record_episode(source, evaluated.policy, options.video, seed=options.seed)
        print(f"video: {options.video}")


def evaluate_run(
    options: EvaluateArguments, find_environments: "FindEnvironments | None" = None
) -> Evaluated:
    """Loads the policy and runs it.

    Args:
        options: the command's; no file is written here.
        find_environments: makes the environments, if not those that the options or the folder name.

    Raises:
        RequestError: no such run or environment, the policy does not fit the environment, or this
            cannot be rendered for a video.
    """
    import torch

    from pgtoolkit.rollouts.evaluation import evaluate
    from pgtoolkit.scripts.cli.display.video import require_rendering
    from pgtoolkit.scripts.cli.experiment import env_factory_of, load_policy
    from pgtoolkit.scripts.cli.memory import require_evaluation_memory
    from pgtoolkit.scripts.cli.trust import OTHER_ENV, names_of, require_signed, settings_of_run
    from pgtoolkit.training.run_folder import RunFolder

    folder, config = RunFolder.open(options.run)
    settings = settings_of_run(config, command="evaluate", trust=options.trust)
    chosen = chosen_environment(options, settings.run)
    if not options.trust:
        require_signed(config, names_of(chosen) - names_of(options), OTHER_ENV)
    torch.set_num_threads(settings.run.threads)
    device = torch.device("cpu")
    environments = (find_environments or env_factory_of)(chosen, False, device)
    require_evaluation_memory(environments, options.episodes)
    if options.video is not None:
        require_rendering(environments.source)
    env = environments.make_for_evaluation(options.episodes)
    saved = folder.read_policy(options.checkpoint)
    policy, path = load_policy(saved, settings, env), saved[1]
    max_steps = longest_episode(options, settings, env)
    result = evaluate(
        env,
        policy,
        episodes=options.episodes,
        seed=options.seed,
        device=device,
        stochastic=options.stochastic,
        max_episode_steps=max_steps,
    )
    num_steps = saved[0].get("num_steps")
    return Evaluated(
        result, policy, path, num_steps, chosen.env, env, environments.source, max_steps
    )


def longest_episode(options: EvaluateArguments, settings: Any, env: Any) -> int:
    """Steps after which an episode is cut off: of the options, else of the run, else of ``env``.

    The run's number is about its own environment and not about another one.
    """
    from pgtoolkit.scripts.cli.experiment import default_max_steps

    given = options.eval_max_steps
    if given is None and options.env is None and options.env_kwargs is None:
        given = settings.loop.eval_max_steps
    return given or default_max_steps(env)


def result_lines(evaluated: Evaluated, options: EvaluateArguments) -> list[str]:
    """Mean return with its standard error, the episodes, the environment and the policy's file."""
    result = evaluated.result
    error = "" if result.standard_error is None else f" +- {result.standard_error:.2f}"
    actions = "stochastic" if options.stochastic else "deterministic"
    count = f"{len(result.returns):,} {actions}, of {result.mean_length:.1f} steps on average"
    meaning = " (mean +- standard error)" if error else " (of one episode: no standard error)"
    return [
        f"return:      {result.mean_return:.2f}{error}{meaning}",
        f"             standard deviation {result.std_return:.2f} over episodes",
        f"episodes:    {count}",
        f"environment: {evaluated.env_name}",
        f"policy:      {evaluated.path}",
        *([] if evaluated.num_steps is None else [f"             of step {evaluated.num_steps:,}"]),
    ]


def chosen_environment(options: EvaluateArguments, run: Any) -> Any:
    """The ``RunConfig`` of the environment to evaluate in: the run's, or the one in the options.

    A policy that only acts needs no gradient, so adapters are left out where no wrapper needs one.

    Args:
        options: the command's arguments.
        run: the run's ``RunConfig``.
    """
    keep = run.wrappers != "{}" or run.differentiate in ("auto", "none")
    chosen = dataclasses.replace(run, differentiate=run.differentiate if keep else "none")
    if not keep:
        chosen = dataclasses.replace(chosen, adapter_kwargs="{}")
    if options.env is not None:
        chosen = dataclasses.replace(
            chosen,
            env=options.env,
            env_kwargs="{}",
            differentiate="auto" if chosen.differentiate == "auto" else "none",
            adapter_kwargs="{}",
            gym_wrappers="{}",
            wrappers="{}",
        )
    if options.gym_wrappers is not None:
        chosen = dataclasses.replace(chosen, gym_wrappers=options.gym_wrappers)
    if options.env_kwargs is not None:
        chosen = dataclasses.replace(chosen, env_kwargs=options.env_kwargs)
    return chosen


def describe(result: Any, options: EvaluateArguments, env: str, path: Path) -> dict[str, Any]:
    return {
        "mean_return": result.mean_return,
        "std_return": result.std_return,
        "standard_error": result.standard_error,
        "episodes": len(result.returns),
        "returns": result.returns,
        "lengths": result.lengths,
        "mean_length": result.mean_length,
        "cut_off": result.cut_off,
        "success_rate": result.success_rate,
        "successes": result.successes,
        "env": env,
        "seed": options.seed,
        "stochastic": options.stochastic,
        "checkpoint": str(path),
    }


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
