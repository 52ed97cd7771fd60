"""The sides of the ``pathwise`` benchmark run."""

from pgtoolkit.scripts.benchmarks import pathwise, peer_eager


def test_pathwise_sides_run() -> None:
    """Ours, here with plain steps, and the eager script."""
    gradient_step = pathwise.make_gradient_step(3, compile="never")
    gradient_step(4)
    gradient_step(2)
    peer_eager.pathwise_run(3, 4)(0)
