"""Videos of a run's policy at its evaluations."""

import io
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pgtoolkit
from pgtoolkit.errors import RequestError
from pgtoolkit.rollouts import evaluation
from pgtoolkit.scripts.cli.display.run_videos import MAX_GIF_FRAMES, MAX_GIF_SIDE, Animation
from pgtoolkit.scripts.cli.display.video import even_sided
from pgtoolkit.scripts.cli.main import run_arguments

ENV = '''
import gymnasium
import numpy as np


class Scene(gymnasium.Env):
    """Episodes of 6 steps; the picture has odd sides, and is black in the beginning."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    breaks = False

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        self.count += 1
        return np.zeros(2, np.float32), 1.0, False, self.count == 6, {}

    def render(self):
        if self.breaks and self.count == 3:
            raise RuntimeError("the renderer is lost")
        return np.full((33, 47, 3), 40 * self.count, np.uint8)


class Lost(Scene):
    breaks = True


class Blind(Scene):
    metadata = {"render_modes": []}

    def __init__(self):
        super().__init__()


class Draws(Scene):
    def render(self):
        return None
'''
SMALL: dict[str, Any] = {
    "total_steps": 100,
    "num_envs": 2,
    "n_steps": 10,
    "batch_size": 10,
    "eval_episodes": 2,
    "eval_interval": 40,
}


@pytest.fixture
def scene(tmp_path: Path) -> str:
    (tmp_path / "scene.py").write_text(ENV)
    return f"{tmp_path}/scene.py"


def videos(run: Any) -> list[str]:
    return sorted(path.name for path in run.directory.glob("videos/*"))


