"""Checkpoints: whole states on disk with Orbax, checked on the way back. Arrays only, nothing is executed.

A checkpoint is a folder named by its step. It is written beside its place: a description (what the run was,
shape and dtype of every leaf), the arrays, and last a seal, with the SHA-256 of every file and the score. When all
of it is on the disk the folder gets its name, and only then others are removed: a kill or a power cut at any moment
leaves those before. What has no seal does not count; what has no description is not ours and is never touched.
Saving happens on a thread of its own, from a copy, while training goes on.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from .durable import only_writer, sync_folder, sync_tree
from .leaves import describe, from_numbers, misfits, named_leaves, to_numbers
from .sealed import (
    DESCRIPTION,
    Leaves,
    Record,
    damage,
    file_digests,
    is_complete,
    read_arrays,
    read_seal,
    remove_ours,
    write_arrays,
    write_seal,
)

VERSION = 2
CHECKPOINTS = "checkpoints"
"""The folder in a run's folder that has them."""
WRITING, REMOVING = ".writing", ".removing"


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, or is not what it should be."""


class Restored(NamedTuple):
    """A state, the step it was saved at, and the record that was saved with it."""

    state: PyTree
    step: int
    record: Record


class Checkpoints:
    """The checkpoints of one run: the last few, and the one of the highest score.

    Args:
        folder: where they are; created when the first one is saved. From then on nobody else can write there.
        keep: how many of the latest to keep.

    >>> import tempfile
    >>> import jax.numpy as jnp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Checkpoints(Path(folder) / "checkpoints") as checkpoints:
    ...         checkpoints.save(1, {"weights": jnp.arange(3.0)}, {"task": "mine"}, score=0.5)
    ...         checkpoints.wait()
    ...         restored = checkpoints.restore({"weights": jnp.zeros(3)})
    >>> print(restored.step, restored.state["weights"], restored.record)
    1 [0. 1. 2.] {'task': 'mine'}
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}; at least 1 is needed.")
        self.folder = Path(folder).absolute()
        self._keep = keep
        self._saver = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._held = contextlib.ExitStack()
        self._is_open = False

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hold(self) -> None:
        """Make the folder and keep others from writing there, from now on and not only from the first `save`.

        What a killed process left half written or half removed is cleared.

        Raises:
            ValueError: if somebody else writes there.
        """
        if self._is_open:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._held.enter_context(only_writer(self.folder))
        self._is_open = True
        for path in self.folder.iterdir():
            if re.fullmatch(rf"[0-9]+({WRITING}|{REMOVING})", path.name) and path.is_dir():
                remove_ours(path)

    def save(
        self, step: int, state: PyTree, record: Mapping[str, Any], score: float | None = None
    ) -> None:
        """Copy a state and write it in the background, after any earlier one.

        Args:
            step: a number that grows; what was saved at an existing step stays, but gets the score if it had none.
            state: a PyTree of arrays.
            record: what else is needed to go on, as JSON.
            score: the higher the better; the best checkpoint is kept beside the last ones. One that is not finite
                does not count.

        Raises:
            CheckpointError: if the one before could not be written, the step is negative, or the state has leaves
                that are no numbers or whose paths are spelled alike.
        """
        if step < 0:
            raise CheckpointError(f"step is {step}; it must not be negative.")
        self.wait()
        try:
            like = named_leaves(state)
            leaves = {path: to_numbers(path, leaf) for path, leaf in like.items()}
        except ValueError as error:
            raise CheckpointError(f"the state of step {step} cannot be saved: {error}") from error
        description = {
            "version": VERSION,
            "leaves": {path: describe(leaf, leaves[path]) for path, leaf in like.items()},
            "record": dict(record),
        }
        score = None if score is None or not np.isfinite(score) else float(score)
        self._pending = self._saver.submit(self._write, step, leaves, description, score)

    def wait(self) -> None:
        """Until what was saved is on disk.

        Raises:
            CheckpointError: if it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Finish writing."""
        try:
            self.wait()
        finally:
            self._saver.shutdown()
            self._held.close()
            self._is_open = False

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, ascending.

        Raises:
            CheckpointError: if there are none but those of an older version of this package.
        """
        steps = [step for step in self._folders() if is_complete(self.folder / str(step))]
        if not steps and any(
            (self.folder / path.stem / "manifest").is_dir()
            for path in self.folder.glob("sha256/*.json")
        ):
            raise CheckpointError(
                f"the checkpoints in {self.folder} have version 1; this package reads {VERSION}."
            )
        return steps

    def restore(self, like: PyTree, step: int | None = None) -> Restored:
        """Read a state back, bit for bit.

        Args:
            like: a state with the structure, shapes, dtypes and kind of random keys that are expected. Numbers of
                another precision are converted where that changes none of them.
            step: which one; the latest if not given.

        Raises:
            CheckpointError: if there is none, it is damaged, of another version, or its leaves are not those of
                `like`; the first differing path is named.
        """
        self.wait()
        step = self._choose(step)
        description, leaves = self._read(step)
        try:
            expected = named_leaves(like)
            for misfit in misfits(description["leaves"], expected):
                raise ValueError(f"{misfit}.")
            arrays = [from_numbers(path, leaves[path], ref) for path, ref in expected.items()]
        except ValueError as error:
            place = f"checkpoint {step} in {self.folder}"
            raise CheckpointError(f"{place} does not fit: {error}") from error
        state = jax.tree.unflatten(jax.tree.structure(like), arrays)
        return Restored(state, step, description["record"])

    def record(self, step: int | None = None) -> Record:
        """What was saved with a checkpoint (the latest if not given), without its arrays.

        Raises:
            CheckpointError: if there is none, or it is damaged or of another version.
        """
        self.wait()
        record: Record = self._read(self._choose(step), arrays=False)[0]["record"]
        return record

    def discard_after(self, step: int) -> None:
        """Remove the checkpoints of later steps, for a run that goes on from this one.

        Raises:
            CheckpointError: if the folder cannot be written.
        """
        self.wait()
        later = [other for other in self.steps() if other > step]
        if not later:
            return
        try:
            self.hold()
            for other in later:
                self._remove(other)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"checkpoint {later[0]} could not be removed from {self.folder}: {_first_line(error)}"
            ) from error

    def _choose(self, step: int | None) -> int:
        steps = self.steps()
        if not steps or (step is not None and step not in steps):
            wanted = "no checkpoint" if step is None else f"no checkpoint {step}"
            raise CheckpointError(f"{self.folder} holds {wanted}; there are {steps or 'none'}.")
        return steps[-1] if step is None else step

    def _folders(self) -> list[int]:
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name))

    def _write(self, step: int, leaves: Leaves, description: Record, score: float | None) -> None:
        try:
            self.hold()
            if step in self.steps():
                self._score(step, score)
            else:
                self._write_new(step, leaves, description, score)
            self._prune()
        except Exception as error:  # tensorstore and the file system raise many kinds
            kept = self.steps()
            raise CheckpointError(
                f"checkpoint {step} could not be written to {self.folder}: {_first_line(error)}; "
                f"complete ones there: {kept or 'none'}."
            ) from error

    def _write_new(
        self, step: int, leaves: Leaves, description: Record, score: float | None
    ) -> None:
        final = self.folder / str(step)
        if final.exists():
            raise FileExistsError(f"{final.name} is there already, and is not a checkpoint")
        fresh = self.folder / f"{step}{WRITING}"
        fresh.mkdir(exist_ok=True)  # an empty one is what a kill may have left
        if any(fresh.iterdir()):
            raise FileExistsError(f"{fresh.name} is there already, and is not ours")
        try:
            (fresh / DESCRIPTION).write_text(json.dumps(description))
            # Empty arrays cannot be stored, and need not be: the description has their shapes.
            arrays = {str(number): leaf for number, leaf in enumerate(leaves.values()) if leaf.size}
            if arrays:
                write_arrays(fresh, arrays)
            sync_tree(fresh)
            write_seal(fresh, file_digests(fresh), score)
            fresh.rename(final)
        except Exception:
            with contextlib.suppress(OSError):
                remove_ours(fresh)
            raise
        sync_folder(self.folder)

    def _score(self, step: int, score: float | None) -> None:
        """Give a checkpoint that is there a score, if it has none."""
        folder = self.folder / str(step)
        seal = read_seal(folder)
        if score is not None and seal is not None and seal["score"] is None:
            write_seal(folder, seal["files"], score)

    def _prune(self) -> None:
        """Remove all but the latest and the best."""
        steps = self.steps()
        kept = set(steps[-self._keep :])
        seals = {step: read_seal(self.folder / str(step)) for step in steps}
        scores = {
            step: seal["score"]
            for step, seal in seals.items()
            if seal and seal["score"] is not None
        }
        if scores:
            kept.add(max(scores, key=lambda step: (scores[step], step)))
        for step in steps:
            if step not in kept:
                self._remove(step)

    def _remove(self, step: int) -> None:
        # Renamed at once, so that it never counts while it is half there.
        going = self.folder / f"{step}{REMOVING}"
        (self.folder / str(step)).rename(going)
        remove_ours(going)

    def _read(self, step: int, arrays: bool = True) -> tuple[Record, Leaves]:
        """The description of a checkpoint and its arrays by path, checked against its seal."""
        folder, place = self.folder / str(step), f"checkpoint {step} in {self.folder}"
        found_damage = damage(folder)
        if found_damage is not None:
            raise CheckpointError(f"{place} is damaged: {found_damage}.")
        try:
            description = json.loads((folder / DESCRIPTION).read_text())
            version = description.get("version")
            if version != VERSION:
                raise CheckpointError(
                    f"{place} has version {version}; this package reads {VERSION}."
                )
            leaves = {
                path: np.zeros(leaf["shape"], leaf["dtype"])
                for path, leaf in description["leaves"].items()
            }
            like = {str(n): leaf for n, leaf in enumerate(leaves.values()) if leaf.size}
            if arrays and like:
                found = read_arrays(folder, like)
                leaves.update(
                    {path: found[str(n)] for n, path in enumerate(leaves) if str(n) in found}
                )
        except CheckpointError:
            raise
        except Exception as error:  # whatever a damaged file makes the reader stumble over
            raise CheckpointError(
                f"{place} is damaged and cannot be read: {_first_line(error)}"
            ) from error
        return description, leaves


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
