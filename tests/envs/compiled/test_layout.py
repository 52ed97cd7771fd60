"""How loops hold tensors: and that they come back as they were."""

import torch

from pgtoolkit.envs.compiled.layout import Form, hold, release


def test_what_is_held_comes_back() -> None:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(4, 5, 3, generator=generator)
    flags = torch.rand(4, 5, generator=generator) > 0.5
    flag_rows = torch.rand(4, 5, 2, generator=generator) > 0.5
    counts, wide, images = torch.arange(20).view(4, 5), torch.ones(4, 5, 17), torch.ones(4, 5, 2, 2)
    stacked = [numbers, flags, flag_rows, counts, wide, images, torch.ones(4, 5, 1)]
    forms = [Form.of(x[0]) for x in stacked]
    held = hold(stacked, forms)
    assert held[0].shape == (4, 3, 5) and held[0].is_contiguous()
    assert held[1].dtype == torch.float32 and held[1].shape == (4, 5)
    assert held[2].dtype == torch.float32 and held[2].shape == (4, 2, 5)
    # Counts, wide tensors, images and single columns are as they were.
    assert all(a is b for a, b in zip(held[3:], stacked[3:], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(release(held, forms), stacked, strict=True))
    one = [x[1] for x in stacked]
    assert all(
        torch.equal(a, b) for a, b in zip(release(hold(one, forms), forms), one, strict=True)
    )
