"""Damage to the folder of a run: to the bytes, numbers, tensors, texts and kinds of its files.

A damage to a checkpoint has two variants: with the checksum that the file had, and with a right
one, so that what is compared behind the checksum is reached too.
"""

import copy
import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint

Mutation = Callable[[Path, random.Random], str]
"""Damages the run in a folder; says how, in a few words. A folder ``elsewhere`` is beside it."""

CHECKPOINTS = ("resume.safetensors", "resume.safetensors", "policy/best.safetensors")
"""Files that are damaged, the most important one more often."""
TEXTS = ("config.yaml", "config.yaml", "summary.json")
CHECKSUM = re.compile(rb'("checksum": ?")([0-9a-f]{64})"')

WEIRD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(10**9), 10**30, 0.5, -0.5, 1e308, 1e-300),
    *(float("nan"), float("inf"), -float("inf"), "", "x", "é\u202e", "a" * 5000, "\x00", "16"),
    *([], [1], [[]], {}, {"a": 1}, "nan", "None", "--help", "1e400", "../../etc/passwd"),
)
"""Values that replace others in a state."""
SMALL = tuple(x for x in WEIRD if not (isinstance(x, int | float) and abs(x) > 1e3))
"""Those that ask for no endless run or all of the memory where they are settings."""
DTYPES = (torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool)


# Checkpoints --------------------------------------------------------------------------------------


def checkpoints_of(run: Path) -> tuple[str, ...]:
    """The checkpoints that are damaged: :data:`CHECKPOINTS`, and the files of a replay buffer."""
    return (*CHECKPOINTS, *sorted(path.name for path in run.glob("replay-*.safetensors")))


def sealed(data: bytes) -> bytes:
    """A checkpoint's bytes with the checksum that belongs to them, if they have one."""
    found = CHECKSUM.search(data[:1000])
    if found is None:
        return data
    start, end = found.span(2)
    without = data[:start] + b"0" * (end - start) + data[end:]
    return data[:start] + hashlib.sha256(without).hexdigest().encode() + data[end:]


def damage_bytes(run: Path, rng: random.Random) -> str:
    """Bytes of a file changed, inserted, removed or cut off."""
    path = run / rng.choice(checkpoints_of(run) + TEXTS)
    path.write_bytes(scrambled(path.read_bytes(), rng))
    return str(path.relative_to(run))


def damage_header(run: Path, rng: random.Random) -> str:
    """Bytes of a checkpoint's header, where names, shapes and all that is no tensor are."""
    path = run / rng.choice(checkpoints_of(run))
    data = path.read_bytes()
    size = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(scrambled(data[:size], rng) + data[size:])
    return str(path.relative_to(run))


def damage_entries(run: Path, rng: random.Random) -> str:
    """An entry of the header's JSON: a tensor's dtype, shape or place, or the notes."""
    path = run / rng.choice(checkpoints_of(run))
    header, tensors = _parts(path.read_bytes())
    changed, what = changed_value(header, rng, WEIRD)
    path.write_bytes(_joined(changed, tensors))
    return f"{path.relative_to(run)}: {what}"


def damage_skeleton(run: Path, rng: random.Random) -> str:
    """A value of the JSON that describes the nested state."""
    path = run / rng.choice(checkpoints_of(run))
    header, tensors = _parts(path.read_bytes())
    changed, what = changed_value(json.loads(header["__metadata__"]["state"]), rng, WEIRD)
    header["__metadata__"]["state"] = json.dumps(changed)
    path.write_bytes(_joined(header, tensors))
    return f"{path.relative_to(run)}: {what}"


def with_checksum(mutation: Mutation) -> Mutation:
    """The same damage with a right checksum."""

    def mutate(run: Path, rng: random.Random) -> str:
        what = mutation(run, rng)
        for path in {run / name for name in CHECKPOINTS}:
            path.write_bytes(sealed(path.read_bytes()))
        return what

    return mutate


def damage_state(run: Path, rng: random.Random) -> str:
    """A value of the state replaced, removed, renamed or added; the file is a right one."""
    return _packed_anew(run, rng, lambda state: changed_value(state, rng, WEIRD))


