"""Runs in a process of its own (see test_host_runs.py) on simulators in further processes, to be killed.

python -m tests.run.host_worker ARGUMENTS...      the command line, where `clocks` is a task in two processes
"""

import sys

from reppo_fx import hosts
from reppo_fx.run import cli, worlds

from ..hosts.worlds import clock

if __name__ == "__main__":
    worlds.make_world = lambda task, config: hosts.parallel(clock, 2)
    sys.exit(cli.main(sys.argv[1:]))
