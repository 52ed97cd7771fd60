"""``networks=`` of ``pgtoolkit.train`` and ``--torso``: a module of the user's in every command."""

import functools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import pgtoolkit
from pgtoolkit.agents.ppo import PpoConfig
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts import evaluate as evaluate_command
from pgtoolkit.scripts import export as export_command
from pgtoolkit.scripts import resume as resume_command
from pgtoolkit.scripts import train as train_command
from pgtoolkit.scripts import variance as variance_command
from pgtoolkit.scripts.api.networks import torso_name
from pgtoolkit.user_code import import_file

ID = "pgtoolkit/Pendulum-v0"
SMALL: dict[str, Any] = {"num_envs": 8, "n_steps": 8, "eval_episodes": 2, "hidden": (8,)}
SMALL |= {"diagnostics_interval": 1, "total_steps": 128}
AGENTS: dict[str, dict[str, Any]] = {
    "ppo": {},
    "shac": {},
    "reppo": {"probe_steps": 4, "probe_envs": 6},
    "sac": {"probe_steps": 0, "learning_starts": 16, "batch_size": 16, "gradient_steps": 2},
    "td3": {"probe_steps": 0, "learning_starts": 16, "batch_size": 16, "gradient_steps": 2},
}
OBSERVATIONS = np.array([[0.6, 0.8, 1.0], [-1.0, 0.0, -3.0]], np.float32)

NETS = """
import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, space):
        super().__init__()
        self.first, self.second = nn.Linear(space.shape[0], 8), nn.Linear(8, 8)

    def forward(self, x):
        h = torch.tanh(self.first(x))
        return h + torch.relu(self.second(h))


def make(space):
    return Residual(space)
"""

SCRIPT = """
import pgtoolkit
from torch import nn


def make(space):
    return nn.Sequential(nn.Linear(space.shape[0], 8), nn.GELU())


run = pgtoolkit.train("ppo", "pgtoolkit/Pendulum-v0", networks=make, run_dir="run",
    num_envs=8, n_steps=8, eval_episodes=1, total_steps=64)
print(run.config.torso)
"""


@pytest.fixture(autouse=True)
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of ``nets.py`` in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "nets.py").write_text(NETS)
    return import_file(tmp_path / "nets.py")


