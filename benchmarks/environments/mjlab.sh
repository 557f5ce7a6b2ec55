#!/usr/bin/env bash
# Make a virtual environment with mjlab, PyTorch and this package, for its tests and measurements:
#
#   benchmarks/environments/mjlab.sh [FOLDER]
#   FOLDER/bin/python -m pytest -o addopts= tests/hosts/test_mjlab.py
#
# FOLDER is .venv-mjlab if not given. PYTHON names the Python to use, which must be 3.11, 3.12 or 3.13. It is an
# environment of its own because mjlab pins mujoco, and wants an older rich than the command line of this package.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-.venv-mjlab}
python=${PYTHON:-python3}

version=$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")')
case $version in
  3.11 | 3.12 | 3.13) ;;
  *) echo "PYTHON is $python, which is Python $version; mjlab and this package run on 3.11 to 3.13." >&2; exit 2 ;;
esac

"$python" -m venv "$folder"
pip=("$folder/bin/python" -m pip install --quiet)
# First PyTorch, and again beside mjlab, whose dependencies would else take a newer one.
"${pip[@]}" "torch==2.13.0"
"${pip[@]}" "torch==2.13.0" "mjlab==1.6.0"
"${pip[@]}" --editable . "beartype>=0.23" "pytest>=9.2"
"$folder/bin/python" -c '
import importlib.metadata as m
print(*(f"{p} {m.version(p)}" for p in ("reppo_fx", "mjlab", "mujoco", "warp-lang", "torch", "jax")), sep=", ")
'
