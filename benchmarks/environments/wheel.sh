#!/usr/bin/env bash
# Build the wheel and train with it as somebody does who has nothing else: for each Python an empty environment, the
# README's install line with the wheel in place of the name, and the README's command with one seed and fewer steps.
#
#   benchmarks/environments/wheel.sh [PYTHON...]      # e.g. 3.11; if none is given, 3.11, 3.12 and 3.13
#
# It needs uv. Of the three, those that are not installed are left out with a sentence; one that was asked for must be
# there. Prints, for each, the seconds and the return after 200,000 steps, which must be 500 of 1000 at least.
set -euo pipefail
cd "$(dirname "$0")/../.."
export JAX_PLATFORMS=cpu UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
if command -v pyenv >/dev/null; then # where pyenv keeps interpreters, uv does not look by itself
  for bin in "$(pyenv root)"/versions/3.1[1-9]*/bin; do PATH="$PATH:$bin"; done
fi
source=$PWD
folder=$(mktemp --directory)
trap 'rm -r "$folder"' EXIT
uv build --quiet --out-dir "$folder/dist"
wheel=("$folder"/dist/*.whl)
cd "$folder" # nothing of the checkout can be imported from here

check() {
  local began=$SECONDS installed trained
  rm -rf environment runs
  uv venv --quiet --no-project --python "$1" environment
  uv pip install --quiet --python environment/bin/python "reppo_fx[all] @ file://$wheel"
  installed=$((SECONDS - began))
  environment/bin/python -I -m reppo_fx --help >help.txt
  environment/bin/reppo-fx train --seeds 1 --total-steps 200000 --num-evals 2 --out runs/wheel >train.txt
  trained=$((SECONDS - began - installed))
  environment/bin/python -I - "$source" "$installed" "$trained" <<'PYTHON'
import csv, importlib.metadata, platform, sys
import jax, reppo_fx

source, installed, trained = sys.argv[1:]
assert not reppo_fx.__file__.startswith(source), reppo_fx.__file__
assert importlib.metadata.version("reppo_fx") == reppo_fx.__version__
with open("runs/wheel/metrics.csv") as file:
    last = list(csv.DictReader(file))[-1]
got = float(last["eval_return"])
print(
    f"Python {platform.python_version()}, jax {jax.__version__}: reppo_fx {reppo_fx.__version__} installed in "
    f"{installed} s, trained in {trained} s to a return of {got:.1f} after {float(last['env_steps']):,.0f} steps",
    flush=True,
)
assert got >= 500, got
PYTHON
}

checked=0
for python in "${@:-3.11}" $([ $# -gt 0 ] || echo 3.12 3.13); do
  if [ $# -eq 0 ] && ! uv python find --quiet --no-project "$python" >found.txt 2>&1; then
    echo "Python $python is not installed, and is left out." >&2
    continue
  fi
  check "$python"
  checked=$((checked + 1))
done
[ "$checked" -gt 0 ] || { echo "None of Python 3.11, 3.12 and 3.13 is installed." >&2; exit 2; }
