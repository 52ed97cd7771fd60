"""Standard output of a command that keeps it for itself."""

import subprocess
import sys

import pytest

CODE = """
import os, subprocess, sys
from pgtoolkit.scripts.cli.streams import others_to

print("before")
with others_to({place}) as out:
    print("python")
    sys.stdout.flush()
    os.write(1, b"code in C\\n")
    subprocess.run([sys.executable, "-c", "print('another process')"])
    print("ours", file=out)
print("after")
"""

NOISE = ("python", "code in C", "another process")


@pytest.mark.parametrize("place", ["stderr", None])
def test_only_the_caller_writes_to_standard_output(place: str | None) -> None:
    """What Python, code in C and other processes print goes to standard error, or nowhere."""
    code = CODE.format(place=repr(place))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["before", "ours", "after"]
    assert sorted(done.stderr.splitlines()) == (sorted(NOISE) if place else [])


def test_a_reader_that_went_away_is_no_error() -> None:
    """The text is lost, and the block goes on."""
    code = (
        "import sys; from pgtoolkit.scripts.cli.streams import others_to\n"
        "with others_to('stderr') as out:\n"
        "    for number in range(20000): print('x' * 100, file=out)\n"
        "    sys.stderr.write('done')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b"done"
    assert process.returncode == 0


def test_a_stream_that_is_no_file_is_kept_from_python(capsys: pytest.CaptureFixture[str]) -> None:
    from pgtoolkit.scripts.cli.streams import others_to

    with others_to("stderr") as out:
        print("python")
        print("ours", file=out)
    print("after")
    found = capsys.readouterr()
    assert (found.out, found.err) == ("ours\nafter\n", "python\n")
