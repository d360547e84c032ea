"""What SPREE's fitting and scoring cost, part by part, on a base model of the paper's size.

    python benchmarks/spree.py --threads 2

The base is an untrained SASRec of three blocks and a window of 200 (its speed does not depend on its weights). Seconds
are for MovieLens 1M: 5,000 profiles of 100 items a side and 6,040 validation users. Processor seconds are printed next
to wall seconds: the first hardly depend on what else the machine is doing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction

from recbole_fair.config.registry import get_model
from recbole_fair.model.spree.probe import Site, fit_bias_estimator, probe_accuracy
from recbole_fair.model.spree.spree import SPREE

D, WINDOW, N_ITEMS, PROFILES, USERS = 64, 200, 3417, 10_000, 6040


class _Settings(dict[str, Any]):
    def __getitem__(self, key: str) -> Any:
        return self.get(key)


class _Dataset:
    def num(self, field: str) -> int:
        return N_ITEMS


def spree() -> SPREE:
    torch.manual_seed(0)
    model = get_model("SPREESASRec")(
        _Settings(
            USER_ID_FIELD="user_id", ITEM_ID_FIELD="item_id", LIST_SUFFIX="_list", NEG_PREFIX="neg_", device="cpu",
            ITEM_LIST_LENGTH_FIELD="item_length", MAX_ITEM_LIST_LENGTH=WINDOW, n_layers=3, n_heads=2, hidden_size=D,
            inner_size=256, hidden_dropout_prob=0.2, attn_dropout_prob=0.2, hidden_act="gelu", layer_norm_eps=1e-12,
            initializer_range=0.02, loss_type="CE", train_positions="all", spree_sites="last",
        ),
        _Dataset(),
    )  # fmt: skip
    model.freeze_base()
    model.direction[0] = 1.0
    model.coefficients[0] = 0.1
    model.fitted.fill_(True)
    return model


def show(title: str, work: Callable[[], object], times: float) -> None:
    """Print the seconds of a full fit, from one call that does ``1 / times`` of it, after a warm-up."""
    work()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{title:<58} {wall * times:8.1f} s wall {cpu * times:8.1f} s cpu", flush=True)


def batch(rows: int, length: int) -> Interaction:
    items = torch.randint(1, N_ITEMS, (rows, length))
    return Interaction({"item_id_list": items, "item_length": torch.full((rows,), length)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    torch.autograd.set_detect_anomaly(False)  # RecBole's models switch it on when they are imported
    model = spree()
    sites = [Site(block, -1) for block in (1, 2, 3)]
    profiles, users = batch(32, 100), batch(16, WINDOW)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(PROFILES, D)).astype(np.float32)
    y = np.clip(x[:USERS] @ rng.normal(size=D) * 0.02 + rng.normal(size=USERS) * 0.1, -0.5, 0.5)

    print("fitting")
    show("activations of the profiles at the last position", lambda: model.activations(profiles, sites), PROFILES / 32)
    show("three probes", lambda: probe_accuracy(x[:5000] + 0.5, x[5000:], 0), 3)
    show("base lists of the validation users", lambda: model.base.full_sort_predict(users).topk(100), USERS / 16)
    show("activations of the validation users", lambda: model.activations(users, sites[-1:]), USERS / 16)
    show("bias estimator, measured and fitted", lambda: fit_bias_estimator(x[:USERS], y, "cv", 0), 1)
    print("scoring the validation users")
    with model.use_variant("base"):
        show("base", lambda: model.represent_users(users), USERS / 16)
    for site in (sites[-1], sites[0]):
        model.site.copy_(torch.tensor(site))
        show(f"adaptive at block {site.block}", lambda: model.represent_users(users), USERS / 16)


if __name__ == "__main__":
    main()
