"""Independent named streams of random numbers from one seed."""

import zlib

import numpy as np
import torch

from pgtoolkit.errors import SettingError


def stream_seed(seed: int, name: str) -> int:
    """The seed of one named stream of a run, at least 0 and below 2^31.

    It is a hash of seed and name. If every generator got the run's own seed, all would draw the
    same bits, and the noise would repeat the numbers that initialised the weights. If ``N``
    environments were seeded ``seed, seed + 1, ...``, a run would share all but one of its seeds
    with the next run.

    Args:
        seed: the run's seed, at least 0.
        name: the stream's name, unique within the run.

    Raises:
        RequestError: the seed is negative.
    """
    if seed < 0:
        raise SettingError(f"--seed must be at least 0, not {seed}")
    sequence = np.random.SeedSequence([seed, zlib.crc32(name.encode())])
    return int(sequence.generate_state(1)[0]) >> 1


def stream(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on the device, seeded with :func:`stream_seed`."""
    return torch.Generator(device).manual_seed(stream_seed(seed, name))
