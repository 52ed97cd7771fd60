"""The commands, called with the arguments of a command line."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pgtoolkit.scripts.cli import main as cli
from pgtoolkit.scripts.train import steps_lines
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint
from pgtoolkit.training.progress import Progress

ROOT = Path(__file__).parents[2]
SCRIPTS = [
    str(path.relative_to(ROOT / "scripts").with_suffix(""))
    for folder in (ROOT / "scripts", ROOT / "scripts" / "studies")
    for path in sorted(folder.glob("*.py"))
    if path.stem != "__init__"
]
QUICK = ["--total-steps", "600", "--num-envs", "6", "--n-steps", "10", "--hidden", "8"]
QUICK += ["--eval-episodes", "4", "--diagnostics-interval", "1"]

README = (ROOT / "README.md").read_text()
HOVER, SNIPPET = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
"""The README's environment, and its example in Python."""


def call(*arguments: str) -> int:
    """The exit code of ``pgtoolkit ARGUMENTS``, in this process."""
    name, *rest = arguments
    with pytest.raises(SystemExit) as caught:
        cli.run_command(lambda found: cli.dispatch(name, found), rest)
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short SHAC run on our Pendulum."""
    path = tmp_path_factory.mktemp("runs") / "shac"
    arguments = ["shac", "--env", "pgtoolkit/Pendulum-v0", "--run-dir", str(path), *QUICK]
    assert call("train", *arguments, "--checkpoint-interval", "60") == 0
    return path


def events(path: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def test_a_run_holds_configuration_events_checkpoints_and_summary(run: Path) -> None:
    """config.yaml has every setting with its resolved value, and the versions."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["agent"] == "shac" and config["env"] == "pgtoolkit/Pendulum-v0"
    assert config["gamma"] == 0.98 and config["num_envs"] == 6
    assert {"python", "torch", "gymnasium"} <= config["versions"].keys()
    assert {p.name for p in (run / "policy").iterdir()} == {"last.safetensors", "best.safetensors"}
    assert (run / "resume.safetensors").is_file()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 600 and summary["best_eval_return"] >= summary["eval_return"]


def test_the_event_file_has_the_tags_finite_and_in_order(run: Path) -> None:
    """Read with TensorBoard's own reader; the x-axis is environment steps."""
    found = events(run)
    scalars = set(found.Tags()["scalars"])
    wanted = {"rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps"}
    wanted |= {"eval/mean_reward", "eval/mean_ep_length"}
    wanted |= {
        f"train/{name}"
        for name in (
            "policy_gradient_loss",
            "value_loss",
            "entropy_loss",
            "approx_kl",
            "explained_variance",
            "learning_rate",
            "std",
        )
    }
    for estimator in ("score_function", "pathwise"):
        wanted |= {f"gradient/{estimator}/{s}" for s in ("variance", "signal", "snr", "norm")}
        wanted.add(f"gradient_parameters/{estimator}/head.std.log_std")
    wanted |= {f"gradient/{s}" for s in ("variance_ratio", "cosine", "bias", "bias_z", "overhead")}
    assert wanted - scalars <= {"rollout/ep_rew_mean", "rollout/ep_len_mean"}
    for tag in scalars:
        series = found.Scalars(tag)
        steps = [event.step for event in series]
        assert steps == sorted(set(steps)) and steps[-1] <= 600
        assert all(np.isfinite(event.value) for event in series)
    assert [event.step for event in found.Scalars("train/std")] == list(range(60, 601, 60))
    images = {f"gradient/{name}by_step" for name in ("", "bias_", "cosine_")}
    assert {*found.Tags()["images"]} == images
    assert "tags" in found.Tags()["tensors"]
    assert {"_hparams_/session_start_info", "_hparams_/session_end_info"} <= set(
        found.summary_metadata
    )


ENDLESS = """
import gymnasium
import numpy as np


class Endless(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, False, False, {}
"""