def weights(run: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = run.agent.policy.state_dict()
    return found


@pytest.mark.parametrize("agent", AGENTS)
def test_agents_train_it_and_resume_bit_for_bit(agent: str, nets: Any) -> None:
    """Two updates are those of one update and a resumed one, and every weight has moved."""
    settings = SMALL | AGENTS[agent]

    def stop(progress: Any, metrics: Any) -> None:
        if progress.num_steps == 64:
            raise pgtoolkit.StopTraining

    whole = pgtoolkit.train(agent, ID, networks=nets.make, **settings)
    half = pgtoolkit.train(agent, ID, networks=nets.make, callback=stop, **settings)
    resumed = pgtoolkit.load(half.directory).resume()
    assert type(whole.agent.policy.torso).__name__ == "Residual"
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    moved = [name for name, x in weights(half).items() if not torch.equal(x, weights(whole)[name])]
    assert {f"torso.{x}.{y}" for x in ("first", "second") for y in ("weight", "bias")} <= {*moved}


def test_its_gradients_are_measured(nets: Any) -> None:
    """Layers on rows are recorded as the usual ones are."""
    run = pgtoolkit.train("shac", ID, networks=nets.make, **SMALL)
    assert math.isfinite(run.metrics["gradient/pathwise/snr"])
    assert any("torso.second.weight" in tag for tag in run.metrics)


def test_commands_need_no_further_argument(nets: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Train by the flag; the policy is the same in load, evaluate, export and variance."""
    pytest.importorskip("onnxruntime")
    flags = ["--num-envs", "8", "--n-steps", "8", "--eval-episodes", "2", "--total-steps", "64"]
    train_command.run(["shac", "--env", ID, "--torso", "nets.py:make", *flags, "--run-dir", "run"])
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["torso"] == f"{Path.cwd()}/nets.py:make"
    run = pgtoolkit.load("run")
    action = run.policy.predict(OBSERVATIONS)
    evaluate_command.run(["run", "--episodes", "2"])
    export_command.run(["run", "--output", "policy.pt2"])
    exported = torch.export.load("policy.pt2").module()(torch.as_tensor(OBSERVATIONS))
    np.testing.assert_allclose(exported.numpy(), action, rtol=1e-5, atol=1e-6)
    variance_command.run(["run", "--horizons", "2", "--trajectories", "12"])
    resume_command.run(["run", "--total-steps", "128"])
    assert pgtoolkit.load("run").progress.num_steps == 128
    by_name = pgtoolkit.train(
        "shac", ID, networks="nets.py:make", run_dir="other", **SMALL | {"hidden": (64, 64)}
    )
    by_setting = pgtoolkit.train(
        "shac", ID, torso="nets.py:make", run_dir="third", **SMALL | {"hidden": (64, 64)}
    )
    assert by_name.settings.agent == by_setting.settings.agent
    capsys.readouterr()


def test_it_goes_with_the_settings_of_an_agent(nets: Any) -> None:
    given = PpoConfig(num_envs=8, n_steps=8)
    run = pgtoolkit.train(
        given, ID, networks=nets.Residual, total_steps=64, eval_episodes=1, run_dir="run"
    )
    assert run.config == PpoConfig(num_envs=8, n_steps=8, torso=f"{Path.cwd()}/nets.py:Residual")


def test_mlp_keeps_the_bits_of_before() -> None:
    """The default, by its name."""
    one, other = (pgtoolkit.train("ppo", ID, **SMALL | more) for more in ({}, {"torso": "mlp"}))
    assert all(torch.equal(x, weights(other)[name]) for name, x in weights(one).items())


def test_a_run_that_somebody_else_made_needs_trust(nets: Any, tmp_path: Path) -> None:
    """The file is not even imported; also where the environment is given."""
    run = pgtoolkit.train("ppo", ID, networks=nets.make, run_dir="run", **SMALL)
    file = tmp_path / "stranger.py"
    file.write_text(NETS + "\nfrom pathlib import Path\nPath('ran').write_text('')\n")
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    Path("run/config.yaml").write_text(yaml.safe_dump(config | {"torso": f"{file}:make"}))
    calls: list[Any] = [
        lambda: pgtoolkit.load("run"),
        lambda: pgtoolkit.load("run", env=ID),
        lambda: run.evaluate(1),
        lambda: evaluate_command.run(["run", "--env", "Pendulum-v1"]),
        lambda: export_command.run(["run", "--output", "policy.pt2"]),
        lambda: resume_command.run(["run", "--total-steps", "256"]),
        lambda: variance_command.run(["run", "--env", ID, "--horizons", "2"]),
    ]
    for call in calls:
        with pytest.raises(
            RequestError, match=r"stranger\.py:make.*(--trust|trust=True)"
        ) as caught:
            call()
        assert "--env" not in str(caught.value)
        assert not Path("ran").exists()
    pgtoolkit.load("run", trust=True)
    assert Path("ran").exists()


def local() -> Any:
    def make(space: Any) -> nn.Module:
        return nn.Linear(3, 4)

    return make


class Maker:
    def make(self, space: Any) -> nn.Module:
        return nn.Linear(3, 4)

    def __call__(self, space: Any) -> nn.Module:
        return nn.Linear(3, 4)


@pytest.mark.parametrize(
    "networks",
    [
        lambda space: nn.Linear(3, 4),
        local(),
        functools.partial(nn.Linear, 3, 4),
        Maker().make,
        Maker.make,
        Maker(),
        nn.Linear(3, 4),
        5,
        ["nets.py:make"],
        len,
    ],
)
def test_what_a_run_cannot_name_is_refused_in_a_sentence(networks: Any) -> None:
    with pytest.raises(RequestError, match=r"^networks (is|must be) .*: ") as caught:
        pgtoolkit.train("ppo", ID, networks=networks, **SMALL)
    assert "--" not in str(caught.value)
    assert not Path("runs").exists()


def test_a_function_of_an_interactive_session_is_refused() -> None:
    code = "import pgtoolkit\ndef make(space): ...\n"
    code += f"pgtoolkit.train('ppo', {ID!r}, networks=make)\n"
    done = subprocess.run(
        [sys.executable, "-"], input=code, capture_output=True, text=True, check=False
    )
    assert "make of an interactive session" in done.stderr
    assert "networks='path/to/file.py:make'" in done.stderr


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"networks": "nets.py"}, "torso must be mlp, path/to/file.py:function or module:function"),
        ({"networks": "other.py:make"}, "torso .*there is no file .*other.py"),
        ({"networks": "nets.py:nothing"}, "nets.py has no nothing"),
        ({"networks": "nets.py:make", "torso": "nets.py:Residual"}, "give one of them"),
        ({"torso": torch.tanh}, "torso must be text"),
    ],
)
def test_misuse_has_the_words_of_python(more: dict[str, Any], match: str) -> None:
    with pytest.raises(RequestError, match=match) as caught:
        pgtoolkit.train("ppo", ID, **SMALL, **more)
    assert "--" not in str(caught.value)
    assert not Path("runs").exists()


def test_a_function_in_a_package_has_the_name_of_its_module() -> None:
    assert (
        torso_name(local.__globals__["torso_of_this_module"]) == f"{__name__}:torso_of_this_module"
    )


def torso_of_this_module(space: Any) -> nn.Module:
    return nn.Linear(3, 4)


def test_the_script_that_trains_is_not_run_again(tmp_path: Path) -> None:
    """Neither while it trains, nor by a command: that says where the call belongs."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == f"{script}:make", done.stderr
    with pytest.raises(RequestError, match="put the call under `if __name__ == '__main__':`"):
        pgtoolkit.load("run")
    guarded = SCRIPT.replace("run = pgtoolkit", "if __name__ == '__main__':\n    pgtoolkit")
    script.write_text(guarded.replace("print(run.config.torso)\n", ""))
    assert json.dumps(pgtoolkit.load("run").policy.predict(OBSERVATIONS).tolist())
