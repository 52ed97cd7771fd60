"""The files of a replay buffer: exact for every resume file that is kept, whatever happened."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pgtoolkit.rollouts.replay import ReplayBuffer
from pgtoolkit.rollouts.transitions import Transitions
from pgtoolkit.training.checkpoint import CheckpointError
from pgtoolkit.training.replay_files import ReplayFile
from pgtoolkit.training.run_folder import RunFolder

CAPACITY = 10


def add(buffer: ReplayBuffer, count: int, kind: int = 0) -> None:
    """Transitions whose reward is their number in the run, plus ``kind`` thousands."""
    number = torch.arange(buffer.added, buffer.added + count).float() + 1000 * kind
    pixels = number.to(torch.uint8)[:, None]
    buffer.add(
        Transitions(
            obs=pixels,
            action=number[:, None],
            reward=number,
            next_obs=pixels + 1,
            terminated=number % 3 == 0,
        )
    )


def save(folder: RunFolder, buffer: ReplayBuffer, keep: int = 2) -> None:
    folder.write_resume({"agent": {"replay": buffer.state_dict(), "other": 1}}, keep)


def loaded(state: dict[str, Any]) -> ReplayBuffer:
    buffer = ReplayBuffer(CAPACITY)
    buffer.load_state_dict(state["agent"]["replay"])
    return buffer


def rewards(buffer: ReplayBuffer) -> list[float]:
    return buffer.newest(CAPACITY).reward.tolist()


def equal(one: ReplayBuffer, two: ReplayBuffer) -> bool:
    """Whether they hold the same in the same places of the ring."""
    a, b = one.state_dict(), two.state_dict()
    return a["added"] == b["added"] and all(
        torch.equal(x, b["tensors"][name]) for name, x in a["tensors"].items()
    )


@pytest.mark.parametrize("counts", [[3, 4], [3, 4, 9], [25], [4, 25, 2], [10, 10, 1], [0, 5, 0]])
def test_what_is_read_is_what_was_written(counts: list[int], tmp_path: Path) -> None:
    """Also where the ring was overwritten, by more than it holds at once, or by nothing."""
    folder, buffer = RunFolder(tmp_path), ReplayBuffer(CAPACITY)
    for count in counts:
        add(buffer, count)
        save(folder, buffer)
        state, _ = folder.read_resume()
        assert equal(loaded(state), buffer)


def test_nothing_is_written_twice_and_what_no_run_needs_goes(tmp_path: Path) -> None:
    folder, buffer = RunFolder(tmp_path), ReplayBuffer(CAPACITY)
    for _ in range(8):
        add(buffer, 4)
        save(folder, buffer)
    files = ReplayFile.all_in(tmp_path)
    assert all(file.stop - file.start == 4 for file in files)
    assert files[-1].stop == 32
    # The older of the two resume files is of 28 transitions and needs those from 18 on.
    assert files[0].start <= 18 < files[0].stop


def test_an_older_resume_file_has_its_own_buffer(tmp_path: Path) -> None:
    """The newest file is damaged: the older one is gone on from, and newer transitions go."""
    folder, buffer = RunFolder(tmp_path), ReplayBuffer(CAPACITY)
    (tmp_path / "policy").mkdir()
    add(buffer, 13)
    save(folder, buffer)
    older = ReplayBuffer(CAPACITY)
    older.load_state_dict(buffer.state_dict())
    add(buffer, 4)
    save(folder, buffer)
    (tmp_path / "resume.safetensors").write_bytes(b"damaged")
    state, path = folder.read_resume()
    assert path.name == "resume-1.safetensors" and equal(loaded(state), older)
    folder.go_on_from(path)
    assert [file.stop for file in ReplayFile.all_in(tmp_path)] == [13]
    add(older, 4, kind=1)
    save(folder, older)
    assert equal(loaded(folder.read_resume()[0]), older)


def test_a_kill_between_the_two_files(tmp_path: Path) -> None:
    """Transitions are on disk that no resume file knows: the run makes those steps again."""
    folder, buffer = RunFolder(tmp_path), ReplayBuffer(CAPACITY)
    (tmp_path / "policy").mkdir()
    add(buffer, 6)
    save(folder, buffer)
    resume = (tmp_path / "resume.safetensors").read_bytes()
    add(buffer, 3)
    save(folder, buffer)
    (tmp_path / "resume.safetensors").write_bytes(resume)
    state, path = folder.read_resume()
    found = loaded(state)
    assert rewards(found) == [0, 1, 2, 3, 4, 5]
    folder.go_on_from(path)
    add(found, 3, kind=1)
    save(folder, found)
    assert rewards(loaded(folder.read_resume()[0])) == [0, 1, 2, 3, 4, 5, 1006, 1007, 1008]


def test_a_damaged_newest_file_leads_to_the_older_resume_file(tmp_path: Path) -> None:
    folder, buffer = RunFolder(tmp_path), ReplayBuffer(CAPACITY)
    for _ in range(2):
        add(buffer, 3)
        save(folder, buffer)
    newest = ReplayFile.all_in(tmp_path)[-1].name
    data = bytearray((tmp_path / newest).read_bytes())
    data[-1] ^= 1
    (tmp_path / newest).write_bytes(data)
    state, path = folder.read_resume()
    assert path.name == "resume-1.safetensors" and rewards(loaded(state)) == [0, 1, 2]


def test_a_missing_file_that_all_need_is_named(tmp_path: Path) -> None:
    folder, buffer = RunFolder(tmp_path), ReplayBuffer(CAPACITY)
    for _ in range(2):
        add(buffer, 3)
        save(folder, buffer)
    (tmp_path / ReplayFile.all_in(tmp_path)[0].name).unlink()
    with pytest.raises(CheckpointError, match="transitions before 3"):
        folder.read_resume()


def test_a_file_of_another_run_is_refused(tmp_path: Path) -> None:
    """It has the right name and numbers, and another content than the chain says."""
    folder, buffer = RunFolder(tmp_path / "a"), ReplayBuffer(CAPACITY)
    other, stranger = RunFolder(tmp_path / "b"), ReplayBuffer(CAPACITY)
    for run in (folder, other):
        run.path.mkdir()
    for _ in range(2):
        add(buffer, 3)
        save(folder, buffer)
        add(stranger, 3, kind=2)
        save(other, stranger)
    mine, theirs = (ReplayFile.all_in(run.path) for run in (folder, other))
    (folder.path / mine[1].name).unlink()
    (other.path / theirs[1].name).rename(folder.path / theirs[1].name)
    state, path = folder.read_resume()
    assert path.name == "resume-1.safetensors" and rewards(loaded(state)) == [0, 1, 2]
