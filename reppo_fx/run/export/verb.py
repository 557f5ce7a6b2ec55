"""`reppo-fx export`: what can be typed, and what it does."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from ..display import print_line
from ..plain import shell_word
from .policy_file import export_run


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a run's policy to a file that is read without this package.

    The observation statistics are inside, actions are as the environment gets them, and the file says what it takes
    and gives. onnx: for ONNX Runtime and its like; needs the extra `export`. jax: for jax alone, on CPU, CUDA and
    TPU. numpy: arrays, for the few lines of reppo_fx/run/export/reader.py.
    """

    run: tyro.conf.Positional[Path]
    """A run's folder, e.g. runs/CartpoleBalance."""
    format: Literal["onnx", "jax", "numpy"] = "onnx"
    """What to write."""
    best: tyro.conf.FlagCreatePairsOff[bool] = False
    """The policy of the best evaluation instead of the last."""
    seed: int = 0
    """Which of the run's seeds, from 0."""
    setting: int = 0
    """Which of a sweep's settings, as metrics.csv counts them."""
    out: Path | None = None
    """The file; in the run's folder if not given. One that is there is replaced."""


def run_export(arguments: Export, console: Console) -> int:
    """Write the file and say where it is."""
    file = export_run(
        arguments.run,
        arguments.format,
        best=arguments.best,
        seed=arguments.seed,
        setting=arguments.setting,
        out=arguments.out,
    )
    print_line(console, f"The policy is in {shell_word(str(file), console.encoding)}")
    return 0
