"""gymnasium environments of known numbers, in a module of their own so that other processes can have them."""

import functools
import os

import gymnasium
import numpy as np

from reppo_fx import hosts

FLAGS = [(True, False), (False, True), (True, True)]


class Clock(gymnasium.Env):
    """Shows its age, its episode, and the last action; ends after `length` steps, by the flags of `kind`."""

    observation_space = gymnasium.spaces.Dict(
        {
            "clock": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64),
            "kind": gymnasium.spaces.Discrete(3, start=1),
        }
    )
    action_space = gymnasium.spaces.Box(
        np.array([-2.0, -np.inf]), np.array([6.0, np.inf]), dtype=np.float64
    )
    metadata = {"render_modes": []}  # noqa: RUF012 (gymnasium's own form)

    def __init__(self, length=4, kind=0):
        self.length, self.kind, self.age, self.episode = length, kind, 0, -1

    def shown(self):
        return {"clock": np.array([self.age, self.episode], np.float64), "kind": 1 + self.kind}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.age, self.episode = 0, self.episode + 1
        return self.shown(), {}

    def step(self, action):
        self.age += 1
        over = self.age >= self.length
        terminated, truncated = (over and flag for flag in FLAGS[self.kind])
        info = {"speed": 2.0 * self.age, "is_success": over, "note": "text", "many": np.ones(3)}
        return self.shown(), float(action[0]), terminated, truncated, info


class Failing(Clock):
    """Its third step raises."""

    def step(self, action):
        if self.age == 2:
            raise RuntimeError("the gearbox is broken")
        return super().step(action)


class Dying(Clock):
    """Its third step ends the process without a word."""

    def step(self, action):
        if self.age == 2:
            os._exit(9)
        return super().step(action)


def clocks(n):
    """Of different lengths and flags."""
    return [functools.partial(Clock, 3 + index, index % 3) for index in range(n)]


def vector(mode, n=3):
    return gymnasium.vector.SyncVectorEnv(clocks(n), autoreset_mode=mode)


def clock():
    return hosts.gymnasium(Clock, 2)


def one_size():
    return vector(gymnasium.vector.AutoresetMode.SAME_STEP)


def rewarding():
    """Pays the action itself, from -2 to 6, for three steps."""
    make = functools.partial(Clock, 3)
    # What rises for ever is nothing to act by.
    return hosts.gymnasium(make, 8, actor_part="kind", critic_part="clock")
