"""An example of every command, and the options that its help shows first. Imports nothing."""

from typing import NamedTuple, final


@final
class Example(NamedTuple):
    """How a command is mostly called."""

    line: str
    """A command line; ``{agent}`` stands for the agent whose help is shown."""
    first: tuple[str, ...]
    """Fields of the options that matter most; those that a command does not have are left out."""


EXAMPLES = {
    "train": Example(
        "pgtoolkit train {agent} --env pgtoolkit/Pendulum-v0 --total-steps 200000",
        (
            "env",
            "total_steps",
            "seed",
            "run_dir",
            "num_envs",
            "n_steps",
            "learning_rate",
            "target_kl",
            "hidden",
            "gamma",
            "batch_size",
            "estimator",
            "ent_coef_relative",
            "amplification_bound",
            "differentiate",
        ),
    ),
    "resume": Example("pgtoolkit resume runs/mine --total-steps 400000", ("run", "total_steps")),
    "evaluate": Example(
        "pgtoolkit evaluate runs/mine --episodes 100", ("run", "episodes", "env", "video", "json")
    ),
    "variance": Example(
        "pgtoolkit variance --env pgtoolkit/Pendulum-v0 --horizons 4 16 64",
        ("run", "env", "horizons", "trajectories", "estimators", "json", "plot"),
    ),
    "compare": Example(
        "pgtoolkit compare --env pgtoolkit/Pendulum-v0 --agents shac ppo --seeds 5",
        ("env", "agents", "seeds", "total_steps", "set", "plot", "json"),
    ),
    "tune": Example(
        "pgtoolkit tune {agent} --env pgtoolkit/Pendulum-v0 --trials 30 --seeds 2",
        ("env", "trials", "total_steps", "seeds", "tune", "jobs", "run_dir", "json"),
    ),
    "report": Example(
        "pgtoolkit report runs/one runs/two --output report.html", ("runs", "output")
    ),
    "plot": Example("pgtoolkit plot runs/one runs/two --output curves.png", ("runs", "output")),
    "export": Example("pgtoolkit export runs/mine --output policy.onnx", ("run", "output")),
    "explain": Example("pgtoolkit explain runs/mine", ("run", "fault")),
    "check-env": Example(
        "pgtoolkit check-env path/to/file.py:MyEnv", ("env", "env_kwargs", "differentiate", "json")
    ),
    "benchmark": Example("pgtoolkit benchmark pathwise env-step", ("names", "list", "json")),
    "list": Example("pgtoolkit list agents envs", ()),
    "completion": Example("pgtoolkit completion bash", ()),
}
