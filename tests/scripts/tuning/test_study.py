"""The study on the disk: shared, gone on with, and never counted twice."""

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.registry import load_agent
from pgtoolkit.scripts.tuning.journal import cut_off_half_line
from pgtoolkit.scripts.tuning.sampler import FIRST_RANDOM
from pgtoolkit.scripts.tuning.space import parse_dimension
from pgtoolkit.scripts.tuning.study import JOURNAL_NAME, REASON, Study, Taken

CONFIG = load_agent("apg")[1]()
SPACE = [
    parse_dimension("apg", CONFIG, text)
    for text in ("learning_rate=1e-4..1e-1", "gamma=0.9..0.999")
]
DEFAULTS: dict[str, Any] = {"learning_rate": 0.005, "gamma": 0.99}


def opened(root: Path, seed: int = 0, **identity: Any) -> Study:
    return Study(root, {"env": "E"} | identity, SPACE, seed, DEFAULTS)


def taken(study: Study, count: int) -> Taken:
    found = study.take(count)
    assert found is not None
    return found


def test_the_first_trial_has_the_defaults(tmp_path: Path) -> None:
    study = opened(tmp_path)
    first, second = taken(study, 5), taken(study, 5)
    assert first.values == DEFAULTS != second.values
    assert study.begins_with_defaults


def test_no_trial_has_the_defaults_where_the_ranges_do_not(tmp_path: Path) -> None:
    study = Study(tmp_path, {}, SPACE, 0, {"learning_rate": 0.5, "gamma": 0.99})
    assert not study.begins_with_defaults and study.trials == []
    assert taken(study, 1).trial.number == 0


def test_two_processes_share_a_study_and_take_different_trials(tmp_path: Path) -> None:
    """Each object has a journal of its own open, as each process has."""
    one, other = opened(tmp_path), opened(tmp_path)
    found = [taken(study, 4) for study in (one, other, one, other)]
    assert [each.trial.number for each in found] == [0, 1, 2, 3]
    assert len({str(each.values) for each in found}) == 4
    assert one.take(4) is None and other.take(4) is None
    other.complete(found[1], [1.0, 3.0], 5.0)
    assert one.best is not None and one.best.value == 2.0


def test_a_trial_whose_process_ended_is_taken_up_and_not_counted_twice(tmp_path: Path) -> None:
    """The lock of its folder is released, as the system does for a process that was killed."""
    study = opened(tmp_path)
    study.complete(taken(study, 3), [1.0], None)
    left = taken(study, 3)
    left.release.close()
    again = taken(opened(tmp_path), 3)
    assert again.again and again.trial.number == left.trial.number == 1
    assert again.values == left.values
    assert len(study.trials) == 2
    assert taken(study, 3).trial.number == 2, "the one that was taken up is at work"


def test_what_is_drawn_depends_on_seed_and_number_alone(tmp_path: Path) -> None:
    """A study that is opened anew before each trial draws what one that stays open does.

    The last trials are drawn by the model, from equal results.
    """

    def draw(name: str, seed: int, *, reopen: bool) -> list[Any]:
        study, found = opened(tmp_path / name, seed), []
        for number in range(FIRST_RANDOM + 3):
            study = opened(tmp_path / name, seed) if reopen else study
            mine = taken(study, 99)
            found.append(dict(mine.values))
            study.complete(mine, [float(number % 3)], None)
        return found

    one = draw("a", 0, reopen=False)
    assert one == draw("b", 0, reopen=True)
    assert one != draw("c", 1, reopen=False)


def test_a_study_with_other_settings_is_refused(tmp_path: Path) -> None:
    opened(tmp_path, gamma=0.9)
    with pytest.raises(RequestError, match=r"gamma: 0\.9 there, 0\.5 here.*another --run-dir"):
        opened(tmp_path, gamma=0.5)
    with pytest.raises(RequestError, match=r"gamma: 0\.9 there, None here"):
        opened(tmp_path)
    opened(tmp_path, gamma=0.9)


def test_failed_trials_keep_their_reason_and_are_not_the_best(tmp_path: Path) -> None:
    study = opened(tmp_path)
    study.fail(taken(study, 9), "it broke")
    pruned = taken(study, 9)
    pruned.trial.report(100.0, 5)
    study.prune(pruned)
    assert study.best is None
    study.complete(taken(study, 9), [1.0, 2.0], 3.0)
    study.complete(taken(study, 9), [0.0], 3.0)
    assert study.best is not None and study.best.number == 2
    states = [trial.state for trial in study.trials]
    assert states[:3] == [TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE]
    assert study.trials[0].user_attrs[REASON] == "it broke"
    assert study.told_by_others(-1, complete=True) == [{}, {}] and study.told(1) == {5: 100.0}


def test_half_a_line_at_the_end_of_the_journal_harms_nothing(tmp_path: Path) -> None:
    """A process that was killed, or a full disk, leaves one. Without the cut no line is read."""
    study = opened(tmp_path)
    study.complete(taken(study, 9), [1.0], None)
    with (tmp_path / JOURNAL_NAME).open("ab") as file:
        file.write(b'{"op_code": 4, "stu')
    again = opened(tmp_path)
    again.complete(taken(again, 9), [2.0], None)
    assert [trial.value for trial in opened(tmp_path).trials] == [1.0, 2.0]


def test_a_journal_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_NAME).write_text("no journal\nat all\n")
    with pytest.raises(RequestError, match="cannot be read"):
        opened(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="another --run-dir"):
        opened(tmp_path / "file")


def test_only_what_follows_the_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "file"
    cut_off_half_line(path)
    for before, after in ((b"", b""), (b"a\nb", b"a\n"), (b"a\n", b"a\n"), (b"a", b"")):
        path.write_bytes(before)
        cut_off_half_line(path)
        assert path.read_bytes() == after
