import math

import torch

from pgtoolkit.envs.control.trigonometry import cosine, sine, sine_and_cosine, wrap_angle


def test_they_are_the_c_library_s_in_float64_and_differentiable() -> None:
    angle = torch.linspace(-20, 20, 20_001, dtype=torch.float64)
    sines, cosines = sine_and_cosine(angle)
    assert sines.tolist() == [math.sin(x) for x in angle.tolist()]
    assert cosines.tolist() == [math.cos(x) for x in angle.tolist()]
    assert torch.autograd.gradcheck(sine_and_cosine, angle[::500].clone().requires_grad_())


def test_float32_stays_float32() -> None:
    angle = torch.linspace(-20, 20, 2001)
    sines, cosines = sine_and_cosine(angle)
    assert torch.equal(sines, torch.sin(angle)) and torch.equal(cosines, torch.cos(angle))


def test_angles_are_wrapped_with_derivative_1() -> None:
    angle = torch.tensor([0.0, 3.0, 4.0, -4.0, 20.0, -math.pi], requires_grad=True)
    wrapped = wrap_angle(angle)
    assert torch.allclose(torch.sin(wrapped), torch.sin(angle), atol=1e-5)
    assert wrapped.abs().max() <= math.pi + 1e-6
    assert torch.autograd.grad(wrapped.sum(), angle)[0].tolist() == [1.0] * 6


def test_the_sine_is_the_c_library_s_in_float64_and_differentiable() -> None:
    angle = torch.linspace(-20, 20, 20_001, dtype=torch.float64)
    assert sine(angle).tolist() == [math.sin(x) for x in angle.tolist()]
    assert torch.allclose(sine(angle.float()), torch.sin(angle).float(), atol=1e-5)
    assert torch.autograd.gradcheck(sine, angle[::500].clone().requires_grad_())


def test_the_cosine_is_that_of_the_pair_in_both_dtypes() -> None:
    for dtype in (torch.float32, torch.float64):
        angle = torch.linspace(-20, 20, 2001, dtype=dtype)
        assert torch.equal(cosine(angle), sine_and_cosine(angle)[1])
    assert torch.autograd.gradcheck(cosine, angle[::50].clone().requires_grad_())
