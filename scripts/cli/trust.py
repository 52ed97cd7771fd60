"""Names in a run's folder that stand for code, and whether this user trained with them.

An environment ``file.py:Class`` or ``module:Id``, a torso ``file.py:function`` and an agent of the
user's own, ``file.py:Class``, are Python code that runs when they are loaded, and a folder that
somebody else made may name any. So `pgtoolkit
train` signs the names with a key of this user, and the commands that read a folder load names only
if they are signed, given on the command line, or trusted by a flag.
"""

import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import flag_name, parse_json_object
from pgtoolkit.scripts.cli.formatting import join_names
from pgtoolkit.training.storage.files import (
    excerpt,
    open_folder,
    open_regular,
    remove,
    system_reason,
    write_unfinished,
)

if TYPE_CHECKING:
    from pgtoolkit.scripts.cli.experiment import RunSettings

LOG = logging.getLogger("pgtoolkit")

SIGNATURE = "signed"
"""The key of ``config.yaml`` under which the signature stands."""

KEY_BYTES = 32

OTHER_ENV = ", or name an environment with --env"
"""Advice of commands that have this flag."""

ARGUMENTS = ("env_kwargs", "adapter_kwargs", "gym_wrappers", "wrappers")
"""Fields of a ``RunConfig`` whose JSON may name code, such as a wrapper class or a cost."""


def code_names(env: str, **arguments: str) -> frozenset[str]:
    """The names of an environment and its arguments that stand for code.

    Every text with a colon or ``.py`` counts, wherever it stands: ``file.py:Class``, ``module:Id``,
    ``module:function``. Some of them, such as ``cuda:0``, name no code and do no harm here. Paths
    become absolute, because the same relative path is another file in another folder.

    Args:
        env: the environment's name.
        arguments: JSON objects by the name of their field, such as ``env_kwargs``.

    Raises:
        RequestError: an argument is not a JSON object.
    """
    from pgtoolkit.scripts.cli.experiment import absolute_path

    parsed = [parse_json_object(text, flag_name(name)) for name, text in arguments.items()]
    texts = [text for value in [env, *parsed] for text in _texts(value)]
    return frozenset(absolute_path(text) for text in texts if _may_name_code(text))


def names_of(options: Any) -> frozenset[str]:
    """:func:`code_names` of a run's settings, or of a command's options where None is nothing."""
    return code_names(
        options.env or "", **{name: getattr(options, name, None) or "{}" for name in ARGUMENTS}
    )


def names_in(config: Mapping[str, Any]) -> frozenset[str]:
    """All names in a run's configuration that stand for code.

    Args:
        config: as ``config.yaml`` holds it, see ``RunSettings.as_dict``; it may lack any entry.
    """
    from pgtoolkit.scripts.cli.experiment import absolute_path

    entries = [config.get(name) for name in ("env", "torso", "agent", *ARGUMENTS)]
    texts = [text for entry in entries for text in _texts(entry)]
    return frozenset(absolute_path(text) for text in texts if _may_name_code(text))


def always_loaded(config: Mapping[str, Any]) -> frozenset[str]:
    """Those of :func:`names_in` that every command loads: the policy's hidden layers, the agent."""
    return names_in({name: config.get(name) for name in ("torso", "agent")})


def signature(settings: "RunSettings") -> dict[str, str]:
    """The entry for ``config.yaml`` that says who trained with the names; empty without names.

    It is empty too, and a warning says so, where the user's key can be neither read nor made.
    """
    names = names_in(settings.as_dict())
    if not names:
        return {}
    try:
        return {SIGNATURE: _sign(names, _read_or_make_key())}
    except (OSError, RuntimeError, RequestError) as error:
        reason = system_reason(error) if isinstance(error, OSError) else excerpt(error)
        LOG.warning(
            "the run names code (%s), and it cannot be signed as yours (%s): commands "
            "that read the run will need --trust",
            excerpt(join_names(sorted(names))),
            reason,
        )
        return {}


def settings_of_run(config: Mapping[str, Any], *, command: str, trust: bool) -> "RunSettings":
    """The settings in a run's folder. Those of an agent of the user's own are its class's.

    Args:
        config: the folder's configuration.
        command: the command that reads it, for messages.
        trust: whether code that the folder names is run though this user did not train with it.

    Raises:
        RequestError: the agent is code, and the folder is not signed by this user; or a setting is
            wrong.
    """
    from pgtoolkit.scripts.cli.experiment import settings_from_file

    if not trust:
        require_signed(config, ())
    return settings_from_file(config, [], command=command)


def require_signed(config: Mapping[str, Any], names: Collection[str], advice: str = "") -> None:
    """Checks that this user trained with the names that a run's folder gives.

    Args:
        config: the folder's configuration. The policy's hidden layers, and the agent if it is
            code, are always going to be loaded.
        names: the other names in it that are going to be loaded.
        advice: what else the user can do than trust the folder, if these are all.

    Raises:
        RequestError: names are going to be loaded, and the folder is not signed by this user.
    """
    always = always_loaded(config)
    loaded = always.union(names)
    if loaded and not _is_signed(names_in(config), config.get(SIGNATURE)):
        raise RequestError(
            f"the run names code, {excerpt(join_names(sorted(loaded)))}, and was not trained here "
            "by you: loading it runs that code. Read the code, then give --trust"
            f"{'' if always else advice}"
        )


def key_file() -> Path:
    """The user's key: ``pgtoolkit/signing.key`` in ``$XDG_STATE_HOME`` or ``~/.local/state``.

    Raises:
        RuntimeError: the user has no home.
    """
    given = os.environ.get("XDG_STATE_HOME", "")
    state = Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state"
    return state / "pgtoolkit" / "signing.key"


def _may_name_code(text: str) -> bool:
    return ":" in text or ".py" in text


def _texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _sign(names: Collection[str], key: bytes) -> str:
    text = json.dumps(["code names", sorted(names)])
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _is_signed(names: Collection[str], found: Any) -> bool:
    if not isinstance(found, str) or not found.isascii():
        return False
    try:
        return hmac.compare_digest(_sign(names, _read_key(key_file())), found)
    except (OSError, RuntimeError, RequestError):
        return False


def _read_or_make_key() -> bytes:
    path = key_file()
    if not os.path.lexists(path):
        _make_key(path)
    return _read_key(path)


def _make_key(path: Path) -> None:
    """Makes the key, unless another process makes it at the same time."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open_folder(path.parent, inside=path.parent) as folder:
        fresh = write_unfinished(folder, path.name, [secrets.token_bytes(KEY_BYTES)], 0o600)
        try:
            # Unlike a rename, a second name is refused where there is a file.
            os.link(fresh, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except FileExistsError:
            pass
        finally:
            remove(folder, fresh)


def _read_key(path: Path) -> bytes:
    """The key.

    Raises:
        RequestError: the file is not a key that only this user can read.
        OSError: there is none, or the system refuses.
    """
    with open_regular(path, inside=path.parent, limit=KEY_BYTES) as file:
        found, key = os.fstat(file.fileno()), file.read(KEY_BYTES)
    if found.st_uid != os.geteuid() or found.st_mode & 0o077 or len(key) != KEY_BYTES:
        raise RequestError(f"{path} is not a key that only you can read: remove it")
    return key
