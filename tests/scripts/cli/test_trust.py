"""Code that a run's folder names is loaded only if this user trained with it, or says so."""

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from pgtoolkit.agents.ppo import PpoConfig
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli import main as cli
from pgtoolkit.scripts.cli.experiment import RunConfig, RunSettings
from pgtoolkit.scripts.cli.trust import (
    SIGNATURE,
    code_names,
    key_file,
    names_in,
    names_of,
    require_signed,
    signature,
)
from pgtoolkit.training.loop import TrainConfig

QUICK = ["--total-steps", "40", "--num-envs", "2", "--n-steps", "10", "--hidden", "4"]
QUICK += ["--eval-episodes", "1", "--eval-interval", "0"]

ENV_FILE = """
from pathlib import Path
from pgtoolkit.envs import PointMass

Path(__file__).with_suffix(".ran").write_text("")

class Mine(PointMass):
    pass

def cost(state, action, next_state):
    return action.square().sum(1)
"""


def call(*arguments: str) -> int:
    """The exit code of ``pgtoolkit ARGUMENTS``, in this process."""
    name, *rest = arguments
    with pytest.raises(SystemExit) as caught:
        cli.run_command(lambda found: cli.dispatch(name, found), rest)
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, and a user without a key."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def code_file(path: Path) -> Path:
    """A new file with an environment, which says whether it was imported: see :func:`ran`."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(ENV_FILE)
    return path


def ran(path: Path) -> bool:
    return path.with_suffix(".ran").exists()


def edit(run: Path, **changes: Any) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text()) | changes
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def test_names_that_stand_for_code_are_found_wherever_they_are(place: Path) -> None:
    """In the environment, and at any depth of its arguments and wrappers."""
    limit = '{"TimeLimit": {"max_episode_steps": 2}}'
    assert code_names("Pendulum-v1", env_kwargs='{"g": 9.8}', gym_wrappers=limit) == set()
    assert code_names("pgtoolkit/Pendulum-v0") == set()
    assert code_names("module:Id-v0") == {"module:Id-v0"}
    assert code_names("a.py:Class") == {f"{place}/a.py:Class"}
    assert code_names("a.py") != set()
    deep = '{"class_path": "m:C", "x": [{"m.py:f": {}}], "n": [1, null, "text"]}'
    found = code_names("Pendulum-v1", env_kwargs=deep, gym_wrappers='{"b:W": {}}')
    assert found == {"m:C", f"{place}/m.py:f", "b:W"}
    run = RunConfig(env="E-v0", wrappers='{"SurrogateCost": {"surrogate": "c.py:cost"}}')
    assert names_of(run) == {f"{place}/c.py:cost"}


def test_arguments_that_are_no_json_are_named_by_their_flag() -> None:
    """As where the environment is made."""
    with pytest.raises(RequestError, match="--gym-wrappers"):
        code_names("E-v0", gym_wrappers="{")


def named(torso: str = "mlp", **run: Any) -> RunSettings:
    """Settings of a run with these names."""
    return RunSettings("ppo", RunConfig(**run), TrainConfig(), PpoConfig(torso=torso))


def folder(settings: RunSettings, signed: Any = None) -> dict[str, Any]:
    """The configuration in a run's folder, with what stands there as its signature."""
    return settings.as_dict() | ({} if signed is None else signed)


def test_a_signature_is_that_of_the_user_and_of_all_names() -> None:
    """Another name, one name less, and another user's key are refused; no name needs none."""
    one, two = named(env="m:A-v0"), named(env="m:A-v0", gym_wrappers='{"m:W": {}}')
    signed = signature(two)
    assert signed == signature(two) and list(signed) == [SIGNATURE]
    require_signed(folder(two, signed), names_in(two.as_dict()))
    require_signed(folder(named(env="Pendulum-v1")), set())
    other = named(env="m:B-v0", gym_wrappers='{"m:W": {}}')
    for entry, run in ((signed, one), (signed, other), ({}, one), ({SIGNATURE: 5}, one)):
        with pytest.raises(RequestError, match="give --trust") as caught:
            require_signed(folder(run, entry), names_in(run.as_dict()))
        assert "\n" not in str(caught.value)
    key_file().unlink()
    assert signature(two) != signed
    with pytest.raises(RequestError, match=r"m:A-v0.*m:W"):
        require_signed(folder(two, signed), names_in(two.as_dict()))


def test_a_run_without_code_makes_no_key(place: Path) -> None:
    """The key is made when it is first needed, and only its owner can read it."""
    assert signature(named(env="Pendulum-v1")) == {}
    assert not (place / "state").exists()
    assert signature(named(env="m:A-v0")) != {}
    assert stat.S_IMODE(key_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file().parent.stat().st_mode) == 0o700
    assert [path.name for path in key_file().parent.iterdir()] == [key_file().name]


def test_a_key_that_another_process_makes_at_the_same_time_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both runs are signed with one key."""
    first = signature(named(env="m:A-v0"))
    exists = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: path != key_file() and exists(path))
    assert signature(named(env="m:A-v0")) == first


def spoil_mode(key: Path) -> None:
    key.chmod(0o644)


def spoil_length(key: Path) -> None:
    key.write_bytes(b"short")


def spoil_link(key: Path) -> None:
    key.rename(key.parents[2] / "elsewhere")
    key.symlink_to(key.parents[2] / "elsewhere")


@pytest.mark.parametrize("spoil", [spoil_mode, spoil_length, spoil_link])
def test_a_key_that_others_may_know_is_not_used(
    spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither to sign nor to check; the warning says what will be needed."""
    run = named(env="m:A-v0")
    signed = signature(run)
    spoil(key_file())
    assert signature(run) == {}
    assert "--trust" in caplog.text and caplog.text.count("\n") == 1
    with pytest.raises(RequestError, match="--trust"):
        require_signed(folder(run, signed), names_in(run.as_dict()))


