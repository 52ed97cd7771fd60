"""Hidden layers of the user's: what they get, and every refusal."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from pgtoolkit.config import PolicySettings
from pgtoolkit.errors import RequestError
from pgtoolkit.policies.factory import make_policy
from pgtoolkit.policies.gaussian import gaussian_head
from pgtoolkit.policies.numpy_policy import numpy_actor
from pgtoolkit.policies.policy import Policy
from pgtoolkit.policies.torso import chosen_torso, make_torso

OBS, ACTION = spaces.Box(-9, 9, (3,)), spaces.Box(-1, 1, (2,))

SHARED = nn.Linear(3, 4)

LAYERS = nn.Sequential(nn.Linear(3, 5), nn.Tanh())


class Residual(nn.Module):
    """``h + relu(W h)`` with ``h = tanh(V x)``."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(space.shape[0], 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        return h + torch.relu(self.second(h))


def residual(space: spaces.Box) -> nn.Module:
    return Residual(space)


class Applied(nn.Module):
    """A linear layer, and a function of its input and output."""

    def __init__(self, function: Any, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.layer, self.function, self.count = layer or nn.Linear(3, 4), function, 0
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        self.count += 1
        return self.function(self, x, self.layer(x))


def counted(module: Any, x: Tensor, y: Tensor) -> Tensor:
    module.calls += 1
    return y


def frozen(space: spaces.Box) -> nn.Module:
    return Residual(space).requires_grad_(False)


def random_by_numpy(space: spaces.Box) -> nn.Module:
    layer = nn.Linear(3, 4)
    with torch.no_grad():
        layer.bias.copy_(torch.as_tensor(np.random.default_rng().normal(size=4)))
    return layer


def raising(space: spaces.Box) -> nn.Module:
    raise KeyError("no such thing")


def needs_two(space: spaces.Box, more: int) -> nn.Module:
    return Residual(space)


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    return layer


def uncopied(space: spaces.Box) -> nn.Module:
    module = Applied(lambda m, x, y: y * m.scale)
    object.__setattr__(module, "scale", 2 * module.layer.get_parameter("weight")[0, 0])
    return module


def plain_tensor(space: spaces.Box) -> nn.Module:
    scale = torch.randn(3, 4)
    return Applied(lambda m, x, y: y + x @ scale)


def named(function: str) -> str:
    return f"{__file__}:{function}"


def policy_with(function: str, seed: int = 0, **settings: Any) -> Policy:
    given = PolicySettings(torso=named(function), **settings)
    return make_policy(given, OBS, ACTION, torch.Generator().manual_seed(seed))


def test_the_policy_is_the_head_on_the_module() -> None:
    """Both forms of the name; hidden sizes do not count."""
    policy = policy_with("residual", normalize_observations=False)
    assert type(policy.torso).__name__ == "Residual"
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(policy(x).mode, policy.head(policy.torso(x)).mode)
    other = PolicySettings(torso=f"{__name__}:Residual", normalize_observations=False)
    same = make_policy(other, OBS, ACTION, torch.Generator().manual_seed(0))
    assert torch.equal(same(x).mode, policy(x).mode)


def test_weights_are_those_of_the_generator_and_the_global_state_stays() -> None:
    """Equal seeds give equal weights, whatever was drawn before; other seeds give others."""
    one = policy_with("residual").state_dict()
    torch.randn(3)
    before = torch.get_rng_state()
    again, other = policy_with("residual").state_dict(), policy_with("residual", 1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["torso.first.weight"], other["torso.first.weight"])


def test_images_come_as_flat_rows_of_numbers_up_to_1() -> None:
    """Channels first, in the place of encoder and layers."""
    seen: list[Tensor] = []

    def remember(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        seen.append(x)
        return y

    def make(space: spaces.Box) -> nn.Module:
        return Applied(remember, nn.Linear(16 * 12 * 3, 4))

    space = spaces.Box(0, 255, (16, 12, 3), np.uint8)
    torso = make_torso("f", make, space, torch.Generator())
    head = gaussian_head(ACTION, std="state_independent", log_std_init=0.0)
    policy = Policy(space, head, torso=lambda *_: torso)
    image = torch.arange(16 * 12 * 3).remainder(256).view(1, 16, 12, 3)
    policy(image)
    assert torch.equal(seen[-1], image.movedim(-1, -3).flatten(1) / 255.0)


def test_layers_that_wait_for_the_size_of_their_input_are_ready() -> None:
    torso = make_torso("f", lambda _: nn.LazyLinear(6), OBS, torch.Generator())
    assert isinstance(torso.module, nn.Linear) and torso.module.in_features == 3
    assert torso.num_features == 6


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(3, 4, bias=False)],
        [nn.Linear(3, 4), nn.LayerNorm(4, elementwise_affine=False)],
        [nn.Linear(3, 4), nn.LayerNorm(4, bias=False)],
        [hooked(nn.Linear(3, 4))],
        [nn.Linear(3, 4), nn.GELU()],
    ],
)
def test_what_numpy_does_not_know_acts_by_torch(layers: list[nn.Module]) -> None:
    """A layer without bias, or with hooks, is not taken for a usual one."""
    policy = policy_with("residual")
    assert numpy_actor(policy) is None
    policy.torso = nn.Sequential(*layers)
    assert numpy_actor(policy) is None


