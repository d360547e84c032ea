"""An epoch of TALL against a straightforward loop over the same experts: seconds, peak memory, and the same loss.

    python benchmarks/tall.py --data_path=DIRECTORY --threads=2
    python benchmarks/tall.py --dataset=ml-100k --n_experts=20

The loop is written as one would write it first, and as TALL's public code is: a list of autoencoders of ``nn.Linear``
layers on dense rows, one after another, their scores kept for the mixture, PyTorch's plain Adam. It starts from the
same weights, so that its first loss must be that of the stack. Each side runs in a process of its own, whose largest
resident memory is reported. Seconds are those of the clock and, in brackets, of the processor.

The loop is timed on some batches and counted up to an epoch; the stack runs whole epochs with their validation.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from recbole.utils import init_seed
from torch import Tensor, nn

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.registry import get_trainer
from recbole_fair.data.reading.atomic_files import ensure_atomic_files
from recbole_fair.data.reading.prepare import load_data

SECONDS, GIGABYTES = 60.0, 3.0


def prepared(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Trainer, training and validation loader of TALL, seeded."""
    settings: dict[str, Any] = {
        "n_experts": args.n_experts,
        "gate": args.gate,
        "enable_amp": args.amp,
        "eval_args": {"split": {"RS": [0.7, 0.1, 0.2]}, "order": "RO", "group_by": "user", "mode": "full"},
        "user_inter_num_interval": "[0,inf)",
        "item_inter_num_interval": "[0,inf)",
        "group_metrics": None,
        "show_progress": False,
        "state": "error",
    }
    if args.data_path:
        settings["data_path"] = args.data_path
    config = FairConfig("TALL", args.dataset, config_dict=settings)
    ensure_atomic_files(config)
    init_seed(config["seed"], True)
    train, valid, test = load_data(config)
    net = config.model_class(config, train._dataset).to(config["device"])
    trainer = get_trainer(config, config.model_class)(config, net)
    trainer.bind(train, valid, test)
    return trainer, train, valid


def stack(args: argparse.Namespace) -> dict[str, Any]:
    """Whole epochs of the stacked experts; the first warms up."""
    trainer, train, valid = prepared(args)
    net = trainer.model
    found: dict[str, Any] = {"batches": len(train), "first_loss": first_loss(net, train)}
    timed = []
    for epoch in range(args.epochs + 1):
        begun = time.perf_counter(), time.process_time()
        trainer._train_epoch(train, epoch)
        trained = time.perf_counter(), time.process_time()
        trainer._valid_epoch(valid)
        trainer.checkpoints.keep_best()
        ended = time.perf_counter(), time.process_time()
        timed.append([[b - a for a, b in zip(*pair, strict=True)] for pair in ((begun, trained), (trained, ended))])
    training, validation = ([min(entry[part][kind] for entry in timed[1:]) for kind in (0, 1)] for part in (0, 1))
    return found | {"training": training, "validation": validation, "peak": peak()}


@torch.no_grad()
def first_loss(net: Any, train: Any) -> float:
    """Loss of the users 1 to 256 without noise."""
    net.eval()
    users = torch.arange(1, 257).clamp(max=net.n_users - 1)
    loss = float(net.calculate_loss({net.USER_ID: users}))
    net.updates.zero_()
    return loss


class OneVAE(nn.Module):
    """One autoencoder of dense layers."""

    def __init__(self, n_items: int, size: int) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(n_items, 2 * size), nn.Linear(size, n_items)
        self.size = size

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Scores ``[B, I]`` and the mean divergence."""
        mean, logvar = self.encoder(F.normalize(rows)).split(self.size, 1)
        noise = 0.01 * torch.randn_like(mean) if self.training else 0.0
        kl = 0.5 * (logvar.exp() + mean**2 - 1 - logvar).sum(1).mean()
        return self.decoder(mean + noise * torch.exp(0.5 * logvar)), kl


class Loop(nn.Module):
    """The experts of a TALL one by one."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        source = net.experts
        size = source.mean.shape[2]
        self.experts = nn.ModuleList(OneVAE(net.n_items - 1, size) for _ in range(net.n_experts))
        with torch.no_grad():
            for k, expert in enumerate(self.experts):
                expert.encoder.weight.copy_(torch.cat([source.mean[k], source.logvar[k]], 1).t())
                expert.encoder.bias.copy_(torch.cat([source.mean_bias[k], source.logvar_bias[k]]))
                expert.decoder.weight.copy_(source.decoder[:, k])
                expert.decoder.bias.copy_(source.decoder_bias[k])
        self.gate = net.gate

    def forward(self, rows: Tensor, held_out: Tensor, anneal: float) -> Tensor:
        """The loss of a batch."""
        scores, losses, divergences = [], [], []
        for expert in self.experts:
            score, kl = expert(rows)
            with torch.no_grad():
                shown = score.masked_fill(rows > 0, -torch.inf)
                log_p = score - torch.logsumexp(shown, 1, keepdim=True)
                losses.append(-(log_p * held_out).sum(1))
            scores.append(score)
            divergences.append(kl)
        gate = torch.full((len(rows), len(scores)), 1 / len(scores))
        if self.gate == "inverse":
            gate = torch.softmax(1 / torch.stack(losses, 1), 1)
        mixed = torch.zeros_like(rows)
        for k, score in enumerate(scores):
            mixed = mixed + gate[:, k : k + 1] * score
        loss = -(F.log_softmax(mixed, 1) * rows).sum(1).mean()
        return loss + anneal * sum(gate[:, k].mean() * kl for k, kl in enumerate(divergences))


