"""The simulators that a training uses: one to learn in and one to be evaluated in, as large as they need to be."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..settings import Config
from .base import HostEnvironment


class Worlds:
    """Made when first asked for; the one that was given is used where its size is the one that is needed.

    Attributes:
        started: whether the training simulator is where the last state left it.
        evaluated: whether the evaluation simulator has been seeded.
    """

    def __init__(
        self,
        env: HostEnvironment,
        config: Config,
        wrap: Callable[[HostEnvironment], HostEnvironment],
    ) -> None:
        self._given, self._config, self._wrap = env, config, wrap
        self._training: HostEnvironment | None = None
        self._evaluation: HostEnvironment | None = None
        self._shared: HostEnvironment | None = None
        self.started = False
        self.evaluated = False
        # What can be said now is said now.
        wrap(env)

    def training(self, members: tuple[int, ...]) -> HostEnvironment:
        """The one to learn in, for so many members."""
        size = self._config.num_envs * math.prod(members)
        if self._training is None or self._training.num_envs != size:
            if self._training is not None:
                self._training.close()
            self.started = False
            self._training = self._wrap(self._sized(size, "num_envs"))
        return self._training

    def evaluation(self, members: tuple[int, ...]) -> HostEnvironment:
        """The one to be evaluated in; the training one's inside, if there can be no other."""
        size = self._config.num_eval_envs * math.prod(members)
        if self._evaluation is not None and self._evaluation.num_envs == size:
            return self._evaluation
        if self._shared is None:
            try:
                sized = self._given.sized(size)
            except NotImplementedError:
                self._shared = self._given
            else:
                if self._evaluation is not None:
                    self._evaluation.close()
                self.evaluated = False
                self._evaluation = sized
                return sized
        if size > self._given.num_envs:
            raise ValueError(
                f"num_eval_envs is {self._config.num_eval_envs}, but {self._given.name} has only "
                f"{self._given.num_envs // math.prod(members)} instances for each run, and cannot be made again."
            )
        self.started = self.evaluated = False
        return self._shared

    def close(self) -> None:
        """Close all of them."""
        for env in (self._training, self._evaluation, self._given):
            if env is not None:
                env.close()
        self._training = self._evaluation = None
        self.started = self.evaluated = False

    def _sized(self, size: int, setting: str) -> HostEnvironment:
        if self._given.num_envs == size:
            return self._given
        try:
            return self._given.sized(size)
        except NotImplementedError:
            raise ValueError(
                f"{setting} is {getattr(self._config, setting)}, which makes {size} instances, but "
                f"{self._given.name} has {self._given.num_envs} and cannot be made in another size."
            ) from None