def test_a_task_without_an_end_is_trained_and_its_evaluations_are_cut_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A reward of 1 a step: returns are numbers of steps. Two evaluations say it once."""
    (tmp_path / "endless.py").write_text(ENDLESS)
    path, env = str(tmp_path / "run"), f"{tmp_path}/endless.py:Endless"
    arguments = ["--env", env, "--run-dir", path, "--eval-episodes", "4", "--eval-interval", "20"]
    arguments += ["--total-steps", "40", "--num-envs", "2", "--n-steps", "10"]
    assert call("train", "ppo", *arguments, "--batch-size", "10", "--eval-max-steps", "70") == 0
    said = [record.message for record in caplog.records if "cut off" in record.message]
    assert said == [
        "Endless has no time limit: evaluation episodes are cut off after 70 steps "
        "(--eval-max-steps): 4 of 4 were, and count with the return so far"
    ]
    closing = capsys.readouterr().out
    assert "return:         70.0 at the end" in closing and "100% of episodes cut off" in closing
    assert "training:       no whole episode has ended yet" in closing
    share = events(Path(path)).Scalars("eval/cut_off_episodes")
    assert [event.value for event in share] == [1, 1]
    found = tmp_path / "found.json"
    for given, steps in (([], 70), (["--eval-max-steps", "30"], 30)):
        assert call("evaluate", path, "--episodes", "3", "--json", str(found), *given) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert f"cut off after {steps} steps (--eval-max-steps): 3 of 3" in shown
        result = json.loads(found.read_text())
        assert result["cut_off"] == 3 and result["returns"] == [steps] * 3
    assert call("evaluate", path, "--eval-max-steps", "0") == 2


def test_an_environment_with_an_end_is_not_cut_off(run: Path, tmp_path: Path) -> None:
    """The time limit is the default, and is written into config.yaml."""
    assert yaml.safe_load((run / "config.yaml").read_text())["eval_max_steps"] == 200
    assert "eval/cut_off_episodes" not in events(run).Tags()["scalars"]
    found = tmp_path / "found.json"
    assert call("evaluate", str(run), "--episodes", "2", "--json", str(found)) == 0
    assert json.loads(found.read_text())["cut_off"] == 0


def test_the_closing_lines_and_the_summary_say_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wide Gaussian before tanh saturates: it takes 16 updates, of which the first run has 10."""
    path = tmp_path / "run"
    arguments = ["reinforce", "--env", "pgtoolkit/Pendulum-v0", "--run-dir", str(path), *QUICK]
    assert call("train", *arguments, "--log-std-init", "3") == 0
    assert "saturated_actions" not in summarised(path)
    capsys.readouterr()
    assert call("resume", str(path), "--total-steps", "1500") == 0
    lines = capsys.readouterr().out.splitlines()
    finding = summarised(path)["saturated_actions"]
    assert finding["since_step"] == 60 and finding["number"] > 0.8
    assert "--ent-coef-relative" in finding["sentence"]
    assert f"  - {finding['sentence']}" in lines and "diagnosis:" in lines
    assert any(line.startswith("gradient:       ") and "score" in line for line in lines)
    assert any(line.startswith("1500/1500 steps") and " ! " in line for line in lines)
    texts = events(path).Tensors("diagnosis")
    text = texts[-1].tensor_proto.string_val[0].decode().replace("`", "")
    gradient = json.loads((path / "summary.json").read_text())["gradient"]
    assert f"gradient:       {gradient}" in lines
    assert finding["sentence"] in text and gradient in text


def summarised(path: Path) -> dict[str, Any]:
    """The findings in the summary of a run, by kind."""
    findings = json.loads((path / "summary.json").read_text())["diagnosis"]
    return {finding["kind"]: finding for finding in findings}


def test_episodes_are_logged_once_they_end(tmp_path: Path) -> None:
    """LQG's episodes last 5 steps, so their length is seen at once, and is exact."""
    path = tmp_path / "run"
    assert call("train", "apg", "--env", "pgtoolkit/LQG-v0", "--run-dir", str(path), *QUICK) == 0
    lengths = [event.value for event in events(path).Scalars("rollout/ep_len_mean")]
    assert lengths and set(lengths) == {5.0}


