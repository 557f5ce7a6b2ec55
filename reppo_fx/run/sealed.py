"""One checkpoint's folder on disk: arrays by Orbax, a mark that it is ours, and a seal over every file in it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .durable import write_whole

DESCRIPTION, ARRAYS, SEAL = "reppo_fx.json", "state", "seal.json"
Leaves = dict[str, NDArray[Any]]
Record = dict[str, Any]
"""What goes into a file as JSON."""


def is_complete(folder: Path) -> bool:
    """Whether a folder is ours and was finished."""
    return (folder / DESCRIPTION).is_file() and (folder / SEAL).is_file()


def write_arrays(folder: Path, arrays: Leaves) -> None:
    """Store arrays, none of them empty."""
    import orbax.checkpoint as ocp

    with _plain_name(folder) as place, ocp.Checkpointer(ocp.StandardCheckpointHandler()) as writer:
        writer.save(place / ARRAYS, args=ocp.args.StandardSave(arrays))


def read_arrays(folder: Path, like: Leaves) -> Leaves:
    """The arrays again, in the shapes and dtypes of `like`."""
    import orbax.checkpoint as ocp

    with _plain_name(folder) as place, ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        found: Leaves = reader.restore(place / ARRAYS, args=ocp.args.StandardRestore(like))
    return found


@contextlib.contextmanager
def _plain_name(folder: Path) -> Iterator[Path]:
    """A name for a folder that Orbax takes literally: in others it sees patterns, addresses, separators."""
    if re.fullmatch(r"[A-Za-z0-9 _./+,=@%#-]*", str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="reppo_fx-") as other:
        link = Path(other) / "checkpoint"
        try:
            link.symlink_to(folder, target_is_directory=True)
        except OSError:  # not allowed everywhere; most names are taken as they are
            link = folder
        yield link


def write_seal(folder: Path, files: Mapping[str, str], score: float | None) -> None:
    """Seal a folder: from then on it counts."""
    seal = {"files": dict(files), "score": score}
    whole = {**seal, "sha256": _digest_of(seal)}
    write_whole(folder / SEAL, json.dumps(whole, indent=1).encode())


def read_seal(folder: Path) -> Record | None:
    """The files and the score; none if it is damaged."""
    try:
        seal = json.loads((folder / SEAL).read_bytes())
        digest = seal.pop("sha256")
        return seal if digest == _digest_of(seal) else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def _digest_of(seal: Record) -> str:
    return hashlib.sha256(json.dumps(seal, sort_keys=True).encode()).hexdigest()


def damage(folder: Path) -> str | None:
    """What is not as it was sealed, in words; none if all is."""
    seal = read_seal(folder)
    if seal is None:
        return "its seal cannot be read"
    expected, found = seal["files"], file_digests(folder)
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            return f"the file {name} is not what was saved"
    return None


def remove_ours(folder: Path) -> None:
    """Remove a folder of ours, what marks it as such last; another one is left alone."""
    mark = folder / DESCRIPTION
    if not mark.is_file():
        return
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        elif path != mark:
            path.unlink()
    mark.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of all files in a folder but its seal, by their relative names."""
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name not in (SEAL, f"{SEAL}.new"):
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