def decoded(path: Path, shape: tuple[int, int, int]) -> Any:
    """The frames of a video, of this shape."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo"]
    found = subprocess.run([*command, "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
    return np.frombuffer(found.stdout, np.uint8).reshape(-1, *shape)


def animations(run: Any) -> list[Any]:
    events: Any = EventAccumulator(str(run.directory), {"images": 0})
    events.Reload()
    tagged = "eval/video" in events.Tags()["images"]
    return events.Images("eval/video") if tagged else []


def test_each_evaluation_has_a_video(scene: str, tmp_path: Path) -> None:
    """Evaluations after 20, 60 and 100 steps. A resumed run goes on; another one has none."""
    given = SMALL | {"run_dir": tmp_path / "a", "seed": 3}
    run = pgtoolkit.train("ppo", f"{scene}:Scene", capture_video=True, **given)
    assert videos(run) == [f"step_{step:09d}.mp4" for step in (20, 60, 100)]
    frames = decoded(run.directory / "videos/step_000000020.mp4", (34, 48, 3))
    assert len(frames) == 6
    brightness = frames.mean(axis=(1, 2, 3))
    assert brightness == pytest.approx(40 * np.arange(6), abs=8)  # the encoder rounds
    found = animations(run)
    assert [event.step for event in found] == [20, 60, 100]
    assert (found[0].width, found[0].height) == (47, 33)
    with Image.open(io.BytesIO(found[0].encoded_image_string)) as image:
        assert image.format == "GIF" and getattr(image, "n_frames", 1) == 6
        assert image.info["duration"] == 100
    assert len(videos(run.resume(140))) == 4
    plain = pgtoolkit.train("ppo", f"{scene}:Scene", **(given | {"run_dir": tmp_path / "b"}))
    assert videos(plain) == [] and animations(plain) == []
    # Filming changes nothing that is learned.
    first = pgtoolkit.load(tmp_path / "b").metrics
    again = pgtoolkit.train(
        "ppo", f"{scene}:Scene", capture_video=True, **(given | {"run_dir": tmp_path / "c"})
    )
    assert {**again.metrics, **first} == again.metrics


def test_a_render_that_fails_is_said_once_and_ends_nothing(
    scene: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run = pgtoolkit.train(
            "ppo", f"{scene}:Lost", capture_video=True, run_dir=tmp_path / "run", **SMALL
        )
    assert run.progress.finished
    said = [record.message for record in caplog.records if "video" in record.message]
    assert said == [
        "the video at step 20 failed, and the run goes on without it: Lost cannot be rendered "
        "here: the renderer is lost (said once)"
    ]
    assert videos(run) == [] and animations(run) == []


@pytest.mark.parametrize("linked", ["videos", "videos/step_000000140.mp4"])
def test_a_link_is_not_followed_out_of_the_run(scene: str, tmp_path: Path, linked: str) -> None:
    """Neither of the folder of videos, which is refused, nor of a video, which is replaced."""
    given = SMALL | {"run_dir": tmp_path / "run", "capture_video": True}
    run = pgtoolkit.train("ppo", f"{scene}:Scene", **given)
    outside, link = tmp_path / "outside", run.directory / linked
    outside.mkdir()
    (outside / "file").write_text("mine")
    if link.is_dir():
        shutil.rmtree(link)
        link.symlink_to(outside)
    else:
        link.symlink_to(outside / "file")
    run.resume(140)
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "mine"
    assert link.is_symlink() == (linked == "videos")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("Blind", {}, "capture_video.* cannot film: .*render_mode"),
        ("Draws", {}, "capture_video.* cannot film: Draws returns no picture from render"),
        ("Scene", {"eval_interval": 0}, "eval_interval=0"),
    ],
)
def test_what_cannot_be_filmed_is_refused_before_the_run_begins(
    name: str, settings: dict[str, Any], message: str, scene: str, tmp_path: Path
) -> None:
    given = SMALL | {"run_dir": tmp_path / "run", "capture_video": True} | settings
    with pytest.raises(RequestError, match=message):
        pgtoolkit.train("ppo", f"{scene}:{name}", **given)
    assert not (tmp_path / "run").exists()


def test_without_the_extra_the_error_names_it(
    scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    given = SMALL | {"run_dir": tmp_path / "run", "capture_video": True}
    with pytest.raises(RequestError, match="needs imageio and its ffmpeg: python -m pip install"):
        pgtoolkit.train("ppo", f"{scene}:Scene", **given)


def test_an_extra_without_its_program_is_found_before_the_run(
    scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """imageio_ffmpeg can be installed where there is no ffmpeg for the machine."""
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", no_program)
    given = SMALL | {"run_dir": tmp_path / "run", "capture_video": True}
    with pytest.raises(RequestError, match="needs imageio and its ffmpeg"):
        pgtoolkit.train("ppo", f"{scene}:Scene", **given)
    assert not (tmp_path / "run").exists()


def no_program() -> str:
    raise RuntimeError("No ffmpeg exe could be found")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--video", "film.mp4"], "needs imageio and its ffmpeg: python -m pip install"),
        (["--video", "film.avi"], "must end in .gif or .mp4"),
        (["--video", "nowhere/film.gif"], "--video nowhere/film.gif cannot be written"),
        (["--json", "nowhere/it.json"], "--json nowhere/it.json cannot be written"),
        (["--video", "film.gif", "--env", "scene.py:Draws"], "Draws returns no picture"),
    ],
)
def test_evaluate_finds_what_cannot_be_written_before_it_plays(
    flags: list[str], message: str, scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pgtoolkit.train("ppo", f"{scene}:Scene", run_dir="run", **SMALL)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: pytest.fail("it played"))
    with pytest.raises(RequestError, match=message):
        run_arguments(["evaluate", "run", *flags])


@pytest.mark.parametrize("length", [1, MAX_GIF_FRAMES, MAX_GIF_FRAMES + 1, 1000])
def test_an_animation_is_short_small_and_as_fast_as_its_video(length: int) -> None:
    animation = Animation()
    for count in range(length):
        frame = np.full((300, 600, 3), count % 256, np.uint8)
        assert animation.seen(frame) is frame
    assert animation.size == (MAX_GIF_SIDE, MAX_GIF_SIDE // 2)
    with Image.open(io.BytesIO(animation.gif(fps=20))) as image:
        total = 0.0
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            total += image.info.get("duration", 0)
        assert getattr(image, "n_frames", 1) <= MAX_GIF_FRAMES
    if length > 1:  # a picture alone has no duration
        assert total == pytest.approx(50 * length, rel=0.05)


def test_odd_sides_become_even_by_a_repeated_edge() -> None:
    frame = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    even = even_sided(frame)
    assert even.shape == (4, 4, 3)
    np.testing.assert_array_equal(even[3, :3], frame[2])
    assert even_sided(even) is even or np.array_equal(even_sided(even), even)
