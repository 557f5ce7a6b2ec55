"""The policies of a run on disk: the last ones and the best (arrays in NumPy's format, no pickle)."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from numpy.typing import NDArray

from ..learner.state import TrainState
from ..training.policy import Policy, make_policy
from ..training.train import make_train
from .durable import write_whole
from .leaves import named_leaves, rounded
from .plan import Plan
from .records import read_config, world
from .table import METRICS, read_returns
from .worlds import AnyTrain, init_shapes

T = TypeVar("T")
POLICY, BEST_POLICY = "policy.eqx", "policy-best.eqx"


def save_policies(folder: Path, train: AnyTrain, state: TrainState) -> None:
    """Write the policies of all members to `policy.eqx` (arrays in NumPy's format, no pickle)."""
    _write_arrays(folder / POLICY, policies_of(train, state))


class BestPolicies:
    """`policy-best.eqx`: each member's policy at its own best evaluation, with that return and its steps.

    Only evaluations that are due count, so that a run that was interrupted ends with the same ones.

    Args:
        folder: of the run; what it has already is gone on from.
        train: from `make_train`.
        plan: what is run.
        done: iterations that the run goes on from.
    """

    def __init__(self, folder: Path, train: AnyTrain, plan: Plan, done: int = 0) -> None:
        self._path, self._train = folder / BEST_POLICY, train
        self._best = _nothing_yet(plan, _blank(train, plan))
        if done and self._path.is_file():
            self._best = _read_arrays(self._path, self._best)

    def update(self, env_steps: int, returns: NDArray[Any], state: TrainState) -> None:
        """Take in an evaluation with the returns `[members]`; the file is only written when one is a new best."""
        scores = np.where(np.isfinite(returns), returns, -np.inf).astype(np.float64)
        better = (scores > self._best.returns) | (self._best.env_steps == 0)
        if not better.any():
            return

        def choose(new: Any, old: Any) -> NDArray[Any]:
            chosen: NDArray[Any] = np.asarray(new)
            if not better.all():
                which = better.reshape(-1, *[1] * (chosen.ndim - 1))
                chosen = np.where(which, chosen, old)
            return chosen

        self._best = _Best(
            choose(scores, self._best.returns),
            choose(np.full(len(scores), env_steps), self._best.env_steps),
            jax.tree.map(choose, policies_of(self._train, state), self._best.policies),
        )
        _write_arrays(self._path, self._best)


class _Best(NamedTuple):
    returns: NDArray[Any]
    env_steps: NDArray[Any]
    policies: Policy


def _nothing_yet(plan: Plan, blank: Policy) -> _Best:
    members = len(plan.labels) * plan.num_seeds
    return _Best(np.full(members, -np.inf), np.zeros(members, np.int64), blank)


def load_policies(folder: str | Path, best: bool = False) -> Policy:
    """The policies of a run, stacked: every leaf has a leading axis over members (settings × seeds).

    They come in the precision that jax has here, whatever it was where they were trained.

    Args:
        folder: of the run.
        best: each member's policy at the evaluation where it had its own highest return, instead of the last
            one. (The checkpoint that is kept as the best is that of all members at the evaluation where the best
            setting's mean was highest.)

    Returns:
        The policies; `policies[member]`, or `jax.vmap` over them.

    Raises:
        ValueError: if the folder holds no run, or its policy file does not fit its config.
    """
    folder = Path(folder)
    description = read_config(folder)
    path = folder / (BEST_POLICY if best else POLICY)
    if not path.is_file():
        moment = "first evaluation" if best else "first training step"
        raise ValueError(f"{folder} has no {path.name}; the run ended before its {moment}.")
    plan = Plan.from_json(description)
    # How long a run is does not matter to its policies: no sentence about that.
    config = dataclasses.replace(
        plan.config, num_evals=1, total_steps=plan.config.steps_per_iteration
    )
    blank = _blank(make_train(world(description), config), plan)
    found = _read_arrays(path, _nothing_yet(plan, blank)).policies if best else None
    policies: Policy = jax.tree.map(jnp.asarray, found or _read_arrays(path, blank))
    return policies


class PolicyScore(NamedTuple):
    """The return of a policy at its evaluation and the environment steps until then; none where there was none."""

    env_steps: int | None
    value: float | None


def score_of(folder: Path, plan: Plan, member: int, best: bool) -> PolicyScore:
    """What a member's last policy had at the last evaluation, or its best policy at its best one.

    Raises:
        ValueError: if `metrics.csv` is not as a run writes it.
    """
    steps, returns = read_returns(folder / METRICS, plan)
    # As `BestPolicies` chooses: only evaluations that are due count, and the first of equal ones.
    due = {iterations * plan.config.steps_per_iteration for iterations in plan.due}
    rows = [row for row, taken in enumerate(steps) if not best or int(taken) in due]
    if not rows:
        return PolicyScore(None, None)
    of_member = returns.reshape(len(steps), -1)[rows, member]
    finite = np.where(np.isfinite(of_member), of_member, -np.inf)
    row = int(np.argmax(finite)) if best else len(rows) - 1
    value = float(of_member[row])
    return PolicyScore(int(steps[rows[row]]), value if np.isfinite(value) else None)


def load_policy(folder: str | Path, seed: int = 0, setting: int = 0, best: bool = False) -> Policy:
    """One policy from a run: `observation -> action`, any leading axes.

    Returns:
        The policy.

    >>> # policy = load_policy("runs/CartpoleBalance")
    >>> # action = policy(observation)

    Args:
        folder: of the run.
        seed: which one, from 0.
        setting: counts as in `metrics.csv`.
        best: the policy at the evaluation where this member had its highest return, instead of the last one.

    Raises:
        ValueError: if the folder holds no run, or the seed or the setting is not in it.
    """
    member = member_of(Plan.from_json(read_config(Path(folder))), seed, setting)
    policy: Policy = jax.tree.map(lambda leaf: leaf[member], load_policies(folder, best))
    return policy


def member_of(plan: Plan, seed: int, setting: int) -> int:
    """Where a seed of a setting is among all members.

    Raises:
        ValueError: if the seed or the setting is not in the run.
    """
    num_settings = len(plan.labels)
    if not 0 <= seed < plan.num_seeds:
        raise ValueError(f"seed is {seed}; this run has seeds 0 to {plan.num_seeds - 1}.")
    if not 0 <= setting < num_settings:
        raise ValueError(f"setting is {setting}; this run has settings 0 to {num_settings - 1}.")
    return setting * plan.num_seeds + seed


def policies_of(train: AnyTrain, state: TrainState) -> Policy:
    """The policies of all members, stacked."""
    policies: Policy = jax.vmap(lambda one: make_policy(train, one))(state)
    return policies


def _blank(train: AnyTrain, plan: Plan) -> Policy:
    """The policies of all members, as shapes."""
    shapes = init_shapes(train, *plan.members())
    blank: Policy = jax.eval_shape(lambda state: policies_of(train, state), shapes)
    return blank


def _write_arrays(path: Path, tree: PyTree) -> None:
    file = io.BytesIO()
    for leaf in jax.tree.leaves(tree):
        np.save(file, np.asarray(leaf), allow_pickle=False)
    write_whole(path, file.getvalue())


def _read_arrays(path: Path, like: T) -> T:
    """Arrays from a file as `like` has them; real numbers of another precision are rounded to the one here.

    Raises:
        ValueError: naming the first leaf that does not fit.
    """
    arrays = []
    with path.open("rb") as file:
        for name, expected in named_leaves(like).items():
            here = np.dtype(expected.dtype)
            try:
                array = np.load(file, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise _unfit(path, f"{name} cannot be read ({error})") from error
            if array.dtype.kind == "V" and array.dtype.itemsize == here.itemsize:
                array = array.view(here)  # a dtype that NumPy's format has no name for, as bfloat16
            converted = rounded(array, here)
            if converted is None or array.shape != expected.shape:
                there = f"{list(array.shape)} {array.dtype} in it"
                raise _unfit(path, f"{name} is {there}, but {list(expected.shape)} {here} here")
            arrays.append(converted)
        if file.read(1):
            raise _unfit(path, "it holds more")
    tree: T = jax.tree.unflatten(jax.tree.structure(like), arrays)
    return tree


def _unfit(path: Path, why: str) -> ValueError:
    return ValueError(f"{path} does not fit the settings in config.json: {why}.")
