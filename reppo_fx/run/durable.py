"""Files that survive: written whole or not at all, on the disk when a call returns, one writer at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LOCK = ".lock"


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """A fault of the file system says of which file: a full disk by itself does not."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file in one step: who reads it, also after a power cut, finds the old content or the new one."""
    fresh = path.with_name(path.name + ".new")
    with naming(path):
        try:
            with fresh.open("wb") as file:
                file.write(data)
                sync(file)
            fresh.replace(path)
        except OSError:
            with contextlib.suppress(OSError):  # on a full disk it would be in the way
                fresh.unlink()
            raise
    sync_folder(path.parent)


def sync(file: IO[bytes] | IO[str]) -> None:
    """Wait until everything that was written to an open file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where folders can be opened for that."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def sync_tree(folder: Path) -> None:
    """Wait until all files of a folder, and of those in it, are on the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder, against other processes and other callers in this one; a lock ends with its process.

    Raises:
        ValueError: if somebody else holds it, or it cannot be written.
    """
    path = folder / LOCK
    try:
        file = _lock(path)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error.strerror}.") from error
    if file is None:
        raise ValueError(
            f"{folder} is being written by another run{_owner(path)}; wait until it has ended, or stop it."
        )
    try:
        with naming(path):
            file.seek(0)
            file.truncate()
            file.write(f"{os.getpid()}\n".encode())
            file.flush()
        yield
    finally:
        with contextlib.suppress(OSError):  # a name that is open cannot be removed everywhere
            path.unlink()
        with contextlib.suppress(OSError):  # on a full disk it has been told already
            file.close()


def is_held(folder: Path) -> bool:
    """Whether somebody writes there at this moment."""
    try:
        with (folder / LOCK).open("rb") as file:
            return not _try_lock(file, shared=True)
    except OSError:
        return False


def _lock(path: Path) -> IO[bytes] | None:
    """The open, locked file; none if another one holds it."""
    while True:
        file = path.open("ab+")
        if not _try_lock(file):
            file.close()
            return None
        # Whoever held it before removed the name at the end: then this is not the file that others would lock.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _try_lock(file: IO[bytes], shared: bool = False) -> bool:
    """Lock an open file without waiting; true also where a platform or a file system has no locks."""
    try:
        import fcntl
    except ImportError:
        return _try_lock_by_msvcrt(file)
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _try_lock_by_msvcrt(file: IO[bytes]) -> bool:
    try:
        import msvcrt
    except ImportError:
        return True
    try:
        # Far behind the number in it, which others may read then.
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except OSError:
        return False
    return True


def _owner(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return f" (process {int(path.read_text())})"
    return ""
