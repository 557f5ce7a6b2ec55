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
from .facts import ACTION, Facts, as_text
from .inputs import Inputs

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM, METADATA = "policy.bin", "metadata.json"
# The version of StableHLO that the oldest jax that we support reads; jax itself writes one that is a month old.
STABLEHLO = "1.13.0"


def to_program(policy: Policy, inputs: Inputs, facts: Facts) -> bytes:
    """The file; inputs are `{name: [batch, ...]}`, what comes back is the action, or `{path: leaf}` of several."""

    def act(leaves: dict[str, Array]) -> PyTree[Array]:
        return by_name(single(inputs.observation(leaves)))

    # Without double precision, whatever it is here, and with the same numbers on every platform.
    with jax.enable_x64(False), jax.default_matmul_precision("highest"):
        single = in_single_precision(policy)
        (batch,) = export.symbolic_shape("batch")
        arguments = {
            name: jax.ShapeDtypeStruct((batch, *shape), inputs.dtypes[name])
            for name, shape in inputs.shapes.items()
        }
        program = export.export(jax.jit(act), platforms=PLATFORMS)(arguments)
        data = _for_older_readers(program).serialize()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr(PROGRAM, bytes(data))
        members.writestr(METADATA, as_text(facts))
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


def _for_older_readers(program: export.Exported) -> export.Exported:
    """The same program in an older version of StableHLO; as it is where that cannot hold it."""
    try:
        from jax.extend.mlir.dialects import stablehlo

        module = stablehlo.serialize_portable_artifact_str(program.mlir_module(), STABLEHLO)
    except (ImportError, AttributeError, ValueError, RuntimeError):
        return program
    return dataclasses.replace(program, mlir_module_serialized=module)
