#!/usr/bin/env bash
# Make a virtual environment with ManiSkill, PyTorch and this package, for its tests and measurements:
#
#   benchmarks/environments/maniskill.sh [FOLDER]
#   FOLDER/bin/python -m pytest -o addopts= tests/hosts/test_maniskill.py
#
# FOLDER is .venv-maniskill if not given. PYTHON names the Python to use, which must be 3.11 or 3.12.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-.venv-maniskill}
python=${PYTHON:-python3}

version=$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")')
case $version in
  3.11 | 3.12) ;;
  *) echo "PYTHON is $python, which is Python $version; ManiSkill and this package run on 3.11 and 3.12." >&2; exit 2 ;;
esac

"$python" -m venv "$folder"
pip=("$folder/bin/python" -m pip install --quiet)
# First PyTorch, so that ManiSkill's dependencies take this one.
"${pip[@]}" "torch==2.13.0"
"${pip[@]}" "mani_skill==3.0.1"
"${pip[@]}" --editable ".[cli]" "beartype>=0.23" "chex>=0.1.92" "pytest>=9.2"
"$folder/bin/python" -c '
import importlib.metadata as m
print(*(f"{p} {m.version(p)}" for p in ("reppo_fx", "mani_skill", "sapien", "torch", "jax", "numpy")), sep=", ")
'
