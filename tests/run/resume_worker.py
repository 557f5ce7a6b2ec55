"""Runs in processes of its own (see test_resume.py), to be killed and started again.

python -m tests.run.resume_worker cli ARGUMENTS...           the command line, where `probe` is a task
python -m tests.run.resume_worker population FOLDER ROUNDS   so many more rounds from the last checkpoint
"""

import sys
from pathlib import Path

import jax

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.run import Checkpoints, cli, session

from ..sizes import tiny

mode, *arguments = sys.argv[1:]


def make(name):
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


if mode == "population":
    evolve(Path(arguments[0]), int(arguments[1]))
else:
    cli.make = session.make = make
    sys.exit(cli.main(arguments))
