"""What a run of a comparison needs next: training, going on, its final evaluation, or nothing."""

import json
import os
from pathlib import Path
from typing import Any

from pgtoolkit.scripts.comparison.plan import PlannedRun
from pgtoolkit.training.run_folder import RunFolder


def next_arguments(run: PlannedRun) -> list[str] | None:
    """The command line of the run's next stage; None if it is complete."""
    folder = RunFolder(run.path)
    if not folder.summary_file.exists():
        begun = folder.config_file.exists() and folder.resume_file.exists()
        return run.resume_arguments() if begun else run.train_arguments()
    if final_evaluation(run) is None:
        return run.evaluate_arguments(unfinished_evaluation(run))
    return None


def finish_stage(run: PlannedRun, kind: str) -> None:
    """Gives the result of a stage its name, so that a file that is half written never has it."""
    if kind == "evaluate":
        os.replace(unfinished_evaluation(run), run.evaluation_file)


def unfinished_evaluation(run: PlannedRun) -> Path:
    return run.evaluation_file.with_suffix(f".{os.getpid()}.tmp")


def final_evaluation(run: PlannedRun) -> dict[str, Any] | None:
    """The content of the final evaluation's file, if it has the wanted episodes and starts."""
    try:
        found = json.loads(run.evaluation_file.read_text(encoding="utf-8"))
        wanted = (run.final_episodes, run.final_seed)
        same = (found["episodes"], found["seed"]) == wanted and isinstance(found["returns"], list)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(found) if same else None
