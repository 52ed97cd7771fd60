"""A run's folder: configuration, TensorBoard events, policies, resume file, summary."""

import contextlib
import dataclasses
import itertools
import json
import logging
import os
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Self, final

from pgtoolkit.errors import RequestError
from pgtoolkit.training.checkpoint import (
    MAX_CHECKPOINT_BYTES,
    CheckpointError,
    encode_state,
    load_checkpoint,
    save_checkpoint,
)
from pgtoolkit.training.replay_files import (
    FIRST_CHAIN,
    read_transitions,
    remove_after,
    write_new_transitions,
)
from pgtoolkit.training.storage.config_file import config_text, read_config
from pgtoolkit.training.storage.files import (
    add_name,
    excerpt,
    finish,
    open_folder,
    remove,
    remove_unfinished,
    rename,
    replace_file,
    require_inside,
    system_reason,
    write_unfinished,
)
from pgtoolkit.version import __version__

LOG = logging.getLogger("pgtoolkit")


Which = Literal["best", "last"]

GIVEN = "given"
"""Key of ``config.yaml``: settings that stand for another value, as ``auto`` does, to the value
that was given."""

RESUME_NAME = re.compile(r"resume(-(?P<age>[1-9][0-9]{0,8}))?\.safetensors")

RUN_FILES = re.compile(
    r"config\.yaml|summary\.json|tracking\.json|fault-[\w-]+\.json|"
    r"(best|last|resume(-[0-9]+)?|replay-[0-9]+-[0-9]+-[0-9a-f]+)\.safetensors"
)
"""Names of the files that are written in one go, under a temporary name."""

KEPT_CHECKPOINTS = 2
"""The newest resume file and the one before, in case that the newest is damaged."""

MAX_NAMED_RUNS = 5
"""Runs that are named in the place of the folder in which they lie."""

MAX_POLICY_BYTES = 4 * 1024**3
"""A policy of a billion parameters. It is read in some seconds."""

MAX_ENV_NAME_BYTES = 100
"""A folder's name has 255 bytes at most, and a run's also the agent, the seed and the time."""


