"""A simulator that is as nasty as it may be, and whose every number is known in advance.

Instance `i` has episodes of `lengths[i]` steps. It shows (age, episode, last action) as float64, gets its action
plus its age as reward, and ends for good, by time, or with both flags at once, as `i` says. All arrays are buffers
that the next call overwrites.
"""

import jax
import numpy as np

from reppo_fx.hosts import HostEnvironment, HostTimeStep, Restarting

FLAGS = [(True, False), (False, True), (True, True)]


class _Clocks:
    def __init__(self, lengths, fail_at=None):
        self.name, self.num_envs = "nasty", len(lengths)
        self.observation = {"state": jax.ShapeDtypeStruct((3,), np.float64)}
        self.action_size, self.episode_length, self.metrics = 1, None, ("age",)
        self.lengths, self.fail_at = np.array(lengths), fail_at
        n = self.num_envs
        self.age, self.episode, self.taken = np.zeros(n, int), np.zeros(n, int), 0
        self.buffer, self.rewards = np.zeros((n, 3)), np.zeros(n)
        self.flags, self.ages = np.zeros((2, n), bool), np.zeros(n)

    def sized(self, num_envs):
        return type(self)(np.resize(self.lengths, num_envs), self.fail_at)

    def shown(self, action=0.0):
        self.buffer[:, 0], self.buffer[:, 1], self.buffer[:, 2] = self.age, self.episode, action
        return {"state": self.buffer}

    def reset(self, seed=None):
        self.age[:], self.episode[:] = 0, 0 if seed is None else seed % 100
        return self.shown()

    def moved(self, action):
        self.taken += 1
        if self.taken == self.fail_at:
            raise RuntimeError("the gearbox is broken")
        self.age += 1
        self.rewards[:] = action[:, 0] + self.age
        self.ages[:] = self.age
        over = self.age >= self.lengths
        for index in range(self.num_envs):
            terminated, truncated = FLAGS[index % 3]
            self.flags[:, index] = over[index] & terminated, over[index] & truncated
        return self.shown(action[:, 0])

    def start(self, which):
        self.age[which], self.episode[which] = 0, self.episode[which] + 1


class Nasty(_Clocks, Restarting):
    """It does not restart by itself, and a restart spoils every buffer."""

    def advance(self, action):
        seen = self.moved(action)
        return HostTimeStep(seen, seen, self.rewards, *self.flags, {"age": self.ages})

    def restart(self, which):
        self.start(which)
        self.rewards[:], self.ages[:], self.flags[:] = -99.0, -99.0, True
        return self.shown()


class SelfRestarting(_Clocks, HostEnvironment):
    """It restarts by itself, and cannot be asked to."""

    def step(self, action):
        successor = {"state": self.moved(action)["state"].copy()}
        over = self.flags.any(0)
        self.start(over)
        observation = {"state": np.where(over[:, None], self.shown()["state"], successor["state"])}
        return HostTimeStep(observation, successor, self.rewards, *self.flags, {"age": self.ages})


def expected(lengths, action, steps):
    """`observation`, `next_observation`, reward, terminated, truncated and age of every step, by hand."""
    rows, age, episode = [], [0] * len(lengths), [0] * len(lengths)
    for _ in range(steps):
        row = []
        for index, length in enumerate(lengths):
            age[index] += 1
            successor, reward, now = (
                (age[index], episode[index], action),
                action + age[index],
                age[index],
            )
            terminated, truncated = FLAGS[index % 3] if now >= length else (False, False)
            observation = successor
            if terminated or truncated:
                age[index], episode[index] = 0, episode[index] + 1
                observation = (0, episode[index], 0.0)
            row.append(
                (observation, successor, reward, terminated, truncated and not terminated, now)
            )
        rows.append(row)
    return rows
