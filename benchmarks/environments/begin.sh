# Sourced by the scripts beside it.
#
# begin SIMULATOR FOLDER VERSION...: make the virtual environment FOLDER with a Python of one of these versions and
# PyTorch's small CPU build, from the top of the checkout; `pip` installs into it.
begin() {
  local simulator=$1 python=${PYTHON:-python3} version
  folder=$2
  shift 2
  cd "$(dirname "${BASH_SOURCE[0]}")/../.."
  version=$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")')
  if [[ " $* " != *" $version "* ]]; then
    echo "PYTHON is $python, which is Python $version; $simulator and this package run on $*." >&2
    exit 2
  fi
  "$python" -m venv "$folder"
  pip=("$folder/bin/python" -m pip install --quiet)
  # First, so that a simulator's dependencies take this one.
  "${pip[@]}" "torch==2.13.0"
}

# versions PACKAGE...: what was installed.
versions() {
  "$folder/bin/python" -c '
import importlib.metadata as m, sys
print(*(f"{p} {m.version(p)}" for p in sys.argv[1:]), sep=", ")
' "$@"
}
