import torch

from pgtoolkit.envs.control.lengths import smooth_length, soft_clip_length


def test_a_smooth_length() -> None:
    vector = torch.tensor([[0.0, 0.0], [3e-4, 4e-4], [300.0, 400.0]], dtype=torch.float64)
    near, quadratic, far = smooth_length(vector, 0.05).squeeze(-1).tolist()
    assert near == 0 and abs(far - (500 - 0.05)) < 1e-5
    assert abs(quadratic / (5e-4**2 / 0.1) - 1) < 1e-4
    assert torch.autograd.gradcheck(lambda v: smooth_length(v, 0.05), vector.requires_grad_())


def test_a_soft_clip_can_be_inverted() -> None:
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.0, 0.1, 1.0, 10.0, 100.0]).double().unsqueeze(-1)
    vector = scale * torch.randn(5, 3, generator=generator).double()
    short = soft_clip_length(vector, 3.0)
    length = short.norm(dim=-1, keepdim=True)
    assert bool((length < 3.0).all())
    torch.testing.assert_close(short / torch.sqrt(1 - length.square() / 9), vector)
    assert torch.autograd.gradcheck(lambda v: soft_clip_length(v, 3.0), vector.requires_grad_())
    # Near 0 it changes nothing.
    zero = torch.zeros(1, 3, requires_grad=True)
    assert torch.autograd.grad(soft_clip_length(zero, 3.0).sum(), zero)[0].tolist() == [
        [1.0, 1.0, 1.0]
    ]
