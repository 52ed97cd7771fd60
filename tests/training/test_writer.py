"""TensorBoard events, read back as TensorBoard reads them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pgtoolkit.training.tags import DEFINITIONS, definitions_text
from pgtoolkit.training.writer import HPARAM_METRICS, RunWriter, differing, hyperparameters

SETTINGS = {"agent": "shac", "gamma": 0.99, "hidden": (64, 64), "normalize": True, "none": None}


def read(path: Path) -> Any:
    accumulator: Any = EventAccumulator(str(path), {"images": 0, "tensors": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def test_scalars_come_back_at_their_environment_steps(tmp_path: Path) -> None:
    """TensorBoard stores float32; ``write`` returns the scalars as floats."""
    with RunWriter(tmp_path) as writer:
        first = writer.write({"a/x": torch.tensor(0.1), "b": torch.tensor(7)}, 640)
        writer.write({"a/x": torch.tensor(-2.5, dtype=torch.float64)}, 1280)
    assert first == {"a/x": pytest.approx(0.1), "b": 7.0}
    events = read(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("a/x")] == [
        (640, pytest.approx(0.1)),
        (1280, -2.5),
    ]
    assert [(e.step, e.value) for e in events.Scalars("b")] == [(640, 7.0)]


def test_curves_by_step_become_one_image(tmp_path: Path) -> None:
    """The image of two estimators' curves differs from the image of one of them."""
    curve = torch.tensor([1.0, 10.0, 100.0])
    with RunWriter(tmp_path) as writer:
        scalars = writer.write(
            {
                "loss": torch.tensor(1.0),
                "gradient/by_step/pathwise": curve,
                "gradient/by_step/score_function": 10 * curve,
            },
            64,
        )
        writer.write({"loss": torch.tensor(1.0), "gradient/by_step/pathwise": curve}, 128)
    assert scalars == {"loss": 1.0}
    both, one = read(tmp_path).Images("gradient/by_step")
    assert (both.step, one.step) == (64, 128)
    assert both.encoded_image_string != one.encoded_image_string
    file = tmp_path / "image.png"
    file.write_bytes(both.encoded_image_string)
    assert np.asarray(Image.open(file)).std() > 0


def test_curves_of_a_pair_have_images_of_their_own(tmp_path: Path) -> None:
    """Also where they are negative; a curve of NaN has none."""
    cosine, nan = torch.tensor([0.5, -0.25, 1.0]), torch.full((3,), float("nan"))
    with RunWriter(tmp_path) as writer:
        writer.write({"gradient/critic/cosine_by_step": cosine}, 1)
        writer.write({"gradient/critic/cosine_by_step": -cosine}, 2)
        writer.write({"gradient/critic/bias_by_step": 30 * cosine}, 1)
        writer.write({"gradient/bias_by_step": nan}, 1)
    events = read(tmp_path)
    assert {*events.Tags()["images"]} == {
        f"gradient/critic/{x}_by_step" for x in ("cosine", "bias")
    }
    one, other = events.Images("gradient/critic/cosine_by_step")
    assert one.encoded_image_string != other.encoded_image_string


def test_a_curve_without_a_positive_number_draws_nothing(tmp_path: Path) -> None:
    """Such a curve has no logarithm, so no image is written."""
    with RunWriter(tmp_path) as writer:
        for curve in (torch.zeros(3), torch.full((3,), float("nan"))):
            writer.write({"x": torch.tensor(1.0), "gradient/by_step/pathwise": curve}, 1)
    assert read(tmp_path).Tags()["images"] == []


def test_metrics_may_be_curves_only(tmp_path: Path) -> None:
    """Metrics of curves alone give no scalars and one image."""
    with RunWriter(tmp_path) as writer:
        assert writer.write({"gradient/by_step/pathwise": torch.ones(3)}, 1) == {}
    assert read(tmp_path).Tags()["images"] == ["gradient/by_step"]


def test_the_beginning_of_a_run_is_documented(tmp_path: Path) -> None:
    """Definitions of the tags, and every setting."""
    with RunWriter(tmp_path) as writer:
        writer.begin(SETTINGS)
    events = read(tmp_path)
    definitions = text(events, "tags")
    assert all(f"`{tag}`" in definitions for tag in DEFINITIONS)
    config = text(events, "settings")
    assert all(f"| {key} | {value} |" in config for key, value in SETTINGS.items())


def test_runs_side_by_side_define_the_tags_once(tmp_path: Path) -> None:
    """The first one does, and the others name it; without it the next one does, also resumed."""
    first, second, third = (tmp_path / name for name in ("b", "a", "c"))
    for path in (first, second):
        path.mkdir()
        with RunWriter(path) as writer:
            writer.begin(SETTINGS)
    assert "tags" in read(first).Tags()["tensors"]
    assert "tags" not in read(second).Tags()["tensors"]
    assert "in the text *tags* of the run b" in text(read(second), "settings")
    assert (first / "tags.md").read_text() == definitions_text()
    shutil.rmtree(first)
    third.mkdir()
    for path in (third, second, third):
        with RunWriter(path) as writer:
            writer.begin(SETTINGS)
    assert "tags" in read(third).Tags()["tensors"]
    assert "tags" not in read(second).Tags()["tensors"]


def test_the_definitions_replace_a_link_and_do_not_follow_it(tmp_path: Path) -> None:
    path, outside = tmp_path / "run", tmp_path / "mine"
    path.mkdir()
    outside.write_text("mine")
    (path / "tags.md").symlink_to(outside)
    with RunWriter(path) as writer:
        writer.begin(SETTINGS)
    assert outside.read_text() == "mine"
    assert (path / "tags.md").read_text() == definitions_text()
    assert not (path / "tags.md").is_symlink()


