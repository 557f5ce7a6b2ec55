"""Checkpoints: whole states on disk with Orbax, checked on the way back. Arrays only, nothing is executed.

Orbax writes a checkpoint beside its final place and renames it when it is complete. Only then is the list of its
files and their SHA-256 written, and a checkpoint counts once it has one: a kill at any moment leaves those before.
A manifest beside the arrays says the shape and dtype of every leaf, and what the run was. Saving happens on a
thread of its own, from a copy, while training goes on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ..sweeps.members import is_key

VERSION = 1
T = TypeVar("T")


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, or is not what it should be."""


class Restored(NamedTuple):
    """A state, the step it was saved at, and the record that was saved with it."""

    state: Any
    step: int
    record: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run: the last few, and the best.

    Args:
        folder: where they are; created when the first one is saved.
        keep: how many of the latest to keep.

    >>> import tempfile
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
        self._manager: Any = None
        self._saver = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(
        self, step: int, state: Any, record: dict[str, Any], score: float | None = None
    ) -> None:
        """Copy a state and write it in the background, after any earlier one.

        Args:
            step: a number that grows; an existing step is left as it is.
            state: a PyTree of arrays.
            record: what else is needed to go on, as JSON.
            score: the higher the better; the best checkpoint is kept beside the last ones.

        Raises:
            CheckpointError: if the one before could not be written.
        """
        self.wait()
        leaves = {path: _to_numpy(leaf) for path, leaf in _named_leaves(state).items()}
        self._pending = self._saver.submit(self._write, step, leaves, record, score)

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
            if self._manager is not None:
                self._manager.close()
                self._manager = None

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, ascending."""
        return [step for step in self._folders() if self._digests(step).is_file()]

    def _folders(self) -> list[int]:
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdigit())

    def _digests(self, step: int) -> Path:
        return self.folder / "sha256" / f"{step}.json"

    def restore(self, like: T, step: int | None = None) -> Restored:
        """Read a state back, bit for bit.

        Args:
            like: a state with the structure, shapes, dtypes and kind of random keys that are expected.
            step: which one; the latest if not given.

        Raises:
            CheckpointError: if there is none, it is damaged, of another version, or its leaves are not those of
                `like`; the first differing path is named.
        """
        self.wait()
        steps = self.steps()
        if not steps or (step is not None and step not in steps):
            wanted = "no checkpoint" if step is None else f"no checkpoint {step}"
            raise CheckpointError(f"{self.folder} holds {wanted}; there are {steps or 'none'}.")
        step = steps[-1] if step is None else step
        manifest, leaves = self._read(step)
        place = f"checkpoint {step} in {self.folder}"
        _check_structure(place, manifest["leaves"], _named_leaves(like))
        flat, treedef = jax.tree.flatten(like)
        arrays = [
            _from_numpy(leaves[path], ref) for path, ref in zip(_paths(like), flat, strict=True)
        ]
        return Restored(jax.tree.unflatten(treedef, arrays), step, manifest["record"])

    def record(self, step: int | None = None) -> dict[str, Any]:
        """What was saved with a checkpoint (the latest if not given), without its arrays."""
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"{self.folder} holds no checkpoint.")
        return self._read(steps[-1] if step is None else step, arrays=False)[0]["record"]

    def _write(
        self, step: int, leaves: dict[str, np.ndarray], record: dict[str, Any], score: float | None
    ) -> None:
        import orbax.checkpoint as ocp

        if step in self.steps():
            return
        manifest = {
            "version": VERSION,
            "leaves": {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves.items()},
            "record": record,
        }
        # Empty arrays cannot be stored, and need not be: the manifest has their shapes.
        arrays = {path: leaf for path, leaf in leaves.items() if leaf.size}
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(arrays), manifest=ocp.args.JsonSave(manifest)
        )
        metrics = None if score is None or not np.isfinite(score) else {"score": float(score)}
        try:
            self._open().save(step, args=args, metrics=metrics)
            self._seal(step)
        except Exception as error:  # tensorstore and the file system raise many kinds
            kept = self.steps()
            raise CheckpointError(
                f"checkpoint {step} could not be written to {self.folder}: {_first_line(error)}; "
                f"complete ones there: {kept or 'none'}."
            ) from error

    def _seal(self, step: int) -> None:
        """Write the list of files, and forget the lists of checkpoints that are no longer kept."""
        path = self._digests(step)
        path.parent.mkdir(exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(_file_digests(self.folder / str(step))))
        new.replace(path)
        kept = {self._digests(step) for step in self._folders()}
        for old in set(path.parent.iterdir()) - kept:
            old.unlink()

    def _open(self) -> Any:
        if self._manager is None:
            import orbax.checkpoint as ocp

            for step in set(self._folders()) - set(self.steps()):  # killed before it counted
                shutil.rmtree(self.folder / str(step))
            policies = ocp.checkpoint_managers
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=policies.AnyPreservationPolicy(
                        [
                            policies.LatestN(self._keep),
                            policies.BestN(
                                get_metric_fn=lambda metrics: metrics["score"],
                                n=1,
                                keep_checkpoints_without_metrics=False,
                            ),
                        ]
                    ),
                    enable_async_checkpointing=False,
                    cleanup_tmp_directories=True,
                ),
            )
        return self._manager

    def _read(self, step: int, arrays: bool = True) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        import orbax.checkpoint as ocp

        folder = self.folder / str(step)
        self._verify(step)
        try:
            with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
                manifest = reader.restore(folder / "manifest")
            version = manifest.get("version")
            if version != VERSION:
                raise CheckpointError(
                    f"checkpoint {step} in {self.folder} has version {version}; this package reads {VERSION}."
                )
            leaves = {
                path: np.zeros(shape, dtype) for path, (shape, dtype) in manifest["leaves"].items()
            }
            if arrays:
                like = {path: leaf for path, leaf in leaves.items() if leaf.size}
                with ocp.StandardCheckpointer() as reader:
                    leaves.update(reader.restore(folder / "state", like))
        except CheckpointError:
            raise
        except Exception as error:  # whatever a damaged file makes the reader stumble over
            raise CheckpointError(
                f"checkpoint {step} in {self.folder} is damaged and cannot be read: {_first_line(error)}"
            ) from error
        return manifest, leaves

    def _verify(self, step: int) -> None:
        try:
            expected = json.loads(self._digests(step).read_text())
        except ValueError:
            expected = None
        found = _file_digests(self.folder / str(step))
        if expected == found:
            return
        place = f"checkpoint {step} in {self.folder}"
        if not isinstance(expected, dict):
            raise CheckpointError(f"{place} is damaged: its list of files cannot be read.")
        wrong = next(
            name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)
        )
        raise CheckpointError(f"{place} is damaged: the file {wrong} is not what was saved.")


def _check_structure(place: str, saved: dict[str, list], like: dict[str, Any]) -> None:
    for path in [*like, *(path for path in saved if path not in like)]:
        if path not in saved or path not in like:
            side = "is missing from it" if path not in saved else "is in it, but not expected"
            raise CheckpointError(f"{place} does not fit: {path} {side}.")
        shape, dtype = saved[path]
        leaf = jax.eval_shape(_exposed, like[path])
        if tuple(shape) != leaf.shape or dtype != str(leaf.dtype):
            raise CheckpointError(
                f"{place} does not fit: {path} is {shape} {dtype} in it, but {list(leaf.shape)} {leaf.dtype} here."
            )


def _paths(tree: Any) -> list[str]:
    return [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]


def _named_leaves(tree: Any) -> dict[str, Any]:
    return dict(zip(_paths(tree), jax.tree.leaves(tree), strict=True))


def _exposed(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _to_numpy(leaf: Any) -> np.ndarray:
    return np.array(_exposed(leaf), copy=True)  # never a view: the next step reuses the memory


def _from_numpy(array: np.ndarray, like: Any) -> jax.Array:
    if is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
    return jnp.asarray(array)


def _file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of all files in a folder, by their relative names."""
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digests[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
