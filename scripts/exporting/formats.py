"""The two formats of an exported policy: how its bytes are made, and how they are run again."""

import contextlib
import importlib
import io
import itertools
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgtoolkit.errors import RequestError
from pgtoolkit.extras import install_command
from pgtoolkit.policies.action_graph import ActionGraph

INPUT, OUTPUT = "observation", "action"
"""Names of the graph's input and output."""

METADATA_FILE = "metadata.json"
"""The file in a .pt2 archive that holds the metadata."""

MAX_ONNX_BYTES = 2**31 - 2**24
"""Parameters that one .onnx file can hold: protobuf's limit is 2 GiB, less some for the graph."""

Metadata: TypeAlias = Mapping[str, Any]
"""Name to text, or to a value that JSON can hold."""

Act: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]
"""Maps observations ``[N, O]`` in the graph's dtype to actions ``[N, A]``."""


@final
class Format(NamedTuple):
    """A file format of exported policies."""

    runtime: str
    """The package that runs such files."""
    packages: tuple[str, ...]
    """The packages of the extra ``export`` that writing needs."""
    encode: Callable[[ActionGraph, Tensor, Metadata], bytes]
    """``(graph, observations [2, O], metadata)`` to the file's content."""
    load: Callable[[bytes], Act]
    """The file's content to the function that it holds."""


def require_packages(wanted: Format) -> None:
    """Checks that the packages which a format needs are installed.

    Raises:
        RequestError: one is missing; the message has the command that installs it.
    """
    for name in wanted.packages:
        try:
            with quiet():
                importlib.import_module(name)
        except ImportError as error:
            raise RequestError(
                f"exporting to .onnx needs {name}: {install_command('export')} (or give "
                "--output FILE.pt2, which needs torch alone)"
            ) from error


def encode_pt2(graph: ActionGraph, observations: Tensor, metadata: Metadata) -> bytes:
    """The content of a ``torch.export`` archive; the number of observations is not fixed.

    The places in source files that made it, which name folders of this machine, are left out.
    """
    file = io.BytesIO()
    with quiet():
        program = torch.export.export(
            graph, (observations,), dynamic_shapes={INPUT: {0: torch.export.Dim("N")}}
        )
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
        extra = {METADATA_FILE: json.dumps(metadata, allow_nan=False)}
        torch.export.save(program, file, extra_files=extra)
    return file.getvalue()


def load_pt2(content: bytes) -> Act:
    """The function that a ``torch.export`` archive holds."""
    with quiet():
        module = torch.export.load(io.BytesIO(content)).module()

    def act(observations: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            found: NDArray[Any] = module(torch.from_numpy(observations)).numpy()
        return found

    return act


def encode_onnx(graph: ActionGraph, observations: Tensor, metadata: Metadata) -> bytes:
    """The content of an ONNX model; the number of observations is not fixed.

    Its metadata are those that are given. The exporter's own, such as the places in source files
    that made each node, which name folders of this machine, are left out.

    Raises:
        RequestError: the policy is too large for one file.
    """
    size = sum(x.numel() * x.element_size() for x in graph.state_dict().values())
    if size > MAX_ONNX_BYTES:
        raise RequestError(
            f"the policy has {size:,} bytes, and an .onnx file at most 2 GiB: give --output "
            "FILE.pt2"
        )
    with quiet():
        program = torch.onnx.export(
            graph,
            (observations,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: torch.export.Dim("N")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None, "the exporter that is used returns a program"
    model = program.model_proto  # made anew whenever it is asked for
    inner = model.graph
    parts = (inner.node, inner.input, inner.output, inner.value_info, inner.initializer)
    for part in itertools.chain([model, inner], *parts):
        part.ClearField("metadata_props")
    for name, value in metadata.items():
        text = value if isinstance(value, str) else json.dumps(value, allow_nan=False)
        model.metadata_props.add(key=name, value=text)
    content: bytes = model.SerializeToString()
    return content


def load_onnx(content: bytes) -> Act:
    """The function that an ONNX model holds, run by onnxruntime on one CPU thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def act(observations: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(session.run([OUTPUT], {INPUT: observations})[0])

    return act


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """A context without the exporters' own warnings: of deprecated calls, of missing torchvision.

    What they write is checked afterwards.
    """
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


FORMATS = {
    ".onnx": Format("onnxruntime", ("onnx", "onnxscript", "onnxruntime"), encode_onnx, load_onnx),
    ".pt2": Format("torch.export", (), encode_pt2, load_pt2),
}
"""The format of each suffix."""
