"""``pgtoolkit list``: names what there is."""

from collections.abc import Sequence

from pgtoolkit.scripts.tables import AGENT_NOTES, ESTIMATOR_NOTES, EXPECTATION_NOTES, known

KINDS = ("agents", "envs", "estimators")


def run(arguments: Sequence[str]) -> None:
    """Prints one kind, or all.

    Raises:
        RequestError: there is no such kind.
    """
    if "-h" in arguments or "--help" in arguments:
        print("usage: pgtoolkit list [agents|envs|estimators]")
        return
    kinds = [known(name, dict.fromkeys(KINDS), "kind") for name in arguments] or list(KINDS)
    for kind in kinds:
        print(f"{kind}:")
        for name, note in rows(kind).items():
            print(f"  {name:<24} {note}")


def rows(kind: str) -> dict[str, str]:
    if kind == "agents":
        return AGENT_NOTES
    if kind == "estimators":
        return ESTIMATOR_NOTES | EXPECTATION_NOTES
    import gymnasium

    import pgtoolkit.envs  # noqa: F401  # registers its environments

    ours = {
        name: "differentiable"
        for name, spec in gymnasium.registry.items()
        if spec.namespace == "pgtoolkit"
    }
    return ours | {
        "any Gymnasium id": "no gradient; such as Pendulum-v1, InvertedPendulum-v5",
        "module:Id-v0": "imports the module first",
        "path/to/file.py:Class": "a DifferentiableEnv or a gymnasium.Env of your own",
    }


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli import run_command

    run_command(run, sys.argv[1:])
