"""Files of exported policies: every head in both formats, and what the files say."""

import importlib.util
import io
import json
import logging
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from pgtoolkit.errors import RequestError
from pgtoolkit.policies.action_graph import ActionGraph, observation_dtype
from pgtoolkit.scripts.exporting import formats
from pgtoolkit.scripts.exporting.formats import FORMATS, Format, quiet, require_packages
from pgtoolkit.scripts.exporting.verification import TOLERANCE, compare
from tests.policies.exported_policies import CASES, Case, shaken_policy, wide_observations

MISSING = [name for name in FORMATS[".onnx"].packages if not importlib.util.find_spec(name)]
needs_onnx = pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} are not installed")
BOTH = [pytest.param(".onnx", marks=needs_onnx), ".pt2"]
METADATA: dict[str, Any] = {"env": "Some-v0", "num_steps": None, "observation": {"low": [0.5]}}


def encoded(case: Case, wanted: Format) -> bytes:
    graph = ActionGraph(shaken_policy(case), case.observation_space, case.action_space)
    example = wide_observations(case, shaken_policy(case), 2).to(graph.observation_dtype)
    return wanted.encode(graph, example, METADATA)


@pytest.mark.parametrize("suffix", BOTH)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_policy_acts_as_the_agent_does(case: Case, suffix: str) -> None:
    """On 1,000 observations far and wide, whatever their number; the file names no folder."""
    policy, content = shaken_policy(case), encoded(case, FORMATS[suffix])
    act, dtype = FORMATS[suffix].load(content), observation_dtype(case.observation_space)
    observations = wide_observations(case, policy)
    found = compare(policy, act, [observations], case.action_space, dtype)
    assert found.largest <= TOLERANCE and found.rounding < 2 * TOLERANCE
    rows = observations.numpy().astype(dtype)
    assert len(act(rows[:7])) == 7
    np.testing.assert_allclose(act(rows[:7]), act(rows)[:7], rtol=0, atol=1e-5)
    assert b"action_graph.py" not in content


@needs_onnx
def test_an_onnx_file_names_its_input_output_and_metadata() -> None:
    import onnxruntime

    content = encoded(CASES["images, channels last"], FORMATS[".onnx"])
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (first,), (second,) = session.get_inputs(), session.get_outputs()
    assert (first.name, first.shape, first.type) == (
        "observation",
        ["N", 16, 20, 3],
        "tensor(uint8)",
    )
    assert (second.name, second.shape, second.type) == ("action", ["N", 2], "tensor(float)")
    found = session.get_modelmeta().custom_metadata_map
    assert found == {"env": "Some-v0", "num_steps": "null", "observation": '{"low": [0.5]}'}


def test_a_pt2_file_has_the_metadata() -> None:
    content, files = encoded(CASES["gaussian"], FORMATS[".pt2"]), {"metadata.json": ""}
    with quiet():
        torch.export.load(io.BytesIO(content), extra_files=files)
    assert json.loads(files["metadata.json"]) == METADATA


@needs_onnx
def test_a_policy_above_the_limit_of_onnx_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_ONNX_BYTES", 100)
    with pytest.raises(RequestError, match=r"at most 2 GiB: give --output FILE\.pt2"):
        encoded(CASES["gaussian"], FORMATS[".onnx"])


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    wanted = FORMATS[".onnx"]._replace(packages=("json", "no_such_package"))
    with pytest.raises(RequestError, match=r"needs no_such_package: python -m pip install "):
        require_packages(wanted)
    require_packages(FORMATS[".pt2"])


def test_the_exporters_warnings_are_left_out_and_others_are_not() -> None:
    log = logging.getLogger("torch.onnx")
    before = log.level
    with quiet():
        warnings.warn("an exporter's", stacklevel=1)
        assert not log.isEnabledFor(logging.WARNING)
    assert log.level == before
    with pytest.warns(UserWarning, match="another"):
        warnings.warn("another", stacklevel=1)
