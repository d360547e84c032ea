"""SASRec of recbole_fair and of RecTools: training targets a second, and accuracy after the same number of targets.

    python -m venv rectools && rectools/bin/pip install "rectools[torch]==0.19.0"
    python benchmarks/sasrec_rectools.py --data_path=data --rectools=rectools/bin/python --seconds=20
    python benchmarks/sasrec_rectools.py --data_path=data --rectools=rectools/bin/python --targets=3000000

Both train on the same training split with the same width, blocks, heads, window and dropout, all positions of a window
at once, softmax over all items. The feed-forward network is RecBole's (256 inner units) on our side and RecTools' (64)
on theirs. Each side runs in a process of its own, in turn; the first batches warm up. With ``--targets`` both train on
so many targets and are then measured on the validation items, full ranking, nothing masked.

The bound is what the matrix products of a step would take alone at the speed at which this machine multiplies
single-precision matrices of that size.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

WARM_UP = 3
WIDTH, BLOCKS, HEADS, WINDOW, DROPOUT = 64, 2, 2, 50, 0.2


class Clock:
    """Targets, wall and processor seconds after the warm-up, until time or targets run out."""

    def __init__(self, seconds: float | None, targets: int | None) -> None:
        self.seconds, self.limit = seconds, targets
        self.batches = self.total = self.counted = 0
        self.start = self.cpu = 0.0

    def after(self, targets: int) -> bool:
        """Count a batch; whether to stop."""
        self.batches += 1
        self.total += targets
        if self.batches == WARM_UP:
            self.start, self.cpu = time.perf_counter(), time.process_time()
        elif self.batches > WARM_UP:
            self.counted += targets
        if self.limit is not None:
            return self.total >= self.limit
        assert self.seconds is not None
        return self.batches > WARM_UP and time.perf_counter() - self.start >= self.seconds

    def result(self) -> dict[str, float]:
        """Targets by second, and in all."""
        wall, cpu = time.perf_counter() - self.start, time.process_time() - self.cpu
        return {
            "targets_a_second": self.counted / wall,
            "targets_a_cpu_second": self.counted / cpu,
            "targets": self.total,
        }


def ndcg(lists: np.ndarray, target: np.ndarray) -> float:
    """NDCG@10 with one relevant item: ``lists`` ``[U, 10]``, ``target`` ``[U]``."""
    row, place = np.nonzero(lists == target[:, None])
    return float((1.0 / np.log2(place + 2.0)).sum() / len(target)) if len(row) else 0.0


def rectools_side(file: str, args: argparse.Namespace) -> dict[str, float]:
    import pandas as pd
    from pytorch_lightning import Callback, Trainer
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    data = np.load(file)
    clock = Clock(args.seconds, args.targets)

    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, number: int) -> None:
            trainer.should_stop = clock.after(int((batch["y"] != 0).sum()))

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=10**6, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[Stop()],
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip

    model = SASRecModel(
        n_factors=WIDTH, n_blocks=BLOCKS, n_heads=HEADS, session_max_len=WINDOW, dropout_rate=DROPOUT, loss="softmax",
        batch_size=args.windows, lr=args.rectools_rate, get_trainer_func=trainer,
    )  # fmt: skip
    when = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(data["user"])), unit="s")
    table = pd.DataFrame({Columns.User: data["user"], Columns.Item: data["item"], Columns.Weight: 1.0})
    table[Columns.Datetime] = when
    dataset = Dataset.construct(table)
    torch.manual_seed(args.seed)
    model.fit(dataset)
    found = clock.result()
    if args.targets is not None:
        reco = model.recommend(data["valid_user"], dataset, k=10, filter_viewed=False)
        lists = np.full((int(data["valid_user"].max()) + 1, 10), -1)
        lists[reco[Columns.User], reco[Columns.Rank] - 1] = reco[Columns.Item]
        found["ndcg"] = ndcg(lists[data["valid_user"]], data["valid_item"])
    return found


def our_settings(args: argparse.Namespace, batch: int) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "show_progress": False, "state": "error", "seed": args.seed, "hidden_size": WIDTH, "n_layers": BLOCKS,
        "n_heads": HEADS, "MAX_ITEM_LIST_LENGTH": WINDOW, "train_batch_size": batch, "metrics": ["NDCG"],
    }  # fmt: skip
    if args.data_path:
        settings["data_path"] = args.data_path
    return {**settings, **dict(pair.split("=", 1) for pair in args.ours)}


def our_side(args: argparse.Namespace, batch: int) -> dict[str, float]:
    from recbole_fair.config.fair_config import FairConfig
    from recbole_fair.data.batches.windows import WINDOW_TARGETS
    from recbole_fair.runs.loading import new_trainer

    trainer, (train, valid, _) = new_trainer(FairConfig("SASRec", args.dataset, config_dict=our_settings(args, batch)))
    clock, stop, epochs = Clock(args.seconds, args.targets), False, itertools.count()
    while not stop:
        if trainer._schedule is not None:  # the rate rises over the first epoch
            trainer._schedule.begin(next(epochs), len(train))
        for one in train:
            trainer.model.train()
            trainer.optimizer.zero_grad()
            trainer.model.calculate_loss(one).backward()
            trainer.optimizer.step()
            stop = clock.after(int((one[WINDOW_TARGETS] > 0).sum()))
            if stop:
                break
    found = clock.result()
    if args.targets is not None:
        found["ndcg"] = trainer.evaluate(valid, load_best_model=False)["ndcg@10"]
    return found


def write_split(args: argparse.Namespace, file: Path) -> int:
    """The training interactions in order and the validation items, for the other side; number of items."""
    from recbole_fair.config.fair_config import FairConfig
    from recbole_fair.data.facts.interactions import training_interactions
    from recbole_fair.runs.loading import new_trainer

    _, (train, valid, _) = new_trainer(FairConfig("SASRec", args.dataset, config_dict=our_settings(args, 6400)))
    inter, held = training_interactions(train._dataset), training_interactions(valid._dataset)
    np.savez(file, user=inter.user, item=inter.item, valid_user=held.user, valid_item=held.item)
    return inter.n_items


def bound(n_items: int, rows: int) -> float:
    """Targets a second if a step were its matrix products alone."""
    hidden, weight = torch.randn(rows, WIDTH), torch.randn(n_items, WIDTH)
    logits = torch.empty(rows, n_items)
    inner = torch.randn(rows, 256)
    shapes = [(hidden, torch.randn(WIDTH, n)) for n in (WIDTH,) * 4 + (256,)] + [(inner, torch.randn(256, WIDTH))]

    def once() -> None:
        torch.mm(hidden, weight.t(), out=logits)
        torch.mm(logits, weight)
        torch.mm(hidden.t(), logits)
        for _ in range(BLOCKS):
            for a, b in shapes:  # forwards, and both gradients
                out = a @ b
                _ = out @ b.t(), a.t() @ out

    once()
    best = min(_timed(once) for _ in range(10))
    return rows / best


def _timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="ml-1m")
    parser.add_argument("--data_path")
    parser.add_argument("--rectools", help="an interpreter that has rectools[torch]")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--targets", type=int, help="train on so many and measure NDCG@10, instead of a time")
    parser.add_argument("--windows", type=int, default=128, help="windows a batch of RecTools; ours are as large")
    parser.add_argument("--rectools-rate", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--ours", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of ours")
    parser.add_argument("--batches", nargs="+", type=int, default=[6400, 512], help="targets a batch of ours")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--side", choices=("rectools", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    torch.autograd.set_detect_anomaly(False)
    if args.side:
        found = rectools_side(args.file, args) if args.side == "rectools" else our_side(args, args.batches[0])
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "split.npz"
        n_items = write_split(args, file)
        flops_bound = bound(n_items, 512)
        print(f"{args.threads} threads; products alone: {flops_bound:.0f} targets a second", flush=True)
        for _ in range(args.rounds):
            first = None
            if args.rectools:
                first = apart(args.rectools, ["--side=rectools", f"--file={file}"])
                print("RecTools", first, flush=True)
            for batch in args.batches:
                ours = apart(sys.executable, ["--side=ours", "--batches", str(batch)])
                share = ours["targets_a_second"] / flops_bound
                ratio = f"{ours['targets_a_second'] / first['targets_a_second']:.2f} times, " if first else ""
                print(f"ours, batches of {batch}: {ours}: {ratio}{share:.2f} of the bound", flush=True)


def apart(interpreter: str, more: list[str]) -> dict[str, float]:
    """One side in a process of its own."""
    command = [interpreter, __file__, *sys.argv[1:], *more]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
