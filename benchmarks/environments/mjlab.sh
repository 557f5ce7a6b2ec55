#!/usr/bin/env bash
# Make a virtual environment with mjlab, PyTorch and this package, for its tests and measurements:
#
#   benchmarks/environments/mjlab.sh [FOLDER]
#   FOLDER/bin/python -m pytest -o addopts= tests/hosts/test_mjlab.py
#
# FOLDER is .venv-mjlab if not given. PYTHON names the Python to use, which must be 3.11, 3.12 or 3.13. It is an
# environment of its own because mjlab pins mujoco, and wants an older rich than the command line of this package.
set -euo pipefail
source "$(dirname "$0")/begin.sh"
begin mjlab "${1:-.venv-mjlab}" 3.11 3.12 3.13
# Again beside mjlab, whose dependencies would else take a newer one.
"${pip[@]}" "torch==2.13.0" "mjlab==1.6.0"
"${pip[@]}" --editable . "beartype>=0.23" "pytest>=9.2"
versions reppo_fx mjlab mujoco warp-lang torch jax
