"""95 % intervals by resampling users, for means over users and for metrics of all lists together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recbole_fair.evaluator.inputs import EvalInputs
from recbole_fair.evaluator.specs import MetricSpec, PerUser

CELLS = 16_000_000  # largest number of resample-item (or resample-row) pairs held at once


def draws(users: Tensor, n: int, seed: int, rows_at_once: int | None = None) -> Iterator[Tensor]:
    """Draw users with replacement, as many as there are; the rows of a user come and go together.

    Args:
        users: User of each row, long ``[U]``.
        n: Number of resamples.
        seed: Seed of a generator of its own.
        rows_at_once: Resamples in one block; chosen from a memory budget if None.

    Yields:
        Blocks ``[b, U]`` (float64) of how often each row is drawn; the blocks together have n rows. The same seed gives
        the same draws whatever the block size.
    """
    generator = np.random.default_rng(seed)
    _, row_user = np.unique(users.cpu().numpy(), return_inverse=True)
    n_users = int(row_user.max()) + 1 if len(row_user) else 0
    step = rows_at_once or max(1, CELLS // max(1, len(users)))
    for start in range(0, n, step):
        block = min(step, n - start)
        times = np.stack(
            [np.bincount(generator.integers(0, n_users, n_users), minlength=n_users) for _ in range(block)]
        )
        yield torch.from_numpy(times[:, row_user].astype(np.float64))


def interval(value: float, resampled: Tensor, low: float = -np.inf, high: float = np.inf) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points of the resampled values, moved so that their mean is the value of the sample.

    A resample holds about 63 % of the users, so that coverage, entropy or Gini of resamples are shifted against the
    sample's own value; the spread around their mean is what the interval is about. For means over users the move is
    close to nothing.

    Args:
        value: Value of the sample.
        resampled: Values of the resamples ``[B]``; NaN ones are ignored.
        low: Smallest possible value of the metric.
        high: Largest possible value of the metric.

    Returns:
        The bounds, NaN without any resample.
    """
    known = resampled[~resampled.isnan()]
    if not len(known):
        return float("nan"), float("nan")
    points = torch.quantile(known.double(), torch.tensor([0.025, 0.975], dtype=torch.double)) - known.mean() + value
    a, b = points.clamp(low, high).tolist()
    return a, b


def per_user_resamples(inputs: EvalInputs, found: dict[str, PerUser], n: int, seed: int) -> dict[str, Tensor]:
    """Resampled values of metrics that are means over users.

    Args:
        inputs: The evaluation.
        found: Per-user values by metric name.
        n: Number of resamples.
        seed: Seed of the draws.

    Returns:
        Metric name to float64 ``[n, len(topk)]``.
    """
    parts: dict[str, list[Tensor]] = {name: [] for name in found}
    for times in draws(inputs.users, n, seed):
        for name, per_user in found.items():
            parts[name].append(per_user.mean(times))
    return {name: torch.cat(part) for name, part in parts.items()}


def per_item_resamples(inputs: EvalInputs, specs: list[MetricSpec], n: int, seed: int) -> dict[str, Tensor]:
    """Resampled values of metrics of the item counts.

    The counts of a resample are a product of the draws with the sparse rows-by-items matrix, so that lists are gone
    through once a cutoff and not once a resample.

    Args:
        inputs: The evaluation.
        specs: Metrics; those without ``per_item`` functions are passed over.
        n: Number of resamples.
        seed: Seed of the draws.

    Returns:
        ``name@k`` to float64 ``[n]``.
    """
    parts: dict[str, list[Tensor]] = {}
    specs = [spec for spec in specs if spec.per_item is not None]
    width = inputs.n_items - 1
    step = max(1, CELLS // max(1, inputs.n_rows, width))
    items = inputs.items.cpu().numpy()
    for k in inputs.topk if specs else ():
        row, rank = np.nonzero(items[:, :k])
        column = items[row, rank] - 1
        for exposure in {spec.exposure for spec in specs}:
            weight = 1 / np.log2(rank + 2.0) if exposure else np.ones(len(row))
            shown = sparse.csr_matrix((weight, (column, row)), shape=(width, inputs.n_rows))
            for times in draws(inputs.users, n, seed, step):
                counts = torch.from_numpy(np.ascontiguousarray((shown @ times.numpy().T).T))
                for spec in specs:
                    if spec.exposure == exposure and spec.per_item is not None:
                        for suffix, function in spec.per_item(inputs.options).items():
                            parts.setdefault(f"{spec.key}{suffix}@{k}", []).append(function(counts))
    return {key: torch.cat(part) for key, part in parts.items()}
