"""Runs in processes of its own (see test_resume.py), to be killed and started again.

python -m tests.run.resume_worker cli ARGUMENTS...           the command line, where `probe` is a task
python -m tests.run.resume_worker timer ARGUMENTS...         the same, saving by the timer whenever it may
python -m tests.run.resume_worker slow ARGUMENTS...          the same, with compilations that take a minute
python -m tests.run.resume_worker population FOLDER ROUNDS   so many more rounds from the last checkpoint
"""

import sys
import time
from pathlib import Path

import jax

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.run import Checkpoints, cli, loop, session, worlds

from ..sizes import tiny

mode, *arguments = sys.argv[1:]


def make(name, config=None):
    return probes.match_observation()._replace(episode_length=6)


def evolve(folder, rounds):
    config = tiny(total_steps=6 * 32, num_epochs=1, num_evals=6)
    space = {"learning_rate": rx.log_uniform(1e-3, 1e-1), "kl_target": rx.choice([0.1, 0.2, 0.4])}
    train = rx.make_train(make("probe"), config)
    population = rx.make_population(train, space, num_members=4)
    state, round_, done = population.init(jax.random.key(0)), jax.jit(population.round), 0
    with Checkpoints(folder) as checkpoints:
        if checkpoints.steps():
            state, done, _ = checkpoints.restore(state)
        for step in range(done + 1, done + 1 + rounds):
            state, _ = round_(state)
            checkpoints.save(step, state, {"round": step})


def compile_slowly(calls):
    print("compiling now", flush=True)
    return compile_in_threads([lambda: time.sleep(60.0), *calls])[1:]


if mode == "population":
    evolve(Path(arguments[0]), int(arguments[1]))
else:
    if mode == "timer":
        session.SECONDS_BETWEEN_CHECKPOINTS = 0.0
        loop.SECONDS_PER_CALL = 0.0
    if mode == "slow":
        compile_in_threads, loop._in_threads = loop._in_threads, compile_slowly
    worlds.make_world = make
    sys.exit(loop.leave(cli.main(arguments)))