REFUSED: dict[str, tuple[Any, str]] = {
    "raises": (raising, r"KeyError: 'no such thing'"),
    "signature": (needs_two, r"TypeError.*more.*must take the observation space"),
    "none": (lambda _: None, "returned None: it must take"),
    "function": (lambda _: torch.tanh, "must take the observation space and return an nn.Module"),
    "raises in forward": (lambda _: nn.Linear(7, 4), r"it fails with observations \[3, 2, 3\]"),
    "tuple": (lambda _: Applied(lambda m, x, y: (y, y)), "its output is a tuple"),
    "leading axes": (lambda _: Applied(lambda m, x, y: y.flatten()), "with the same leading axes"),
    "flattened": (lambda _: Applied(lambda m, x, y: y.reshape(-1, 4)), "the same leading axes"),
    "integers": (lambda _: Applied(lambda m, x, y: y.long()), "its output is torch.int64"),
    "double": (lambda _: Applied(lambda m, x, y: y.double()), "its output is torch.float64"),
    "no features": (lambda _: Applied(lambda m, x, y: y[..., :0]), r"\[2, 0\]"),
    "not finite": (lambda _: Applied(lambda m, x, y: y / 0), "its output is not finite"),
    "batch norm": (
        lambda _: nn.Sequential(nn.Linear(3, 4), nn.Flatten(0, -2), nn.BatchNorm1d(4)),
        "LayerNorm in the place of BatchNorm",
    ),
    "state": (lambda _: Applied(counted), "its buffer calls changes in every call"),
    "hidden state": (lambda _: Applied(lambda m, x, y: y + m.count), "different outputs"),
    "dropout": (lambda _: nn.Sequential(nn.Linear(3, 40), nn.Dropout()), "take out dropout"),
    "mean": (lambda _: Applied(lambda m, x, y: y - y.mean(0)), "depends on the others beside it"),
    "second axis": (
        lambda _: Applied(lambda m, x, y: y.cumsum(-2)),
        "depends on the others beside it",
    ),
    "frozen": (frozen, "does not require a gradient"),
    "detached": (lambda _: Applied(lambda m, x, y: y.detach()), "its output has no gradient"),
    "same module": (lambda _: SHARED, "the same module"),
    "same weights": (lambda _: nn.Sequential(SHARED), "the same parameters, again"),
    "other random numbers": (random_by_numpy, "torch's global generator alone"),
    "plain tensor": (plain_tensor, r"make the tensors that it holds .*\(register_buffer\)"),
    "no copy": (uncopied, "it cannot be copied"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_module_that_a_policy_cannot_use_is_refused_in_a_sentence(case: str) -> None:
    """What, why, and what to do; the global random state is put back."""
    function, match = REFUSED[case]
    before = torch.get_rng_state()
    with pytest.raises(RequestError, match=match) as caught:
        make_torso("nets.py:f", function, OBS, torch.Generator())
    assert "torso" in str(caught.value) and "\n" not in str(caught.value)
    assert torch.equal(torch.get_rng_state(), before)


class Normed(nn.Module):
    """A BatchNorm over all rows, whatever the leading axes are."""

    def __init__(self, track: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3, track_running_stats=track)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(x.reshape(-1, 3)).view_as(x)
        return found


def test_a_batch_norm_is_refused_with_and_without_its_averages() -> None:
    """While it trains; in evaluation mode it is a fixed map, and allowed."""
    for track in (True, False):
        with pytest.raises(RequestError, match="LayerNorm in the place of BatchNorm"):
            make_torso("f", lambda _, track=track: Normed(track), OBS, torch.Generator())
    make_torso("f", lambda _: Normed(True).eval(), OBS, torch.Generator())


def test_parameters_of_another_dtype_are_refused() -> None:
    def make(_: Any) -> nn.Module:
        return Applied(lambda m, x, y: m.layer(x.double()).float(), Cast())

    with pytest.raises(RequestError, match=r"its parameter layer.weight is torch\.float64"):
        make_torso("f", make, OBS, torch.Generator())


class Cast(nn.Linear):
    """A linear layer in double precision that takes any input."""

    def __init__(self) -> None:
        super().__init__(3, 4, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.double())


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("nets.py:make", "there is no file nets.py: write path/to/file.py:function"),
        (f"{__file__}:nothing", "has no nothing: name a function of it"),
        (f"{__file__}:LAYERS", "LAYERS is a Sequential"),
        (f"{__file__}:__file__", "__file__ is a str"),
        ("no_such_module:make", "module no_such_module cannot be imported"),
        (f"{__name__}:nothing", "has no nothing"),
    ],
)
def test_a_name_that_stands_for_no_function_is_refused(name: str, match: str) -> None:
    with pytest.raises(RequestError, match=match):
        chosen_torso(name)


def test_an_error_in_the_file_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "nets.py"
    file.write_text("import torch\nx = torch.nothing\n")
    with pytest.raises(RequestError, match=r"nets.py, line 2: AttributeError"):
        chosen_torso(f"{file}:make")


@pytest.mark.parametrize("value", ["", "cnn", "nets.py", ":make", "nets.py:"])
def test_a_setting_of_another_form_is_refused(value: str) -> None:
    with pytest.raises(RequestError, match="torso must be mlp, path/to/file"):
        PolicySettings(torso=value)


def test_settings_without_a_torso_give_the_layers_of_before() -> None:
    """Those of an agent that knows no such setting, to the bit."""

    class Old:
        """All settings but the torso."""

        def __getattr__(self, name: str) -> Any:
            if name == "torso":
                raise AttributeError(name)
            return getattr(PolicySettings(), name)

    old, new = (
        make_policy(settings, OBS, ACTION, torch.Generator().manual_seed(3)).state_dict()
        for settings in (Old(), PolicySettings(torso="mlp"))
    )
    assert old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in old)


def test_a_policy_can_be_copied() -> None:
    policy = policy_with("residual")
    copied = copy.deepcopy(policy)
    x = torch.ones(2, 3)
    assert torch.equal(copied(x).mode, policy(x).mode)
