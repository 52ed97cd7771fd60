"""What each tracker's client is asked for: with small clients of ours, and with the real ones."""

import concurrent.futures
import importlib.util
import logging
import math
import sqlite3
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pgtoolkit.training.trackers.base import Guarded, TrackedRun, Tracker, read_identities
from pgtoolkit.training.trackers.mlflow import MlflowTracker
from pgtoolkit.training.trackers.trackio import TrackioTracker
from pgtoolkit.training.trackers.wandb import WandbTracker

SCALARS = {"rollout/ep_rew_mean": -3.5, "gradient/mixed/snr": 0.25}

Calls = list[tuple[Any, ...]]


def run_in(folder: Path, identity: str | None = None, **settings: Any) -> TrackedRun:
    place = folder / "my_run"
    place.mkdir(exist_ok=True)
    return TrackedRun(place, {"agent": "shac", **settings}, None, identity)


class Recorder:
    """Takes any call of any method, and remembers it."""

    def __init__(self, calls: Calls, **values: Any) -> None:
        self.__dict__ |= {"calls": calls, **values}

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> None:
            self.calls.append((name, *arguments, named))

        return call


def install(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module: Any = SimpleNamespace(__spec__=None, **members)
    monkeypatch.setitem(sys.modules, name, module)


def test_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: Calls = []

    def init(**named: Any) -> Recorder:
        calls.append(("init", named))
        return Recorder(calls, id="abc123")

    install(monkeypatch, "wandb", init=init, Settings=dict)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    tracker = WandbTracker()
    assert tracker.begin(run_in(tmp_path)) == "abc123"
    tracker.log(SCALARS, 2048)
    tracker.finish(failed=False)
    (_, given), *rest = calls
    assert (given["project"], given["name"], given["config"]) == (
        "pgtoolkit",
        "my_run",
        {"agent": "shac"},
    )
    assert (given["id"], given["resume"], given["settings"]["console"]) == (None, None, "off")
    assert rest == [
        ("define_metric", "env_step", {}),
        ("define_metric", "*", {"step_metric": "env_step"}),
        ("log", {**SCALARS, "env_step": 2048}, {}),
        ("finish", {"exit_code": 0}),
    ]


def test_wandb_goes_on_in_the_same_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the project of its variable; a failed run says so; a quiet one is silent."""
    calls: Calls = []

    def init(**named: Any) -> Recorder:
        calls.append(("init", named))
        return Recorder(calls, id=named["id"])

    install(monkeypatch, "wandb", init=init, Settings=dict)
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    tracker = WandbTracker()
    with caplog.at_level(logging.ERROR, "pgtoolkit"):
        assert tracker.begin(run_in(tmp_path, "abc123")) == "abc123"
    tracker.finish(failed=True)
    given = calls[0][1]
    assert (given["id"], given["resume"], given["project"]) == ("abc123", "allow", "theirs")
    assert given["allow_val_change"] and given["settings"]["silent"]
    assert calls[-1] == ("finish", {"exit_code": 1})


@pytest.mark.parametrize("identity", [None, "my_run"])
def test_trackio(identity: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: Calls = []

    def init(**named: Any) -> Recorder:
        calls.append(("init", named))
        return Recorder(calls)

    install(monkeypatch, "trackio", init=init)
    tracker = TrackioTracker()
    assert tracker.begin(run_in(tmp_path, identity)) == "my_run"
    tracker.log(SCALARS, 2048)
    tracker.finish(failed=False)
    given = calls[0][1]
    assert (given["project"], given["name"]) == ("pgtoolkit", "my_run")
    assert given["resume"] == ("allow" if identity else "never")
    assert given["config"] == {"agent": "shac"}
    assert calls[1:] == [("log", SCALARS, {"step": 2048}), ("finish", {})]


class MlflowClient:
    """A client with one experiment and one run, in memory."""

    params: dict[str, str]
    calls: Calls
    futures: list[concurrent.futures.Future[None]]

    def get_experiment_by_name(self, name: str) -> None:
        self.calls.append(("get_experiment_by_name", name))

    def create_experiment(self, name: str) -> str:
        return "7"

    def create_run(self, experiment: str, run_name: str) -> Any:
        self.calls.append(("create_run", experiment, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="run7"))

    def get_run(self, run: str) -> Any:
        return SimpleNamespace(data=SimpleNamespace(params=dict(self.params)))

    def log_batch(
        self, run: str, metrics: Any = (), params: Any = (), synchronous: bool = True
    ) -> Any:
        assert len(params) <= 100 and set(self.params).isdisjoint(name for name, _ in params)
        self.params |= dict(params)
        self.calls += [("metric", name, value, step) for name, value, _, step in metrics]
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.futures.append(future)
        return SimpleNamespace(_operation_futures=[future], wait=future.result)

    def set_tag(self, run: str, name: str, value: str) -> None:
        self.calls.append(("tag", name, value))

    def update_run(self, run: str, status: str) -> None:
        self.calls.append(("update_run", run, status))

    def set_terminated(self, run: str, status: str) -> None:
        self.calls.append(("set_terminated", run, status))


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> type[MlflowClient]:
    kind = type("Client", (MlflowClient,), {"params": {}, "calls": [], "futures": []})
    install(monkeypatch, "mlflow", MlflowClient=kind)
    tuples = {"Metric": lambda *x: x, "Param": lambda *x: x}
    install(monkeypatch, "mlflow.entities", **tuples)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return kind


def test_mlflow(mlflow: type[MlflowClient], tmp_path: Path) -> None:
    """Settings are parameters, a hundred at a time; scalars do not wait until they are there."""
    tracker = MlflowTracker()
    many: dict[str, Any] = {f"setting{number}": number for number in range(150)}
    assert tracker.begin(run_in(tmp_path, **many)) == "run7"
    assert len(mlflow.params) == 151 and mlflow.params["setting3"] == "3"
    tracker.log(SCALARS, 2048)
    for future in mlflow.futures:
        future.set_result(None)
    tracker.finish(failed=False)
    assert mlflow.calls == [
        ("get_experiment_by_name", "pgtoolkit"),
        ("create_run", "7", "my_run"),
        *[("metric", name, value, 2048) for name, value in SCALARS.items()],
        ("set_terminated", "run7", "FINISHED"),
    ]


def test_mlflow_goes_on_in_the_same_run(mlflow: type[MlflowClient], tmp_path: Path) -> None:
    """A parameter cannot change: the new value becomes a tag."""
    mlflow.params |= {"agent": "shac", "total_steps": "10"}
    tracker = MlflowTracker()
    assert tracker.begin(run_in(tmp_path, "run7", total_steps=20, fresh=1)) == "run7"
    tracker.finish(failed=True)
    assert mlflow.calls == [
        ("update_run", "run7", "RUNNING"),
        ("tag", "resumed.total_steps", "20"),
        ("set_terminated", "run7", "FAILED"),
    ]
    assert mlflow.params == {"agent": "shac", "total_steps": "10", "fresh": "1"}


def test_mlflow_tells_what_failed_on_the_way(
    mlflow: type[MlflowClient], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At the next scalars, once; the run goes on."""
    tracker = Guarded("mlflow", MlflowTracker())
    tracker.begin(run_in(tmp_path))
    tracker.log(SCALARS, 1)
    mlflow.futures[-1].set_exception(ConnectionError("the server is away"))
    tracker.log(SCALARS, 2)
    tracker.log(SCALARS, 3)
    tracker.finish(failed=False)
    [record] = caplog.records
    assert "the server is away" in record.message
    assert [call[3] for call in mlflow.calls if call[0] == "metric"] == [1, 1, 2, 2]


def needs(package: str) -> pytest.MarkDecorator:
    spec = importlib.util.find_spec(package)
    missing = spec is None or spec.origin is None
    return pytest.mark.skipif(missing, reason=f"the package {package} is not installed")


def follow_twice(tracker: type[Any], name: str, folder: Path) -> TrackedRun:
    """A run and its continuation, with the real client; a scalar is not finite."""
    run = run_in(folder, hidden=[64, 64], gamma=0.99)
    for step in (1000, 2000):
        client: Tracker = Guarded(name, tracker())
        client.begin(run)
        client.log({**SCALARS, "gradient/bias_z": math.nan}, step)
        client.log(SCALARS, step + 1)
        client.finish(failed=False)
    return run


@needs("wandb")
@pytest.mark.filterwarnings("default")
def test_wandb_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two folders of one run, which ``wandb sync`` sends later."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = follow_twice(WandbTracker, "wandb", tmp_path)
    identity = read_identities(run.folder)["wandb"]
    parts = list((run.folder / "wandb").glob(f"offline-run-*-{identity}"))
    assert len(parts) == 2 and all(list(part.glob("*.wandb")) for part in parts)
    assert caplog.records == []


@needs("trackio")
@pytest.mark.filterwarnings("default")
def test_trackio_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    follow_twice(TrackioTracker, "trackio", tmp_path)
    [file] = (tmp_path / "trackio").glob("pgtoolkit*.db")
    with sqlite3.connect(file) as database:
        rows = database.execute("SELECT run_name, step FROM metrics ORDER BY step").fetchall()
    assert rows == [("my_run", step) for step in (1000, 1001, 2000, 2001)]
    assert caplog.records == []


@needs("mlflow")
@pytest.mark.filterwarnings("default")
def test_mlflow_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run = follow_twice(MlflowTracker, "mlflow", tmp_path)
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    identity = read_identities(run.folder)["mlflow"]
    found = client.get_metric_history(identity, "rollout/ep_rew_mean")
    assert [metric.step for metric in found] == [1000, 1001, 2000, 2001]
    assert client.get_run(identity).data.params["hidden"] == "[64, 64]"
    assert caplog.records == []
