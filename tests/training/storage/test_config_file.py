"""Configurations: plain values come back as they were, and nothing else is made of a file."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pgtoolkit.errors import RequestError
from pgtoolkit.training.storage import config_file
from pgtoolkit.training.storage.config_file import MAX_CONFIG_BYTES, config_text, read_config


def read(text: str | bytes, folder: Path) -> dict[Any, Any]:
    path = folder / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_config(path)


def test_plain_values_come_back_as_they_were(tmp_path: Path) -> None:
    """Numbers to the last bit, text that looks like something else, empty and nested values."""
    config = {
        "numbers": [0, -1, 2**70, 0.1 + 0.2, 3e-5, 5e-324, float("inf")],
        "text": ["", "no", "1", "1e5", "2024-01-01", "*a", "&a", "!x", "é\n\u2028\U0001f600", "~"],
        "other": [None, True, False, [], {}, [[1], {"a": {"b": []}}]],
    }
    assert read(config_text(config), tmp_path) == config


def test_a_list_that_occurs_twice_is_written_out_twice(tmp_path: Path) -> None:
    """YAML would write a reference, which is not read."""
    shared = [1, 2]
    assert read(config_text({"a": shared, "b": shared}), tmp_path) == {"a": [1, 2], "b": [1, 2]}


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)
)

REFUSED: dict[str, tuple[str | bytes, str]] = {
    "alias bomb": (BOMB, "line 2 has a reference"),
    "itself": ("&a {agent: *a}", "reference"),
    "merged": ("a: {b: 1}\n<<: {c: 2}", "merge"),
    "lists": ("[" * 3000, "nested more than 50"),
    "mappings": ("{a: " * 3000, "nested more than 50"),
    "indented": ("\n".join(" " * i + "a:" for i in range(600)), "nested more than 50"),
    "in a key": ("? " * 3000 + "a", "nested more than 50"),
    "object": ("a: !!python/object/apply:os.system ['x']", "python/object"),
    "name": ("a: !!python/name:os.system ''", "python/name"),
    "date": ("a: {b: 2024-01-01}", "a.b in line 1 is a timestamp"),
    "set": ("a: !!set {b}", "a in line 1 is a set"),
    "binary": ("a: !!binary aGVsbG8=", "binary"),
    "pairs": ("a: !!omap [b: 1]", "omap"),
    "wrong kind": ("a: !!map [1]", "map"),
    "no number": ("a: !!int x", "a in line 1"),
    "long number": ("a: " + "9" * 5000, "5,000 digits"),
    "long base 60": ("a: 1" + ":59" * 50_000, "digits"),
    "key twice": ("env: a\nenv: b", "gives env a second time"),
    "list as key": ("? [1]\n: 2", "as a key"),
    "two documents": ("a: 1\n---\nb: 2", "cannot be read"),
    "not text": (b"a: \xff", "cannot be read"),
    "null character": ("a: \0", "cannot be read"),
    "too many": ("a: [" + "1," * 120_000 + "]", "more than 20,000 values"),
    "too long": ("a: " + "x" * MAX_CONFIG_BYTES, "at most"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_mapping_is_refused_at_once(name: str, tmp_path: Path) -> None:
    """In one line that names the file, and long before it could fill the memory."""
    text, reason = REFUSED[name]
    began = time.process_time()
    with pytest.raises(RequestError) as caught:
        read(text, tmp_path)
    message = str(caught.value)
    assert reason in message and "config.yaml" in message
    assert "\n" not in message and len(message) < 1000
    assert time.process_time() - began < 2


def test_the_loader_without_libyaml_refuses_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyYAML may be installed without its C part."""
    monkeypatch.setattr(config_file, "LOADER", yaml.SafeLoader)
    for name, (text, reason) in REFUSED.items():
        if name != "too long":
            with pytest.raises(RequestError, match=reason):
                read(text, tmp_path)
    assert read("a: [1, 2.5, x]\nb: {c: ~}", tmp_path) == {"a": [1, 2.5, "x"], "b": {"c": None}}


def test_a_configuration_that_could_not_be_read_again_is_not_written() -> None:
    """The message says where long arguments belong."""
    with pytest.raises(RequestError, match="keep long arguments in a file"):
        config_text({"env_kwargs": list(range(20_000))})
