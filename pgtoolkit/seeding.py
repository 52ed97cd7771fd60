"""One seed, many independent streams, each with a name."""

import zlib

import numpy as np
import torch

from pgtoolkit.errors import RequestError


def stream_seed(seed: int, name: str) -> int:
    """The seed of one named stream of a run, below 2^31.

    Generators that are given one seed all draw the same bits: noise would repeat the numbers that
    made the weights. And ``N`` environments that are seeded ``seed, seed + 1, ...`` share all but
    one with the next run. Hashing seed and name parts them.

    Raises:
        RequestError: the seed is negative.
    """
    if seed < 0:
        raise RequestError(f"--seed must be at least 0, not {seed}")
    sequence = np.random.SeedSequence([seed, zlib.crc32(name.encode())])
    return int(sequence.generate_state(1)[0]) >> 1


def stream(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one named stream of a run."""
    return torch.Generator(device).manual_seed(stream_seed(seed, name))