def test_evaluate_on_gymnasiums_own_environment(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It writes a JSON file, and a video."""
    result, video = tmp_path / "result.json", tmp_path / "video.gif"
    arguments = [str(run), "--episodes", "3", "--json", str(result)]
    assert call("evaluate", *arguments, "--env", "Pendulum-v1") == 0
    content = json.loads(result.read_text())
    assert content["episodes"] == 3 and content["env"] == "Pendulum-v1"
    assert content["mean_return"] == pytest.approx(np.mean(content["returns"]))
    assert content["std_return"] == pytest.approx(np.std(content["returns"]))
    error = np.std(content["returns"], ddof=1) / 3**0.5
    assert content["standard_error"] == pytest.approx(error)
    shown = capsys.readouterr().out
    assert f"{content['mean_return']:.2f} +- {error:.2f} (mean +- standard error)" in shown
    assert "3 deterministic" in shown
    assert call("evaluate", *arguments, "--stochastic", "--video", str(video)) == 0
    assert video.read_bytes().startswith(b"GIF89a")


def test_what_evaluate_says_fits_eighty_columns(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also that episodes are cut off; a single episode has no standard error."""
    capsys.readouterr()
    flags = ["--episodes", "1", "--eval-max-steps", "3"]
    assert call("evaluate", str(run), *flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "(of one episode: no standard error)" in lines[0]
    assert "cut off after 3 steps" in " ".join(lines)
    assert [line for line in lines if len(line) > 80 and str(run) not in line] == []


def test_resume_equals_a_run_that_was_not_stopped(tmp_path: Path) -> None:
    """Stopped half-way and resumed, it ends with the same bits as one that ran through."""
    ends = []
    for name, first in (("whole", "1200"), ("halves", "600")):
        path = tmp_path / name
        arguments = ["shac", "--env", "pgtoolkit/Pendulum-v0", "--run-dir", str(path), *QUICK]
        arguments += ["--learning-rate-schedule", "constant", "--total-steps", first]
        assert call("train", *arguments) == 0
        if name == "halves":
            assert call("resume", str(path), "--total-steps", "1200") == 0
        ends.append(load_checkpoint(path / "resume.safetensors")["agent"])
        policy = load_checkpoint(path / "policy" / "last.safetensors")["policy"]
        assert all(np.array_equal(ends[-1]["learner"]["policy"][x], policy[x]) for x in policy)
    whole, halves = (end["learner"]["policy"] for end in ends)
    assert all(np.array_equal(whole[name], halves[name]) for name in whole)
    steps = [event.step for event in events(tmp_path / "halves").Scalars("train/std")]
    assert steps == list(range(60, 1201, 60))


def test_resume_forgets_what_came_after_the_checkpoint(run: Path, tmp_path: Path) -> None:
    """A run killed after its last checkpoint goes on from there; steps do not appear twice."""
    path = tmp_path / "killed"
    arguments = ["shac", "--env", "pgtoolkit/Pendulum-v0", "--run-dir", str(path), *QUICK]
    assert call("train", *arguments) == 0
    last = path / "resume.safetensors"
    best = load_checkpoint(path / "policy" / "best.safetensors")
    assert best["num_steps"] < 600 or call("evaluate", str(path)) == 0
    state = load_checkpoint(last)
    state["progress"]["num_steps"] = state["agent"]["collector"]["num_steps"] = 300
    save_checkpoint(last, state)
    assert call("resume", str(path)) == 0
    steps = [event.step for event in events(path).Scalars("train/std")]
    assert steps == sorted(set(steps)) and steps[-1] == 600


@pytest.mark.parametrize("harm", ["flipped", "missing"])
def test_resume_goes_on_from_the_checkpoint_before_where_the_newest_is_damaged(
    run: Path,
    tmp_path: Path,
    harm: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It ends with the same bits; TensorBoard shows no step twice, and the old steps once."""
    path = tmp_path / "run"
    shutil.copytree(run, path)
    newest = path / "resume.safetensors"
    data = bytearray(newest.read_bytes())
    data[-100] ^= 4
    newest.unlink()
    if harm == "flipped":
        newest.write_bytes(data)
    assert call("resume", str(path)) == 0
    assert "from step 540" in capsys.readouterr().out
    (said,) = [record.getMessage() for record in caplog.records if "going on" in record.msg]
    assert str(newest) in said and "resume-1.safetensors" in said
    for name in ("resume.safetensors", "resume-1.safetensors", "policy/last.safetensors"):
        before, after = (load_checkpoint(folder / name) for folder in (run, path))
        assert not differing(before.get("agent", before), after.get("agent", after)), name
    found = events(path)
    for tag in ("train/std", "eval/mean_reward", "gradient/bias_z"):
        assert [e.step for e in found.Scalars(tag)] == [e.step for e in events(run).Scalars(tag)]


def differing(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two states differ."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return [p for key in one for p in differing(one[key], other[key], f"{place}/{key}")]
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        pairs = enumerate(zip(one, other, strict=True))
        return [p for i, (x, y) in pairs for p in differing(x, y, f"{place}/{i}")]
    same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    return [] if same else [place]


def test_resume_writes_a_best_policy_again_where_it_is_damaged(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`evaluate` takes the last one until then, and says so."""
    path = tmp_path / "run"
    shutil.copytree(run, path)
    best = path / "policy" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:-1])
    assert call("evaluate", str(path), "--episodes", "1") == 0
    assert "last.safetensors is used in its place" in caplog.text
    caplog.clear()
    assert call("resume", str(path), "--total-steps", "660") == 0
    assert "the next evaluation writes a new one" in caplog.text
    caplog.clear()
    assert call("evaluate", str(path), "--episodes", "1") == 0
    assert caplog.text == ""


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_checkpoints_are_kept_as_the_user_wants(keep: int, tmp_path: Path) -> None:
    """They are of the latest intervals."""
    arguments = ["apg", "--env", "pgtoolkit/PointMass-v0", "--run-dir", str(tmp_path / "run")]
    arguments += ["--checkpoint-interval", "60", "--keep-checkpoints", str(keep), *QUICK]
    assert call("train", *arguments, "--eval-interval", "0") == 0
    files = sorted((tmp_path / "run").glob("resume*"), key=lambda path: len(path.name))
    steps = [load_checkpoint(path)["progress"]["num_steps"] for path in files]
    assert sorted(steps, reverse=True) == [600, 540, 480][:keep] and steps[0] == 600


def test_a_run_folder_whose_policies_go_elsewhere_is_not_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A link in a folder that somebody else made: one line, exit 2, no file outside."""
    path, outside = tmp_path / "run", tmp_path / "outside"
    outside.mkdir()
    shutil.copytree(run, path)
    shutil.rmtree(path / "policy")
    (path / "policy").symlink_to(outside)
    capsys.readouterr()
    assert call("resume", str(path), "--total-steps", "660") == 2
    assert "leads out of" in capsys.readouterr().err
    assert list(outside.iterdir()) == []


def test_a_configuration_file_sets_flags_and_flags_win(run: Path, tmp_path: Path) -> None:
    """A run's own ``config.yaml`` is such a file; a flag overrides its value."""
    path = tmp_path / "again"
    arguments = ["shac", "--config", str(run / "config.yaml"), "--gamma", "0.5"]
    assert call("train", *arguments, "--run-dir", str(path), "--total-steps", "60") == 0
    config = yaml.safe_load((path / "config.yaml").read_text())
    assert (config["gamma"], config["num_envs"], config["hidden"]) == (0.5, 6, [8])


@pytest.mark.parametrize("agent", ["reinforce", "apg", "shac"])
def test_an_environment_in_a_file_trains_with_every_agent(agent: str, tmp_path: Path) -> None:
    """``file.py:Class``, the README's, outside the repository."""
    (tmp_path / "hover.py").write_text(HOVER)
    env = f"{tmp_path / 'hover.py'}:Hover"
    arguments = [agent, "--env", env, "--run-dir", str(tmp_path / "run"), *QUICK]
    assert call("train", *arguments) == 0
    assert call("evaluate", str(tmp_path / "run"), "--episodes", "2") == 0


def test_a_number_that_goes_bad_ends_the_run_with_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the tensor, the step, the environment, and what goes on from there."""
    bad = "return torch.where(next_state[:, 0] > 0.9, torch.nan, 0.0) - ("
    (tmp_path / "hover.py").write_text(HOVER.replace("return -(", bad))
    env, path = f"{tmp_path / 'hover.py'}:Hover", tmp_path / "run"
    assert call("train", "shac", "--env", env, "--run-dir", str(path), *QUICK) == 1
    message = capsys.readouterr().err
    assert "reward is not finite at step" in message and "environment" in message
    assert f"pgtoolkit resume {path}" in message
    assert message.count("\n") == 1
    load_checkpoint(path / "resume.safetensors")


BAD_REQUESTS: dict[str, tuple[list[str], str]] = {
    "unknown command": (["trian"], "train"),
    "unknown agent": (["train", "shack", "--env", "X"], "shac"),
    "no agent": (["train"], "AGENT"),
    "no environment": (["train", "shac"], "--env"),
    "unknown environment": (["train", "reinforce", "--env", "Pendlum-v1"], "Pendulum-v1"),
    "unknown flag": (["train", "shac", "--env", "X", "--gama", "1"], "--gamma"),
    "bad value": (["train", "shac", "--env", "X", "--n-steps", "many"], "--n-steps"),
    "value out of range": (["train", "shac", "--env", "X", "--gamma", "2"], "--gamma"),
    "negative seed": (
        ["train", "shac", "--env", "pgtoolkit/Pendulum-v0", "--seed", "-1"],
        "--seed",
    ),
    "no gradient": (
        ["train", "shac", "--env", "Pendulum-v1", "--differentiate", "none"],
        "reinforce",
    ),
    "malformed JSON": (
        ["train", "shac", "--env", "pgtoolkit/Pendulum-v0", "--env-kwargs", "{g: 1"],
        "--env-kwargs",
    ),
    "unknown argument": (
        ["train", "shac", "--env", "pgtoolkit/Pendulum-v0", "--env-kwargs", '{"h": 1}'],
        "'h'",
    ),
    "no file": (["train", "shac", "--env", "nowhere.py:Env"], "nowhere.py"),
    "no run": (["evaluate", "nowhere"], "config.yaml"),
    "no run to resume": (["resume", "nowhere"], "config.yaml"),
    "no such list": (["list", "envz"], "envs"),
    "no configuration": (["train", "shac", "--config", "nowhere.yaml"], "nowhere.yaml"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_wrong_request_ends_with_exit_2_and_a_line_of_advice(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    """The message says what, why and what to do; no traceback, no files."""
    monkeypatch.chdir(tmp_path)
    arguments, advice = BAD_REQUESTS[name]
    assert call(*arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and advice in message
    assert message.count("\n") <= 2 and "Traceback" not in message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_a_run_is_not_written_over(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command exits with 2, advises resuming, and leaves the run as it was."""
    before = (run / "config.yaml").read_bytes()
    arguments = ["shac", "--env", "pgtoolkit/Pendulum-v0", "--run-dir", str(run), *QUICK]
    assert call("train", *arguments) == 2
    assert "resume" in capsys.readouterr().err
    assert (run / "config.yaml").read_bytes() == before


def test_damaged_run_folders_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A configuration that is not a mapping or not YAML, and a truncated checkpoint."""
    for text in ("[1, 2]", "{a: b: c", ""):
        (tmp_path / "config.yaml").write_text(text)
        assert call("evaluate", str(tmp_path)) == 2
        assert "Traceback" not in capsys.readouterr().err
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    (tmp_path / "policy").mkdir()
    data = (run / "policy" / "last.safetensors").read_bytes()
    (tmp_path / "policy" / "last.safetensors").write_bytes(data[: len(data) // 2])
    assert call("evaluate", str(tmp_path)) == 2
    assert "is damaged" in capsys.readouterr().err


def test_a_policy_is_not_evaluated_where_it_does_not_fit(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An environment with other spaces than the policy was trained for is a wrong request."""
    assert call("evaluate", str(run), "--env", "CartPole-v1") == 2
    assert "spaces" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["--help"], ["list"], ["list", "agents"], ["--version"]])
