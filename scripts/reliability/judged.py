"""What is wrong with the end of a command, whatever its request was."""

import re

from pgtoolkit.scripts.reliability.forked_command import Outcome

MAX_LINES = 3
"""Most lines on stderr that a refused or failed command may have."""

MAX_LINE = 2000
"""Most characters of a line on stderr."""

PROGRESS = "checking "
"""Beginning of the lines on stderr that show the progress of ``check-env``."""

OUR_FAULT = "this is a fault of pgtoolkit"
"""What the command line says of an exception that it did not expect."""

OUR_FRAME = re.compile(r'File "[^"]*/((?:pgtoolkit|agents|envs|scripts)/[\w/]+\.py)", line (\d+)')


def fault_of(outcome: Outcome) -> str | None:
    """The fault in a few words, equal for equal causes; None if the command ended as it should.

    It should exit with 0, 1 or 2, or with 130 if it was at work and was interrupted; say why on one
    to three lines where that is not 0; show no traceback, name no fault of this package;
    and write nowhere but in its folder.
    """
    text = outcome.errors + outcome.output
    if "Traceback (most recent call last)" in text:
        return f"traceback: {_last_frame(text)} {_exception(outcome.errors or text)}"
    if OUR_FAULT in text:
        return f"a fault of this package: {text[: text.index(OUR_FAULT)].strip()[-150:]}"
    if outcome.interrupted:
        return _fault_of_an_interrupted(outcome)
    if outcome.code not in (0, 1, 2):
        return f"exit code {outcome.code}"
    if unnamed := [path for path in outcome.outside if not _was_asked_for(path, outcome)]:
        return f"writes outside its folder: {unnamed[0]}"
    return None if outcome.code == 0 else _fault_of_the_message(outcome)


def _fault_of_an_interrupted(outcome: Outcome) -> str | None:
    """A command that has said what it works on and stops when it is told to is at work."""
    at_work = outcome.output.strip() or outcome.errors.strip().startswith(PROGRESS)
    if outcome.code in (130, 0) and at_work:
        return None
    return f"hangs: exit code {outcome.code} after an interrupt, at {_first_frame(outcome.where)}"


def _fault_of_the_message(outcome: Outcome) -> str | None:
    lines = [line for line in outcome.errors.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(PROGRESS)]
    if len(said) > MAX_LINES:
        return f"{outcome.arguments[0]}: {len(said)} lines on stderr, the last: {said[-1][:60]}"
    if any(len(line) > MAX_LINE for line in said):
        return f"{outcome.arguments[0]}: a line of {max(map(len, said)):,} characters on stderr"
    if outcome.code == 2 and not said:
        return f"{outcome.arguments[0]}: exit code 2 without a reason"
    return None


def _was_asked_for(path: str, outcome: Outcome) -> bool:
    """Whether an argument names the path's folder, as ``--run-dir /`` does."""
    return path.rpartition("/")[0] in {word.rstrip("/") for word in outcome.arguments}


def _first_frame(where: str) -> str:
    """The innermost frame of this package, of a list that begins with the latest call."""
    frames = OUR_FRAME.findall(where)
    return ":".join(frames[0]) if frames else (where.splitlines() or ["an unknown place"])[-1]


def _last_frame(text: str) -> str:
    frames = OUR_FRAME.findall(text)
    return ":".join(frames[-1]) if frames else "no frame of this package"


def _exception(text: str) -> str:
    """The exception's class and the beginning of its text."""
    lines = [line for line in text.splitlines() if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return lines[-1][:80] if lines else (text.strip().splitlines() or [""])[-1][:80]
