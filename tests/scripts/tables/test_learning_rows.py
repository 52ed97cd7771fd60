"""The learning study: cells by hand, files that go on, and a run of a few windows."""

from pathlib import Path

import pytest
import torch

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.tables import learning_rows
from pgtoolkit.scripts.tables.learning_envs import Hover, Wind
from pgtoolkit.scripts.tables.learning_rows import (
    ENVS,
    EXTRA_ENVS,
    SETTINGS,
    LearningRun,
    as_markdown,
    cell,
    complete,
    read_runs,
    run_once,
    table,
)


def made(env: str = "Hover", setting: str = "default", seed: int = 0, *ends: float) -> LearningRun:
    returns = list(ends) or [-3.0, -2.0]
    return LearningRun(
        setting=setting, env=env, seed=seed, total_steps=100, returns=returns, seconds=1.0
    )


def test_a_run_is_spoilt_a_tenth_below_its_best() -> None:
    """Relative to the size of the best return, whatever its sign is."""
    assert not made("Hover", "default", 0, -9.0, -2.0, -2.19).spoilt
    assert made("Hover", "default", 0, -9.0, -2.0, -2.3).spoilt
    assert made("Hover", "default", 0, 1.0, 200.0, 170.0).spoilt
    assert not made("Hover", "default", 0, 1.0, 200.0, 190.0).spoilt


def test_a_cell_by_hand() -> None:
    """Ends of -2, -3 and -4: mean -3, standard error 1 / sqrt(3); one of them is spoilt."""
    runs = [made("Hover", "default", seed, -2.0 - seed) for seed in range(2)]
    runs.append(made("Hover", "default", 2, -1.0, -4.0))
    assert cell(runs) == "-3 +- 0.58 (3, 1 spoilt)"
    assert cell(runs[:1]) == "-2 (1)" and cell([]) == "-"


def test_the_table_has_a_row_for_each_environment_and_a_column_for_each_setting() -> None:
    """In the order of SETTINGS; names without the prefix of the package."""
    runs = [made(), made("pgtoolkit/Pendulum-v0", "ppo")]
    rows = table(runs)
    assert rows[0] == ["environment", "default", "ppo"]
    assert [row[0] for row in rows[1:]] == ["Hover", "Pendulum"]
    assert rows[1][2] == rows[2][1] == "-"
    assert as_markdown(rows).splitlines()[1] == "|---|---|---|"


def test_a_study_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in the file are not repeated, and each new one is added at once."""
    calls: list[tuple[str, str, int, int]] = []

    def run(setting: str, env: str, seed: int, steps: int) -> LearningRun:
        calls.append((setting, env, seed, steps))
        return LearningRun(
            setting=setting, env=env, seed=seed, total_steps=steps, returns=[1.0], seconds=0.0
        )

    monkeypatch.setattr(learning_rows, "run_once", run)
    path = tmp_path / "runs.json"
    study = iter(complete(path, ["default"], ["Hover", "Wind"], 2, 100))
    next(study), next(study)
    assert len(read_runs(path)) == 2
    assert len(list(complete(path, ["default"], ["Hover", "Wind"], 2, 100))) == 2
    assert calls == [("default", env, seed, 100) for seed in (0, 1) for env in ("Hover", "Wind")]
    assert list(complete(path, ["default"], ["Hover", "Wind"], 2, 100)) == []


def test_other_files_and_names_are_refused(tmp_path: Path) -> None:
    """The message says what to do."""
    path = tmp_path / "other.json"
    path.write_text('[{"a": 1}]')
    with pytest.raises(RequestError, match="another file"):
        read_runs(path)
    assert read_runs(tmp_path / "none.json") == []
    with pytest.raises(RequestError, match="choose from"):
        run_once("faster", "Hover", 0, 100)


def test_a_run_of_a_few_windows() -> None:
    """The returns are those of the evaluations: at the first update, and at the end."""
    found = run_once("default", "Hover", 0, 6000)
    assert len(found.returns) == 2 and found.end > found.returns[0]


def test_the_settings_and_environments_of_the_study() -> None:
    """Fourteen environments; the default has no flags."""
    assert len(ENVS) == 14 and SETTINGS["default"] == ("shac",) and set(EXTRA_ENVS) <= set(ENVS)


@pytest.mark.parametrize("env", [Hover(), Wind()])
def test_the_two_environments_are_differentiable(env: Hover | Wind) -> None:
    """Their actions have an exact gradient."""
    assert env.gradient.action == "exact"
    generator = torch.Generator().manual_seed(0)
    state = env.initial(3, generator)
    noise = torch.zeros(3, 2) if isinstance(env, Wind) else None
    action = torch.zeros(3, env.action_space.shape[0], requires_grad=True)
    after = env.transition(state, action, noise)
    (gradient,) = torch.autograd.grad(env.reward(state, action, after).sum(), action)
    assert bool((gradient != 0).any())
