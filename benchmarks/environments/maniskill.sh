#!/usr/bin/env bash
# Make a virtual environment with ManiSkill, PyTorch and this package, for its tests and measurements:
#
#   benchmarks/environments/maniskill.sh [FOLDER]
#   FOLDER/bin/python -m pytest -o addopts= tests/hosts/test_maniskill.py
#
# FOLDER is .venv-maniskill if not given. PYTHON names the Python to use, which must be 3.11 or 3.12.
set -euo pipefail
source "$(dirname "$0")/begin.sh"
begin ManiSkill "${1:-.venv-maniskill}" 3.11 3.12
"${pip[@]}" "mani_skill==3.0.1"
"${pip[@]}" --editable ".[cli]" "beartype>=0.23" "chex>=0.1.92" "pytest>=9.2"
versions reppo_fx mani_skill sapien torch jax numpy
