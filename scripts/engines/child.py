"""A command in a process of its own, which stops as by SIGTERM when the process above ends.

``python -m pgtoolkit.scripts.engines.child COMMAND ...`` is ``pgtoolkit COMMAND ...``. Its
standard input is a pipe whose other end the process above holds and never writes to. Closing that
end stops the command, and so does the end of the process above, however it ended: a training then
writes a checkpoint, from which a later call goes on.
"""

import os
import signal
import sys
import threading

from pgtoolkit.scripts.cli.main import run_arguments, run_command


def stop_at_the_end_of(pipe: int) -> None:
    """Waits until the other end of a pipe is closed, and sends this process SIGTERM."""
    while os.read(pipe, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=stop_at_the_end_of, args=(0,), daemon=True).start()
    run_command(run_arguments, sys.argv[1:])
