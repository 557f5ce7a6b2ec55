"""A stand-in for Isaac Lab and mjlab: their step interface and their shapes, every number known in advance.

Instance `i` has episodes of `lengths[i]` steps, and ends for good, by time, or with both flags, as `i` says.
Group `policy` shows (episode, age), group `critic` the two terms "ages" and "last": its action. All tensors are
buffers that the next call overwrites; they live on the CPU or, as far as anybody can see, on a GPU.
"""

import dataclasses
from types import ModuleType, SimpleNamespace

import numpy as np

from reppo_fx.hosts.reading import map_leaves

FLAGS = [(True, False), (False, True), (True, True)]


class Tensor:
    """As much of a torch tensor as an adapter may use."""

    def __init__(self, array, device):
        self.memory, self.device, self.dtype = array, device, array.dtype

    def detach(self):
        return self

    def cpu(self):
        return self if self.device == "cpu" else Tensor(self.memory.copy(), "cpu")

    def to(self, device):
        return self if device == self.device else Tensor(self.memory.copy(), device)

    def numpy(self):
        if self.device != "cpu":
            raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu().")
        return self.memory

    def __array__(self, *args, **kwargs):
        return np.asarray(self.numpy(), *args, **kwargs)


def fake_torch():
    """What the adapter needs of torch, for machines without it."""
    module = ModuleType("torch")

    def from_numpy(array):
        assert array.flags.writeable, "torch warns of arrays that cannot be written"
        return Tensor(array, "cpu")

    module.from_numpy = from_numpy
    return module


@dataclasses.dataclass
class IsaacConfig:
    """Of Isaac Lab: it restarts in the same step."""

    compute_final_obs: bool = False
    is_finite_horizon: bool = False
    observations: object = None


@dataclasses.dataclass
class MjlabConfig:
    """Of mjlab: it can wait."""

    auto_reset: bool = True
    is_finite_horizon: bool = False


@dataclasses.dataclass
class OldConfig:
    """Of an Isaac Lab that has neither."""

    is_finite_horizon: bool = False


class Lab:
    """Isaac Lab's `DirectRLEnv`; see the module."""

    def __init__(self, cfg, lengths=(3, 4, 5, 1), device="cpu", make=None):
        self.cfg, self.device, self.num_envs = cfg, device, len(lengths)
        self.lengths, self.max_episode_length = np.array(lengths), max(lengths)
        self.single_action_space = box(-np.inf, np.inf, (1,))
        self.make = make or (lambda array: Tensor(array, device))
        n = self.num_envs
        self.age, self.episode = np.zeros(n, int), np.zeros(n, int)
        self.buffers = {
            "policy": np.zeros((n, 2), np.float32),
            "ages": np.zeros((n, 1), np.float32),
            "last": np.zeros((n, 1), np.float32),
            "reward": np.zeros(n, np.float32),
            "flags": np.zeros((2, n), bool),
            "success": np.zeros(n, bool),
            "alive": np.zeros(()),
            "episode_length": np.zeros(n, np.int64),
        }
        self.extras, self.seeds, self.restarts, self.actions, self.closed = {}, [], [], [], 0
        self.given, self.camera = {}, Camera()

    @property
    def unwrapped(self):
        return self

    @property
    def episode_length_buf(self):
        return self.tensor("episode_length", self.age)

    def tensor(self, name, values=None):
        """In the buffer of this name, where the environment keeps it."""
        buffer = self.buffers[name]
        if values is not None:
            buffer[...] = values
        if self.device == "cpu":
            # One tensor for ever: what is written into it later is seen in it.
            return self.given.setdefault(name, self.make(buffer))
        return self.make(buffer)

    def observed(self, action=0.0):
        return {
            "policy": self.tensor("policy", np.stack([self.episode, self.age], 1)),
            "critic": {  # not in the order of the alphabet
                "last": self.tensor("last", np.reshape(action, (-1, 1))),
                "ages": self.tensor("ages", self.age[:, None]),
            },
            "camera": self.camera,
        }

    def reset(self, seed=None, options=None):
        self.seeds.append(seed)
        self.start(np.arange(self.num_envs))
        if seed is not None:
            self.episode[:] = seed
        return self.observed(), self.extras

    def start(self, ids):
        self.age[ids] = 0
        self.episode[ids] += 1
        self.extras["log"] = {
            "Episode_Reward/alive": self.tensor("alive", 9.0),
            "Episode_Termination/time_out": 3,
        }

    def step(self, action):
        assert str(action.device) == self.device
        assert str(action.dtype) in ("float32", "torch.float32")
        action = np.array(action.cpu().numpy())
        self.actions.append(action)
        self.age += 1
        over = self.age >= self.lengths
        flags = np.array([FLAGS[i % 3] for i in range(self.num_envs)]).T & over
        self.extras["success"] = self.tensor("success", over)
        reward = self.tensor("reward", self.age + action[:, 0])
        self.log_of_a_step()
        if over.any():
            self.end(over, action[:, 0])
        observed = self.observed(action[:, 0])
        self.buffers["flags"][:] = flags
        terminated, truncated = (self.make(self.buffers["flags"][i]) for i in range(2))
        return observed, reward, terminated, truncated, self.extras

    def log_of_a_step(self):
        self.extras.setdefault("log", {})["Metrics/slip"] = self.make(np.array(0.5, np.float32))

    def end(self, over, action):
        if getattr(self.cfg, "compute_final_obs", False):
            # A row for each instance; where no episode ended, of an observation of its own, with its own noise.
            noise = np.where(over, 0, 0.5).astype(np.float32)[:, None]
            copied = lambda seen: self.make(seen.cpu().numpy() + noise)
            seen = {key: seen for key, seen in self.observed(action).items() if key != "camera"}
            self.extras["final_obs"] = map_leaves(copied, seen)
        self.start(np.flatnonzero(over))
        self.log_of_a_step()

    def close(self):
        self.closed += 1


class ManagerLab(Lab):
    """Isaac Lab's `ManagerBasedRLEnv`: single instances can be started, though it restarts by itself."""

    def reset(self, seed=None, env_ids=None, options=None):
        if env_ids is None:
            return super().reset(seed)
        ids = np.array(env_ids.cpu().numpy())
        assert str(env_ids.device) == self.device
        assert len(ids), "an empty selection"
        self.restarts.append(ids.tolist())
        self.start(ids)
        return self.observed(), self.extras


class WaitingLab(ManagerLab):
    """mjlab's `ManagerBasedRlEnv` with `auto_reset` off: it insists on being told."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.pending = np.zeros(self.num_envs, bool)

    def start(self, ids):
        super().start(ids)
        self.pending[ids] = False

    def step(self, action):
        if self.pending.any():
            raise RuntimeError(f"{self.pending} must be reset before calling step() again.")
        self.extras["log"], self.buffers["alive"][...] = {}, -99.0
        return super().step(action)

    def end(self, over, action):
        self.pending |= over


class Camera:
    """A group that nobody sees, and that must not be brought over."""

    looked = 0

    def detach(self):
        self.looked += 1
        return self

    def cpu(self):
        return SimpleNamespace(numpy=lambda: np.zeros((4, 8, 8, 3)))


def box(low, high, shape):
    """mjlab's box: bounds are single numbers."""
    return SimpleNamespace(low=low, high=high, shape=shape, dtype="float32")
