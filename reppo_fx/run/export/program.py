"""A policy as a compiled function: what `jax.export` writes, and the facts, in a zip that jax alone can read.

with zipfile.ZipFile("policy.jax.zip") as file:
    policy = jax.export.deserialize(bytearray(file.read("policy.bin")))
    facts = json.loads(file.read("metadata.json"))
action = policy.call({"state": observation})    # a dict of the inputs, `[batch, ...]`; any batch
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, PyTree

from ...training.policy import Policy
from ..leaves import named_leaves
from .inputs import Inputs
from .metadata import ACTION, Metadata, as_text

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM, METADATA = "policy.bin", "metadata.json"
# Of StableHLO, which the oldest jax that we support reads, too: jax itself writes one that is a month old.
STABLEHLO = "1.13.0"


def to_program(policy: Policy, inputs: Inputs, facts: Metadata) -> bytes:
    """The file; inputs are `{name: [batch, ...]}`, what comes back is the action, or `{path: leaf}` of several."""
    # Without double precision, whatever it is here, and with the same numbers on every platform.
    with jax.enable_x64(False), jax.default_matmul_precision("highest"):
        single = in_single_precision(policy)

        def act(leaves: dict[str, Array]) -> PyTree[Array]:
            # A network sees one row with its axis: sizes that it reads are numbers, and `batch` stays open.
            row = {name: leaf[None] for name, leaf in leaves.items()}
            return jax.tree.map(lambda leaf: leaf[0], by_name(single(inputs.observation(row))))

        (batch,) = export.symbolic_shape("batch")
        arguments = {
            name: jax.ShapeDtypeStruct((batch, *shape), inputs.dtypes[name])
            for name, shape in inputs.shapes.items()
        }
        program = export.export(jax.jit(jax.vmap(act)), platforms=PLATFORMS)(arguments)
    portable = _portable(program)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr(PROGRAM, bytes((portable or program).serialize()))
        members.writestr(METADATA, as_text({**facts, "stablehlo": portable and STABLEHLO}))
    return file.getvalue()


def run_program(data: bytes, leaves: dict[str, Any]) -> PyTree[Array]:
    """The actions of a file."""
    with zipfile.ZipFile(io.BytesIO(data)) as members:
        program = export.deserialize(bytearray(members.read(PROGRAM)))
    with jax.enable_x64(False):
        return program.call({name: leaves[name] for name in leaves})


def in_single_precision(policy: Policy) -> Policy:
    """The policy with float32 in place of float64, as it would be loaded without double precision."""

    def narrow(leaf: Array) -> Array:
        array = np.asarray(leaf)
        return jnp.asarray(array.astype(jax.dtypes.canonicalize_dtype(array.dtype)))

    with jax.enable_x64(False):
        narrowed: Policy = jax.tree.map(narrow, policy)
        return narrowed


def by_name(action: PyTree[Array]) -> PyTree[Array]:
    """A single array as it is; containers, which others may not know, as a dict of paths."""
    named = named_leaves(action)
    return (
        named[""] if list(named) == [""] else {f"{ACTION}.{path}": x for path, x in named.items()}
    )


def _portable(program: export.Exported) -> export.Exported | None:
    """The same program for older readers, and without the places of source files; none where that cannot be."""
    try:
        from jax.extend.mlir import ir, passmanager
        from jax.extend.mlir.dialects import stablehlo

        with ir.Context() as context:
            stablehlo.register_dialect(context)
            module = stablehlo.deserialize_portable_artifact(
                context, program.mlir_module_serialized
            )
            passmanager.PassManager.parse("builtin.module(strip-debuginfo)").run(module.operation)
            serialized = stablehlo.serialize_portable_artifact(module, STABLEHLO)
    except Exception:  # other people's networks may need what an older version has not
        return None
    return dataclasses.replace(program, mlir_module_serialized=serialized)
