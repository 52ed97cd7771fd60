"""``pgtoolkit list``: names what there is."""

from collections.abc import Sequence

from pgtoolkit.scripts.cli.registry import (
    AGENT_NOTES,
    ESTIMATOR_NOTES,
    EXPECTATION_NOTES,
    WRAPPER_NOTES,
    known,
)

KINDS = ("agents", "envs", "estimators", "wrappers")


def run(arguments: Sequence[str]) -> None:
    """Prints one kind, or all.

    Raises:
        RequestError: there is no such kind.
    """
    if "-h" in arguments or "--help" in arguments:
        print("usage: pgtoolkit list [agents|envs|estimators|wrappers]")
        return
    kinds = [known(name, dict.fromkeys(KINDS), "kind") for name in arguments] or list(KINDS)
    for kind in kinds:
        print(f"{kind}:")
        found = rows(kind)
        width = max(map(len, found))
        for name, note in found.items():
            print(f"  {name:<{width}}  {note}")


def rows(kind: str) -> dict[str, str]:
    if kind == "agents":
        return AGENT_NOTES
    if kind == "estimators":
        return ESTIMATOR_NOTES | EXPECTATION_NOTES
    if kind == "wrappers":
        return WRAPPER_NOTES
    import gymnasium

    import pgtoolkit.envs  # noqa: F401  # registers its environments
    from pgtoolkit.envs.registry.plugins import register_plugins

    plugins = {name: f"of the package {package}" for name, package in register_plugins().items()}
    ours = {
        name: "differentiable"
        for name, spec in gymnasium.registry.items()
        if spec.namespace == "pgtoolkit"
    }
    return (
        ours
        | plugins
        | {
            "any Gymnasium id": "differentiated by an adapter, such as Pendulum-v1, Reacher-v5",
            "module:Id-v0": "imports the module first",
            "path/to/file.py:Class": "a DifferentiableEnv or a gymnasium.Env of your own",
        }
    )


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
