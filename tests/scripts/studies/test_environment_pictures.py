"""``scripts/studies/environment_pictures.py``: six pictures of an episode."""

from pathlib import Path

import pytest
from PIL import Image

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.studies.environment_pictures import FRAMES, PICTURE_SIZE, run


def test_a_picture_has_all_frames_side_by_side(tmp_path: Path) -> None:
    run(["--output", str(tmp_path), "--envs", "pgtoolkit/LQG-v0", "--total-steps", "2048"])
    with Image.open(tmp_path / "LQG.png") as picture:
        assert picture.size == (FRAMES * PICTURE_SIZE, PICTURE_SIZE)


def test_an_unknown_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="environment"):
        run(["--output", str(tmp_path), "--envs", "pgtoolkit/Pendulm-v0"])
