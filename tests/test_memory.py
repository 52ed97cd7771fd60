"""The estimate of memory: worked examples, and what is refused."""

import subprocess
import sys

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.memory import (
    available_memory,
    batch_bytes,
    gigabytes,
    gradients_bytes,
    network_bytes,
    require_memory,
    window_bytes,
)


def test_sizes_of_small_things() -> None:
    """Counted by hand: float32 of each tensor."""
    # 3 steps of 2 environments, each with 2 * 4 observations, 3 * 1 of the action, and 6 others.
    assert window_bytes(3, 2, 4, 1) == 4 * 3 * 2 * (8 + 3 + 6)
    # Layers 4 -> 8 -> 1: 40 + 9 parameters, each with its gradient and two moments.
    assert network_bytes([4, 8, 1]) == 4 * 4 * 49
    assert batch_bytes(10, 4, 1) == 3 * 4 * 10 * 5
    # 49 parameters, for each of 5 trajectories by 3 estimators.
    assert gradients_bytes(5, 3, [4, 8, 1]) == 4 * 49 * 5 * 3


def test_what_fits_is_not_refused_and_what_does_not_is_named() -> None:
    needs = {"a window (--num-envs 5)": 6e9, "the networks (--hidden)": 1e9}
    require_memory(needs, 7e9, "--num-envs")
    with pytest.raises(
        RequestError, match=r"at least 7 GB.*6 GB.*a window.*there are 6\.9 GB.*num_envs"
    ):
        require_memory(needs, 6.9e9, "--num-envs")


def test_gigabytes_have_two_digits_or_are_whole() -> None:
    assert [gigabytes(x) for x in (1.234e9, 12.6e9, 3.5741e12)] == ["1.2 GB", "13 GB", "3,574 GB"]


def test_the_limit_of_the_process_counts() -> None:
    """``ulimit -v``, in a process of its own."""
    assert available_memory() > 2**28
    code = "import resource, pgtoolkit.memory as m; n = 2**32\n"
    code += "resource.setrlimit(resource.RLIMIT_AS, (n, n)); assert m.available_memory() <= n"
    subprocess.run([sys.executable, "-c", code], check=True)