def test_the_console_command_and_the_scripts_are_one(command: list[str]) -> None:
    """``python -m pgtoolkit.scripts.cli`` answers, without importing torch."""
    code = (
        "import sys; from pgtoolkit.scripts.cli import main as cli; "
        "sys.argv = ['pgtoolkit', *sys.argv[1:]]\n"
    )
    code += "try:\n    cli.main()\nexcept SystemExit as e:\n    assert not e.code\n"
    code += "assert 'torch' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", code, *command], check=True, cwd=ROOT)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_shows_its_help(script: str) -> None:
    """``python scripts/COMMAND.py --help`` exits 0."""
    path = ROOT / "scripts" / f"{script}.py"
    done = subprocess.run(
        [sys.executable, str(path), "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "usage" in done.stdout


def test_the_readmes_example_in_python_runs() -> None:
    """The example trains ten updates and leaves the metrics of the last one."""
    found: dict[str, Any] = {}
    exec(SNIPPET, found)
    assert {"train/std", "gradient/overhead"} <= found["metrics"].keys()


def test_the_readme_starts_with_the_main_job_and_the_tests() -> None:
    """The README's first two bash blocks install and run; each is complete on its own."""
    first, second = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)[:2]
    assert "pip install" in first and "pgtoolkit train" in first
    assert "pip install" in second and "pytest" in second


def test_a_log_interval_thins_rows_but_no_measurement(tmp_path: Path) -> None:
    """Measuring every second update and logging every fifth loses no measurement."""
    path = tmp_path / "run"
    arguments = ["shac", "--env", "pgtoolkit/Pendulum-v0", "--run-dir", str(path), *QUICK]
    arguments += ["--log-interval", "5", "--diagnostics-interval", "2", "--eval-interval", "180"]
    assert call("train", *arguments) == 0
    found = events(path)
    assert [e.step for e in found.Scalars("train/std")] == [300, 600]
    assert [e.step for e in found.Scalars("gradient/bias_z")] == list(range(60, 601, 120))
    assert [e.step for e in found.Scalars("eval/mean_reward")] == [60, 240, 420, 600]


def test_how_often_is_logged_evaluated_and_saved_changes_nothing_that_is_learned(
    tmp_path: Path,
) -> None:
    """Other intervals of evaluation and saving give the same policy bit for bit."""
    ends = []
    for name, intervals in (("a", "60"), ("b", "1000")):
        path = tmp_path / name
        arguments = ["reinforce", "--env", "CartPole-v1", "--run-dir", str(path), *QUICK]
        arguments += ["--eval-interval", intervals, "--checkpoint-interval", intervals]
        assert call("train", *arguments) == 0
        ends.append(load_checkpoint(path / "policy" / "last.safetensors"))
    policies = [end["policy"] for end in ends]
    assert all(np.array_equal(policies[0][key], policies[1][key]) for key in policies[0])


def test_a_run_without_gradient_is_evaluated_as_it_was_trained(tmp_path: Path) -> None:
    """LQG has finite action bounds as a NumPy environment and none as tensors; they stay apart."""
    path = tmp_path / "run"
    arguments = ["reinforce", "--env", "pgtoolkit/LQG-v0", "--differentiate", "none", *QUICK]
    assert call("train", *arguments, "--run-dir", str(path)) == 0
    assert call("evaluate", str(path), "--episodes", "2") == 0


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        ("hidden:\n- 8", "hidden:\n- 9", "was that edited?"),
        ("num_envs: 6", "num_envs: 7", "was that edited?"),
        ("gamma: 0.98", "gamma: 0.98\ngama: null", "'gama'"),
        ("gamma: 0.98", "gamma: 0.98\n1: 2", "1"),
        ("env_kwargs: {}", "env_kwargs: {g: 2024-01-01}", "env_kwargs"),
        ("ent_coef: 0.0", "ent_coef: .nan", "--ent-coef"),
    ],
)
def test_an_edited_configuration_is_a_wrong_request(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, advice: str
) -> None:
    """Resuming with settings that do not fit ends with exit 2, not with a traceback."""
    text = (run / "config.yaml").read_text()
    assert old in text
    shutil.copytree(run / "policy", tmp_path / "policy")
    shutil.copy(run / "resume.safetensors", tmp_path)
    (tmp_path / "config.yaml").write_text(text.replace(old, new))
    assert call("resume", str(tmp_path), "--total-steps", "1200") == 2
    message = capsys.readouterr().err
    assert advice in message and message.count("\n") <= 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda state: shorten_moment(state),
            r"agent/learner/rule/state/0/exp_avg has shape \[1\], not \[8, 3\]",
        ),
        (lambda state: state["progress"].update(num_steps=-(10**9)), "progress/num_steps is -1"),
        (lambda state: state.pop("progress"), "progress is missing"),
        (lambda state: state["agent"].update(value=[]), "agent/value is a list of 0"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_a_line(
    change: Any, words: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fused Adam would read and write beyond moments that are too short."""
    path = tmp_path / "damaged"
    shutil.copytree(run, path)
    state = load_checkpoint(path / "resume.safetensors")
    change(state)
    save_checkpoint(path / "resume.safetensors", state)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert call("resume", str(path), "--total-steps", "900") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(words, line)
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def shorten_moment(state: Any) -> None:
    state["agent"]["learner"]["rule"]["state"][0]["exp_avg"] = torch.zeros(1)


@pytest.mark.parametrize(("trained", "said"), [(4096, True), (5934, True), (5941, False)])
def test_steps_that_no_whole_window_has_are_said(trained: int, said: bool) -> None:
    """From a hundredth of the planned ones on."""
    progress = Progress(num_steps=trained, num_updates=2, window_steps=2048)
    expected = [f"steps:          {trained:,} of 6,000, in whole windows of 2,048"] if said else []
    assert steps_lines(progress, 6000) == expected