def text(events: Any, tag: str) -> str:
    (event,) = events.Tensors(tag)
    return str(event.tensor_proto.string_val[0].decode())


def test_text_comes_back_at_its_step(tmp_path: Path) -> None:
    with RunWriter(tmp_path) as writer:
        writer.write_text("diagnosis", "At step 64:\n\n- One.", 64)
    events = read(tmp_path)
    (event,) = events.Tensors("diagnosis")
    assert event.step == 64 and text(events, "diagnosis").endswith("- One.")


def test_hyperparameters_show_in_their_tab(tmp_path: Path) -> None:
    """The experiment with its metrics, the session's start with the settings, and its end."""
    from tensorboard.plugins.hparams import plugin_data_pb2

    with RunWriter(tmp_path) as writer:
        writer.begin(SETTINGS)
        writer.end()
    content = read(tmp_path).summary_metadata
    found = {}
    for tag, metadata in content.items():
        if metadata.plugin_data.plugin_name == "hparams":
            found[tag] = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    experiment = found["_hparams_/experiment"].experiment
    assert {info.name.tag for info in experiment.metric_infos} == set(HPARAM_METRICS)
    assert {info.name for info in experiment.hparam_infos} == {*SETTINGS, "estimator", "changed"}
    start = found["_hparams_/session_start_info"].session_start_info.hparams
    assert start["gamma"].number_value == 0.99
    assert start["agent"].string_value == "shac"
    assert start["estimator"].string_value == "score_function"  # followed, though no setting
    assert start["normalize"].number_value == 1  # torch writes a flag as a number
    assert start["hidden"].string_value == "(64, 64)"
    assert "_hparams_/session_end_info" in found


def test_the_table_of_runs_has_what_differs_from_the_defaults() -> None:
    """And what tells runs apart in any case; a setting without a default too."""
    settings = {"agent": "shac", "seed": 0, "gamma": 0.9, "n_steps": 32, "env": "a", "mine": 1}
    settings |= {"eval_episodes": 20, "eval_interval": 40_000}  # these change no training
    defaults = {"seed": 0, "gamma": 0.99, "n_steps": 32}
    expected = {"agent": "shac", "seed": 0, "gamma": 0.9, "env": "a", "mine": 1}
    assert differing(settings, defaults) == expected


def test_one_column_of_the_table_of_runs_has_all_that_was_changed() -> None:
    """TensorBoard has the columns of one run alone; agent and environment are in all of them."""
    settings = {"agent": "shac", "env": "/tmp/mine/wind.py:Wind", "seed": 0, "gamma": 0.9}
    settings = {"env_kwargs": {"wind": 3.0}, "n_steps": 32} | settings
    found = hyperparameters(settings, {"gamma": 0.99, "n_steps": 32, "env_kwargs": {}}, "pathwise")
    assert found == {
        "agent": "shac",
        "env": "wind.py:Wind",
        "seed": 0,
        "estimator": "pathwise",
        "gamma": 0.9,
        "env_kwargs": "{'wind': 3.0}",
        "changed": "gamma=0.9, env_kwargs={'wind': 3.0}",
    }


def test_the_custom_tab_and_its_scalars_are_written(tmp_path: Path) -> None:
    """The scalars for the page are in the file, and not among those that ``write`` returns."""
    with RunWriter(tmp_path) as writer:
        writer.begin(SETTINGS | {"estimator": "pathwise"})
        metrics = {"gradient/pathwise/variance": 100.0, "gradient/pathwise/snr": 0.1}
        found = writer.write({tag: torch.tensor(x) for tag, x in metrics.items()}, 1)
    assert found == pytest.approx(metrics)
    events = read(tmp_path)
    assert "custom_scalars__config__" in events.Tags()["tensors"]
    (snr,) = events.Scalars("gradient/followed/log10_snr")
    assert snr.value == pytest.approx(-1)
    assert events.Scalars("gradient/pathwise/log10_variance")[0].value == pytest.approx(2)


def test_a_resumed_run_voids_what_the_crash_left_behind(tmp_path: Path) -> None:
    """Rows from the step that it resumes at are not shown twice."""
    with RunWriter(tmp_path) as writer:
        for step in (64, 128, 192):
            writer.write({"x": torch.tensor(float(step))}, step)
    # Event files are read in the order of their names. Both would be made in one second here, in
    # which the first one has the later name, as file 9 has beside file 10.
    (file,) = tmp_path.iterdir()
    file.rename(tmp_path / f"events.out.tfevents.{file.name.split('.')[3]}.zzz")
    with RunWriter(tmp_path, purge_step=129) as writer:
        writer.write({"x": torch.tensor(-1.0)}, 192)
    assert [(e.step, e.value) for e in read(tmp_path).Scalars("x")] == [
        (64, 64.0),
        (128, 128.0),
        (192, -1.0),
    ]


@pytest.mark.parametrize("tag", ["rollout/success_rate", "eval/success_rate"])
def test_the_page_has_the_success_rate_once_there_is_one(tag: str, tmp_path: Path) -> None:
    """TensorBoard takes the last layout of a run."""

    def layouts() -> list[bool]:
        events = read(tmp_path).Tensors("custom_scalars__config__")
        return [b"success_rate" in event.tensor_proto.string_val[0] for event in events]

    with RunWriter(tmp_path) as writer:
        writer.begin(SETTINGS)
        writer.write({"eval/mean_reward": torch.tensor(1.0)}, 1)
        writer.flush()
        assert layouts() == [False]
        for step in (2, 3):
            writer.write({tag: torch.tensor(0.5)}, step)
    assert layouts() == [False, True]
