"""The memory layout of compiled loops, and that packing has an inverse."""

import torch

from pgtoolkit.envs.compiled.layout import Layout, pack, unpack


def test_unpack_is_the_inverse_of_pack() -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(4, 5, 3, generator=generator)
    flags = torch.rand(4, 5, generator=generator) > 0.5
    flag_rows = torch.rand(4, 5, 2, generator=generator) > 0.5
    counts, wide, images = torch.arange(20).view(4, 5), torch.ones(4, 5, 17), torch.ones(4, 5, 2, 2)
    stacked = [numbers, flags, flag_rows, counts, wide, images, torch.ones(4, 5, 1)]
    layouts = [Layout.of(x[0]) for x in stacked]
    packed = pack(stacked, layouts)
    assert packed[0].shape == (4, 3, 5) and packed[0].is_contiguous()
    assert packed[1].dtype == torch.float32 and packed[1].shape == (4, 5)
    assert packed[2].dtype == torch.float32 and packed[2].shape == (4, 2, 5)
    # Counts, wide tensors, images and single columns are as they were.
    assert all(a is b for a, b in zip(packed[3:], stacked[3:], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(unpack(packed, layouts), stacked, strict=True))
    one = [x[1] for x in stacked]
    assert all(
        torch.equal(a, b) for a, b in zip(unpack(pack(one, layouts), layouts), one, strict=True)
    )