def damage_tensor(run: Path, rng: random.Random) -> str:
    """A tensor of another dtype, shape or content; the file is a right one."""

    def change(state: Any) -> tuple[Any, str]:
        places = [place for place in places_of(state) if isinstance(at(state, place), Tensor)]
        place = rng.choice(places)
        new, what = changed_tensor(at(state, place), rng)
        return replaced(state, place, new), f"{_text(place)} {what}"

    return _packed_anew(run, rng, change)


def _packed_anew(run: Path, rng: random.Random, change: Callable[[Any], tuple[Any, str]]) -> str:
    path = run / rng.choice(checkpoints_of(run))
    state, what = change(load_checkpoint(path))
    # What is no dictionary, or holds what no checkpoint can, is no state to be saved.
    save_checkpoint(path, state if isinstance(state, dict) else {"agent": state})
    return f"{path.relative_to(run)}: {what}"


def _parts(data: bytes) -> tuple[Any, bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def _joined(header: Any, tensors: bytes) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + tensors


# Texts and kinds of files -------------------------------------------------------------------------


def damage_setting(run: Path, rng: random.Random) -> str:
    """A setting in ``config.yaml`` replaced, removed, renamed or added."""
    path = run / "config.yaml"
    changed, what = changed_value(yaml.safe_load(path.read_text(encoding="utf-8")), rng, SMALL)
    path.write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
    return f"config.yaml: {what}"


def damage_kind(run: Path, rng: random.Random) -> str:
    """A file replaced by a link, a FIFO, a folder, a device or nothing, or given away."""
    names = [str(path.relative_to(run)) for path in sorted(run.rglob("*"))]
    temporary = [f"{name}.tmp" for name in (*CHECKPOINTS, "policy/last.safetensors", *TEXTS)]
    path, kind = run / rng.choice([*names, *temporary]), rng.choice(sorted(KINDS))
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    KINDS[kind](path, run.parent / "elsewhere")
    return f"{path.relative_to(run)} is {kind}"


KINDS: dict[str, Callable[[Path, Path], object]] = {
    "nothing": lambda path, outside: None,
    "a FIFO": lambda path, outside: os.mkfifo(path),
    "a folder": lambda path, outside: path.mkdir(),
    "a link to a file outside": lambda path, outside: path.symlink_to(outside / "file"),
    "a link to a folder outside": lambda path, outside: path.symlink_to(outside),
    "a link to what does not exist": lambda path, outside: path.symlink_to(outside / "absent"),
    "a link to itself": lambda path, outside: path.symlink_to(path.name),
    "a link to /dev/zero": lambda path, outside: path.symlink_to("/dev/zero"),
    "a link to /dev/full": lambda path, outside: path.symlink_to("/dev/full"),
    "empty": lambda path, outside: path.write_bytes(b""),
}
"""What a path can be made into, given a folder outside of the run."""


# Values -------------------------------------------------------------------------------------------

Place = tuple[Any, ...]
"""Keys and indices that lead to a value of a nested state."""


def places_of(value: Any, place: Place = ()) -> Iterator[Place]:
    """The places of a value and of all that it holds."""
    yield place
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places_of(item, (*place, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from places_of(item, (*place, index))


def at(value: Any, place: Place) -> Any:
    """The value at a place."""
    for key in place:
        value = value[key]
    return value


def replaced(value: Any, place: Place, new: Any) -> Any:
    """A copy with another value at a place."""
    if not place:
        return new
    changed = copy.copy(value) if isinstance(value, dict) else list(value)
    changed[place[0]] = replaced(value[place[0]], place[1:], new)
    return tuple(changed) if isinstance(value, tuple) else changed


def changed_value(value: Any, rng: random.Random, weird: tuple[Any, ...]) -> tuple[Any, str]:
    """A copy with one value replaced, removed, renamed, doubled or added; says which."""
    place = rng.choice(list(places_of(value)))
    if not place or rng.random() < 0.6:
        new = rng.choice(weird)
        return replaced(value, place, new), f"{_text(place)} = {ascii(new)[:30]}"
    parent = at(value, place[:-1])
    changed, what = changed_container(parent, place[-1], rng, weird)
    return replaced(value, place[:-1], changed), f"{_text(place)} {what}"


def changed_container(
    parent: Any, key: Any, rng: random.Random, weird: tuple[Any, ...]
) -> tuple[Any, str]:
    """A dictionary, list or tuple with its entry ``key`` removed, renamed, doubled or moved."""
    kind = rng.choice(("removed", "renamed", "added"))
    if isinstance(parent, dict):
        items = {k: v for k, v in parent.items() if kind == "added" or k != key}
        new = {"renamed": parent[key], "added": rng.choice(weird)}
        more = {str(rng.choice(weird))[:40]: new[kind]} if kind in new else {}
        return items | more, kind
    entries = list(parent)
    if kind == "removed":
        del entries[key]
    else:
        entries.insert(rng.randrange(len(entries) + 1), rng.choice([parent[key], *weird]))
    return type(parent)(entries), kind


def changed_tensor(tensor: Tensor, rng: random.Random) -> tuple[Tensor, str]:
    """A tensor of another dtype, shape or content; says which."""
    kind = rng.choice(("dtype", "axis", "one number", "longer", "turned", "fill", "entry"))
    flat = tensor.flatten()
    if kind == "dtype":
        dtype = rng.choice(DTYPES)
        return tensor.to(dtype), str(dtype)
    if kind in ("fill", "entry"):
        return _filled(tensor, rng, whole=kind == "fill")
    shapes: dict[str, Tensor] = {
        "axis": tensor[None],
        "one number": flat[:1],
        "longer": torch.cat([flat, flat]),
        "turned": tensor.movedim(0, -1).contiguous() if tensor.dim() else flat,
    }
    return shapes[kind].clone(), f"of shape {list(shapes[kind].shape)}"


def _filled(tensor: Tensor, rng: random.Random, *, whole: bool) -> tuple[Tensor, str]:
    number = rng.choice((float("nan"), float("inf"), -1.0, 0.0, 1e38, 127.0))
    changed = tensor.clone()
    if not tensor.is_floating_point():
        number = rng.choice((-1, 0, 1, 127, 2**31 - 1))
        number = bool(number) if tensor.dtype == torch.bool else number % 256
    if whole or tensor.numel() == 0:
        return changed.fill_(number), f"filled with {number}"
    changed.view(-1)[rng.randrange(tensor.numel())] = number
    return changed, f"with an entry {number}"


def scrambled(data: bytes, rng: random.Random) -> bytes:
    """Bytes of which one to twenty are changed, inserted, removed, or all after one cut off."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 3, 20))):
        if not found:
            break
        kind, place = rng.random(), rng.randrange(len(found))
        if kind < 0.6:
            found[place] = rng.randrange(256)
        elif kind < 0.75:
            del found[place : place + rng.choice((1, 5, 100))]
        elif kind < 0.9:
            found[place:place] = rng.randbytes(rng.choice((1, 4)))
        else:
            del found[place:]
    return bytes(found)


def _text(place: Place) -> str:
    return "/".join(map(str, place)) or "the whole"


MUTATIONS: dict[str, tuple[int, Mutation]] = {
    "bytes": (2, damage_bytes),
    "bytes, right checksum": (2, with_checksum(damage_bytes)),
    "header": (1, damage_header),
    "header, right checksum": (2, with_checksum(damage_header)),
    "entries": (1, damage_entries),
    "entries, right checksum": (2, with_checksum(damage_entries)),
    "skeleton": (1, damage_skeleton),
    "skeleton, right checksum": (3, with_checksum(damage_skeleton)),
    "state": (6, damage_state),
    "tensor": (6, damage_tensor),
    "setting": (4, damage_setting),
    "kind of file": (3, damage_kind),
}
"""Each kind of damage with its weight in the draw."""


def damage(run: Path, rng: random.Random) -> tuple[str, str]:
    """Damages a run in a random way; returns the kind and what was done.

    Half of the time older checkpoints are removed, so that none can stand in for a damaged one.
    """
    kinds = list(MUTATIONS)
    kind = rng.choices(kinds, [MUTATIONS[name][0] for name in kinds])[0]
    if rng.random() < 0.5:
        for path in run.glob("resume-*.safetensors"):
            path.unlink()
    while True:
        try:
            return kind, MUTATIONS[kind][1](run, rng)
        except (ValueError, TypeError, RuntimeError):
            continue  # a checkpoint or a YAML file cannot hold the drawn value
