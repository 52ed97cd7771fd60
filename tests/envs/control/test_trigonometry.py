import math

import torch

from pgtoolkit.envs.control.integrators import sine_and_cosine


def test_they_are_the_c_library_s_in_float64_and_differentiable() -> None:
    angle = torch.linspace(-20, 20, 20_001, dtype=torch.float64)
    sine, cosine = sine_and_cosine(angle)
    assert sine.tolist() == [math.sin(x) for x in angle.tolist()]
    assert cosine.tolist() == [math.cos(x) for x in angle.tolist()]
    assert torch.autograd.gradcheck(sine_and_cosine, angle[::500].clone().requires_grad_())


def test_float32_stays_float32() -> None:
    angle = torch.linspace(-20, 20, 2001)
    sine, cosine = sine_and_cosine(angle)
    assert torch.equal(sine, torch.sin(angle)) and torch.equal(cosine, torch.cos(angle))