def loop(args: argparse.Namespace) -> dict[str, Any]:
    """Some training batches and scored batches of the loop, counted up to an epoch."""
    trainer, train, _ = prepared(args)
    net = trainer.model
    net.begin_epoch(0)
    reference, experts = first_loss(net, train), Loop(net)
    users = torch.arange(1, 257).clamp(max=net.n_users - 1)

    def dense(some: Tensor) -> tuple[Tensor, Tensor]:
        return net.training_rows.of(some).dense(), net.held_out.of(some).dense()

    experts.eval()
    with torch.no_grad():
        own = float(experts(*dense(users), 1 / net.total_anneal_steps))
    experts.train()
    n_users = int((net.rows.lengths > 0).sum())
    # Its own Adam in place of the stack's parameters.
    trainer.model = None
    del net.experts
    optimizer = torch.optim.Adam(experts.parameters(), lr=0.001, weight_decay=0.001 / args.n_experts)
    timed = []
    for batch, interaction in enumerate(train):
        if batch > args.loop_batches:
            break
        begun = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        with torch.autocast("cpu", enabled=args.amp):
            loss = experts(*dense(interaction[net.USER_ID]), 1e-6)
        loss.backward()
        optimizer.step()
        timed.append([time.perf_counter() - begun[0], time.process_time() - begun[1]])
    experts.eval()
    begun = time.perf_counter(), time.process_time()
    some = next(iter(train))[net.USER_ID]
    with torch.no_grad():
        experts(*dense(some), 0.0)
    share = n_users / len(some)
    validation = [share * (time.perf_counter() - begun[0]), share * (time.process_time() - begun[1])]
    training = [len(train) * min(entry[kind] for entry in timed[1:]) for kind in (0, 1)]
    return {
        "first_loss": own,
        "reference": reference,
        "training": training,
        "validation": validation,
        "peak": peak(),
    }


def peak() -> float:
    """Largest resident memory of this process so far, in gigabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="ml-1m")
    parser.add_argument("--data_path")
    parser.add_argument("--n_experts", type=int, default=100)
    parser.add_argument("--gate", choices=["inverse", "uniform"], default="inverse")
    parser.add_argument("--amp", action="store_true", help="train both sides under autocast (enable_amp)")
    parser.add_argument("--epochs", type=int, default=1, help="measured epochs of the stack, after one that warms up")
    parser.add_argument("--loop_batches", type=int, default=2, help="measured batches of the loop, after one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", choices=["stack", "loop"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    if args.part:
        print(json.dumps({"stack": stack, "loop": loop}[args.part](args)))
        return
    found = {}
    for part in ("stack", "loop"):
        command = [sys.executable, __file__, *sys.argv[1:], f"--part={part}"]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        found[part] = one = json.loads(lines[-1])
        epoch = [a + b for a, b in zip(one["training"], one["validation"], strict=True)]
        one["epoch"] = epoch
        print(
            f"{part}: training {one['training'][0]:.1f} s ({one['training'][1]:.1f}), scoring all users "
            f"{one['validation'][0]:.1f} s ({one['validation'][1]:.1f}), an epoch {epoch[0]:.1f} s ({epoch[1]:.1f}); "
            f"peak {one['peak']:.2f} GB",
            flush=True,
        )
    own, other = found["stack"], found["loop"]
    print(f"the same first loss: {own['first_loss']:.4f} and {other['first_loss']:.4f}")
    for kind, name in enumerate(("clock", "processor")):
        print(f"by the {name} the loop takes {other['epoch'][kind] / own['epoch'][kind]:.1f} times as long")
    print(f"the loop takes {other['peak'] / own['peak']:.1f} times the memory")
    print(f"an epoch {'within' if own['epoch'][0] <= SECONDS else 'ABOVE'} {SECONDS:.0f} s")
    print(f"the peak {'within' if own['peak'] <= GIGABYTES else 'ABOVE'} {GIGABYTES:.0f} GB")


if __name__ == "__main__":
    main()