@final
@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run's files: ``config.yaml``, ``policy/``, ``resume.safetensors`` and others.

    What is in a folder may have been made or changed by anybody. Files are read only if they are
    ordinary files in this folder and no larger than a limit, and nothing is written outside it.
    """

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def resume_file(self) -> Path:
        """State from which the run can be resumed: agent, environments and progress.

        ``resume-1.safetensors`` is the one before, ``resume-2.safetensors`` the one before that.
        """
        return self._resume_file(0)

    def policy_file(self, which: Which) -> Path:
        """File with the policy alone: of the best evaluation so far, or of the last checkpoint.

        There is no best policy before the first evaluation.
        """
        return self.path / "policy" / f"{which}.safetensors"

    def saved_policy(self, which: Which) -> Path:
        """:meth:`policy_file`, but the last policy if there is no best one."""
        best = self.policy_file("best")
        return best if which == "best" and os.path.lexists(best) else self.policy_file("last")

    @property
    def summary_file(self) -> Path:
        return self.path / "summary.json"

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> Self:
        """Makes the folder and writes ``config.yaml``: the settings and the packages' versions.

        Raises:
            RequestError: the folder already holds a run, or cannot be made.
        """
        run = cls(path)
        run.require_new()
        try:
            run.policy_file("last").parent.mkdir(parents=True, exist_ok=True)
            require_inside(run.policy_file("last").parent, path)
            run.write_config(dict(config) | {"versions": versions()})
        except RequestError:
            raise
        except (OSError, ValueError) as error:  # a ValueError where the path has a null character
            raise RequestError(
                f"the run folder {excerpt(path)} cannot be made ({system_reason(error)}): give "
                "another --run-dir"
            ) from error
        return run

    def require_new(self) -> None:
        """Checks that the folder does not hold a run.

        Raises:
            RequestError: it does; the message says how to go on with it.
        """
        if os.path.lexists(self.config_file):
            raise RequestError(
                f"{self.path} already holds a run: continue it with `pgtoolkit resume "
                f"{self.path}`, or give another --run-dir"
            )

    @classmethod
    def open(cls, path: Path | str) -> tuple[Self, dict[str, Any]]:
        """An existing run, and its configuration as a dictionary.

        Raises:
            RequestError: there is no run there, or its configuration cannot be read.
        """
        if path == "":
            raise RequestError("the run's folder has an empty name: name one, or . for this one")
        run = cls(Path(path))
        if os.path.isfile(path):
            raise RequestError(
                f"{excerpt(path)} is a file: name the folder that `pgtoolkit train` made"
            )
        try:
            config = read_config(run.config_file, inside=run.path)
        except FileNotFoundError as error:
            raise RequestError(run._no_run()) from error
        return run, config

    def _no_run(self) -> str:
        """Says that this folder is not a run's, and which runs lie in it, the newest first."""
        place = excerpt(self.path)
        inside = self.path.glob(f"*/{self.config_file.name}") if os.path.isdir(self.path) else ()
        files = [file for file in inside if os.path.isfile(file)]
        if not files:
            return (
                f"{place} holds no run (no {self.config_file.name}): name a folder that "
                "`pgtoolkit train` made"
            )
        newest = sorted(files, key=lambda file: file.lstat().st_mtime_ns, reverse=True)
        names = ", ".join(excerpt(file.parent) for file in newest[:MAX_NAMED_RUNS])
        more = ", ..." if len(files) > MAX_NAMED_RUNS else ""
        count = f"{len(files)} run{'s' * (len(files) > 1)}"
        return f"{place} is a folder of {count}: name one, the newest first: {names}{more}"

    def write_config(self, config: Mapping[str, Any]) -> None:
        text = config_text(config)
        replace_file(self.config_file, [text.encode()], inside=self.path)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        text = json.dumps(dict(summary), indent=2) + "\n"
        replace_file(self.summary_file, [text.encode()], inside=self.path)

    def write_policy(self, which: Which, state: dict[str, Any]) -> None:
        """Writes a policy, with what belongs to it; see :func:`save_checkpoint`."""
        save_checkpoint(self.policy_file(which), state, inside=self.path)

    def read_policy(self, which: Which) -> tuple[dict[str, Any], Path]:
        """The state of a policy and its file: of ``which``, or of the last one for want of a best.

        Where the best one is damaged, the last one is read, and a warning says so.

        Raises:
            RequestError: neither can be read, or a newer version wrote it.
        """
        path, last = self.saved_policy(which), self.policy_file("last")
        try:
            return self._load(path, MAX_POLICY_BYTES), path
        except CheckpointError as error:
            state = None if path == last else self._load_whole(last)
            if state is None:
                raise
            LOG.warning("%s; %s is used in its place", error.problem, last)
            return state, last

    def write_resume(self, state: dict[str, Any], keep: int = KEPT_CHECKPOINTS) -> None:
        """Writes the newest resume file, and keeps those before it.

        At every moment there is a complete one: the new file is written to the end before an older
        one moves, and the newest keeps its name until the new file takes it. The transitions of a
        replay buffer, ``replay`` in the agent's state, go into files of their own before
        (:mod:`pgtoolkit.training.replay_files`).

        Args:
            state: what the run needs to go on.
            keep: the number of resume files, at least 1.

        Raises:
            TypeError: the state contains a value that cannot be stored.
            RequestError: the folder is a link that leads elsewhere.
            OSError: the system refuses, such as on a full disk; the older files are still there.
        """
        name, replay = self.resume_file.name, replay_of(state)
        if replay is not None:
            mark = write_new_transitions(self.path, replay, keep)
            state = state | {"agent": state["agent"] | {"replay": mark}}
        with open_folder(self.path, inside=self.path) as folder:
            fresh = write_unfinished(folder, name, encode_state(state))
            try:
                self._make_older(folder, keep)
            except BaseException:
                remove(folder, fresh)
                raise
            finish(folder, fresh, name)

    def read_resume(self) -> tuple[dict[str, Any], Path]:
        """The newest resume file that is complete with its replay buffer: its state and its path.

        A warning says so if it is not the newest that there is or was.

        Raises:
            RequestError: none can be read, or a newer version wrote it.
        """
        try:
            return self._load_resume(self.resume_file), self.resume_file
        except CheckpointError as error:
            for path in self._older_resume_files():
                with contextlib.suppress(CheckpointError):
                    state = self._load_resume(path)
                    LOG.warning("%s; going on from %s, which is older", error.problem, path)
                    return state, path
            raise

    def read_progress(self) -> Any:
        """The progress in the newest resume file that is complete, whatever its replay buffer.

        Raises:
            RequestError: none can be read.
        """
        for path in (self.resume_file, *self._older_resume_files()):
            state = self._load_whole(path)
            if state is not None:
                return state.get("progress")
        return self._load(self.resume_file, MAX_CHECKPOINT_BYTES)["progress"]

    def go_on_from(self, path: Path) -> None:
        """Makes a resume file the newest one, and removes what killed runs left unfinished.

        What was added to a replay buffer after that resume file is removed too: the run makes those
        steps again.

        Args:
            path: the file, from :meth:`read_resume`. Newer ones are damaged; the next checkpoints
                would otherwise keep them in its place.

        Raises:
            RequestError: ``policy/`` is a link that leads out of the folder.
            OSError: the system refuses.
        """
        for place in (self.path, self.policy_file("last").parent):
            remove_unfinished(place, RUN_FILES, inside=self.path)
        mark = replay_of(self._load_whole(path) or {}) or {"added": 0, "chain": FIRST_CHAIN}
        remove_after(self.path, mark["added"], mark["chain"])
        with open_folder(self.path, inside=self.path) as folder:
            if path != self.resume_file:
                finish(folder, path.name, self.resume_file.name)

    def _load_resume(self, path: Path) -> dict[str, Any]:
        """A resume file's state, with the transitions of its replay buffer if it has one."""
        state = self._load(path, MAX_CHECKPOINT_BYTES)
        mark = replay_of(state)
        if mark is None:
            return state
        replay = read_transitions(self.path, mark)
        return state | {"agent": state["agent"] | {"replay": replay}}

    def _load(self, path: Path, limit: int) -> dict[str, Any]:
        return load_checkpoint(path, inside=self.path, limit=limit)

    def _load_whole(self, path: Path) -> dict[str, Any] | None:
        """The state in a file; None if the file is missing or damaged."""
        try:
            return self._load(path, MAX_CHECKPOINT_BYTES)
        except CheckpointError:
            return None

    def _resume_file(self, age: int) -> Path:
        return self.path / (f"resume-{age}.safetensors" if age else "resume.safetensors")

    def _older_resume_files(self) -> list[Path]:
        """The resume files before the newest, the younger first."""
        matches = [RESUME_NAME.fullmatch(name) for name in os.listdir(self.path)]
        ages = sorted(int(match["age"]) for match in matches if match and match["age"])
        return [self._resume_file(age) for age in ages]

    def _make_older(self, folder: int, keep: int) -> None:
        """Gives each resume file the name of one older, and removes those beyond ``keep``."""
        newest, previous = self.resume_file, self._resume_file(1)
        for path in self._older_resume_files():
            if age_of(path) >= keep:
                remove(folder, path.name)
        if keep == 1 or not newest.exists():
            return
        if previous.exists() and previous.samefile(newest):
            return  # a run was killed between the two steps below and the new file's name
        for path in reversed(self._older_resume_files()):
            age = age_of(path) + 1
            if age < keep:
                with contextlib.suppress(FileNotFoundError):
                    rename(folder, path.name, self._resume_file(age).name)
        add_name(folder, newest.name, previous.name)


def age_of(older: Path) -> int:
    """The number in the name of an older resume file: 1 is the youngest of them."""
    return int(older.stem.removeprefix("resume-"))


def replay_of(state: Mapping[str, Any]) -> Any:
    """The entry ``replay`` of an agent's state in a run's state; None if there is none."""
    agent = state.get("agent")
    return agent.get("replay") if isinstance(agent, Mapping) else None


def default_path(env_name: str, agent_name: str, seed: int) -> Path:
    """``runs/{env}__{agent}__{seed}__{UTC time}``, with a number appended if it exists already."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    env = "".join(c if c.isalnum() or c in "-_." else "-" for c in env_name)
    env = env.encode()[:MAX_ENV_NAME_BYTES].decode(errors="ignore")
    path = Path("runs") / f"{env}__{agent_name}__{seed}__{stamp}"
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(free for free in itertools.chain([path], numbered) if not free.exists())


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that influence numerical results."""
    found = {"pgtoolkit": __version__, "python": platform.python_version()}
    for package in ("torch", "gymnasium", "numpy", "mujoco"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
