"""How many histories a second ``Recommender.recommend`` answers: SASRec, and PopSteer on it, at the size of ml-1m.

Run as ``python benchmarks/recommend.py [--threads 2] [--histories 12000]``. Weights are random, which changes
nothing of the work; histories are as long as those of ml-1m (median about 96, mean about 165, from 20 to 2,314 items).
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.facts.stored import StoredDataset
from recbole_fair.runs.building import new_model
from recbole_fair.runs.recommender import Recommender

N_ITEMS, N_USERS = 3706, 6040


def histories_like_ml_1m(n: int) -> list[list[str]]:
    """Items by popularity, lengths log-normal from 20 to 2,314."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(np.log(96), 1.05, n)), 20, 2314).astype(int)
    weight = 1.0 / (np.arange(N_ITEMS) + 50.0)
    drawn = rng.choice(N_ITEMS, size=int(lengths.sum()), p=weight / weight.sum())
    rows = np.split(drawn, lengths.cumsum()[:-1])
    return [[str(item + 1) for item in row] for row in rows]


def recommender(model: str) -> Recommender:
    """One with random weights."""
    config = FairConfig(model, "ml-1m", config_dict={"use_gpu": False})
    data = {
        "items": ["[PAD]", *(str(item + 1) for item in range(N_ITEMS))],
        "users": ["[PAD]", *(str(user + 1) for user in range(N_USERS))],
        "titles": None,
        "counts": torch.arange(N_ITEMS + 1),
        "interactions": {},
        "features": {"users": {}, "items": {}},
    }
    dataset = StoredDataset(config, data)
    net = new_model(config, dataset)
    if model.startswith("PopSteer"):
        net.neurons.normal_()
        net.fitted.fill_(True)
    return Recommender(net, config, dataset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--histories", type=int, default=12_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[])
    parser.add_argument("--cpu-time", action="store_true", help="seconds of the processor")
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter
    torch.set_num_threads(args.threads)
    given = histories_like_ml_1m(args.histories)
    print(f"{args.histories} histories, mean length {np.mean(list(map(len, given))):.0f}, {args.threads} threads")
    for model in ("SASRec", "PopSteerSASRec"):
        rec = recommender(model)
        rec.recommend(given[:500])
        for size in args.batch_sizes or [None]:
            seconds = []
            for _ in range(args.rounds):
                start = clock()
                rec.recommend(given, k=10, batch_size=size)
                seconds.append(clock() - start)
            rates = [args.histories / second for second in sorted(seconds)]
            best, median = rates[0], rates[len(rates) // 2]
            print(f"{model}, batch {size or 'default'}: best {best:,.0f}, median {median:,.0f} a second")


if __name__ == "__main__":
    main()