@pytest.mark.parametrize("home", ["file", "no home"])
def test_a_run_is_trained_without_a_key_too(
    home: str, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A home that cannot be written, or none; the run needs --trust later."""
    if home == "file":
        (place / "state").write_text("")
    else:
        monkeypatch.delenv("XDG_STATE_HOME")

        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", no_home)
    code = code_file(place / "mine" / "env.py")
    assert call("train", "shac", "--env", f"{code}:Mine", "--run-dir", "run", *QUICK) == 0
    assert sum("--trust" in record.getMessage() for record in caplog.records) == 1
    assert SIGNATURE not in yaml.safe_load((place / "run" / "config.yaml").read_text())
    assert call("evaluate", "run", "--episodes", "1") == 2
    assert call("evaluate", "run", "--episodes", "1", "--trust") == 0


COMMANDS = {
    "evaluate": ["evaluate", "run", "--episodes", "1"],
    "resume": ["resume", "run", "--total-steps", "60"],
    "variance": ["variance", "run", "--horizons", "2", "--trajectories", "64"],
}


@pytest.fixture
def own_run(place: Path) -> Path:
    """A run that this user trained with code of their own; its mark is removed."""
    code = code_file(place / "mine" / "env.py")
    assert call("train", "shac", "--env", f"{code}:Mine", "--run-dir", "run", *QUICK) == 0
    code.with_suffix(".ran").unlink()
    return place / "run"


@pytest.mark.parametrize("command", COMMANDS)
def test_ones_own_run_needs_no_flag(command: str, own_run: Path, place: Path) -> None:
    """A copy of it on the same machine neither, from whatever folder."""
    shutil.copytree(own_run, place / "other" / "run")
    os.chdir(place / "other")
    assert call(*COMMANDS[command]) == 0


EDITS: dict[str, dict[str, Any]] = {
    "env": {"env": "evil/env.py:Mine"},
    "module": {"env": "evil_module:Id-v0"},
    "gym_wrappers": {"gym_wrappers": {"evil/env.py:Mine": {}}},
    "wrappers": {"wrappers": {"SurrogateCost": {"surrogate": "evil/env.py:cost"}}},
    "class_path": {"env": "pgtoolkit/PointMass-v0", "env_kwargs": {"class_path": "evil_module:X"}},
    "inside the run": {"env": "run/env.py:Mine"},
    "detour": {"env": "mine/../evil/env.py:Mine"},
    "link": {"env": "mine/link.py:Mine"},
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", EDITS)
def test_an_edited_run_runs_no_code(
    command: str,
    name: str,
    own_run: Path,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The signature is of other names; the message says which name it is, and what to do."""
    evil = [code_file(place / "evil" / "env.py"), code_file(own_run / "env.py")]
    evil.append(code_file(place / "evil_module.py"))
    (place / "mine" / "link.py").symlink_to(place / "evil" / "env.py")
    monkeypatch.syspath_prepend(str(place))
    edit(own_run, **EDITS[name])
    before = {path: path.read_bytes() for path in own_run.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert call(*COMMANDS[command]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") <= 2 and "--trust" in message
    assert "env.py:" in message or "evil_module:" in message
    assert ("--env" in message) == (command != "resume")
    assert not any(ran(path) for path in evil)
    assert before == {path: path.read_bytes() for path in own_run.rglob("*") if path.is_file()}


def test_a_run_from_elsewhere_runs_code_where_the_user_names_or_trusts_it(
    own_run: Path, place: Path
) -> None:
    """--env and --trust allow it once; resume --trust makes the run one's own."""
    key_file().unlink()  # another machine
    code = place / "mine" / "env.py"
    for command in COMMANDS:
        assert call(*COMMANDS[command]) == 2
    for command in ("evaluate", "variance"):
        assert call(*COMMANDS[command], "--env", f"{code}:Mine") == 0
        assert call(*COMMANDS[command], "--env", "pgtoolkit/PointMass-v0") == 0
        assert call(*COMMANDS[command], "--trust") == 0
        assert call(*COMMANDS[command]) == 2
    assert call(*COMMANDS["resume"], "--trust") == 0
    assert call(*COMMANDS["evaluate"]) == 0


def test_an_environment_that_the_user_names_does_not_allow_the_wrapper_of_the_run(
    own_run: Path, place: Path
) -> None:
    """Only what is on the command line is allowed by it."""
    wrapper = code_file(place / "evil" / "env.py")
    edit(own_run, env="Pendulum-v1", differentiate="none", wrappers={})
    edit(own_run, gym_wrappers={f"{wrapper}:Mine": {}})
    assert call(*COMMANDS["evaluate"], "--env-kwargs", json.dumps({"g": 9.0})) == 2
    assert not ran(wrapper)


def test_a_configuration_that_the_user_names_is_allowed(own_run: Path) -> None:
    """`train --config` with a run's file: the new run is signed anew."""
    key_file().unlink()
    arguments = ["shac", "--config", "run/config.yaml", "--run-dir", "again", *QUICK]
    assert call("train", *arguments) == 0
    assert call("evaluate", "again", "--episodes", "1") == 0
