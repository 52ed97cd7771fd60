"""The checksum against the standard's value and tensorboard's own."""

import numpy as np
import pytest
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

from pgtoolkit.training.storage.crc32c import BLOCK, crc32c, masked_crc32c


def test_the_check_value_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize(
    "length", [0, 1, 2, 3, 4, 5, 100, *(BLOCK + i for i in range(-2, 6)), 2 * BLOCK, 5000]
)
def test_it_is_that_of_tensorboard(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert masked_crc32c(data) == pywrap_tensorflow.masked_crc32c(data)
