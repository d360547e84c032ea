"""Training steps a second of the sparse autoencoder, ours and those of EleutherAI's sparsify, on the same vectors.

    python -m venv other && other/bin/pip install eai-sparsify
    python benchmarks/sae_sparsify.py --sparsify=other/bin/python

Batches of 2,048 vectors of size 64, 2,048 latents of which 32 are kept, unit decoder rows, AuxK switched on with
nothing dead yet, Adam: the step of sparsify's ``Trainer`` without its language model. Its decoder is ``embedding_bag``
where there is no GPU. Each side runs in a process of its own, in turn; the bound is the product of the encoder alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import torch


def vectors(args: argparse.Namespace, steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    size = (args.size, args.size)
    return torch.randn(args.batch * steps, args.size, generator=generator) @ torch.randn(size, generator=generator)


def rates(steps: int, work: Callable[[], float]) -> dict[str, float]:
    """Steps by wall and by processor second, after one run to warm up, and the last FVU."""
    work()
    wall, cpu = time.perf_counter(), time.process_time()
    last = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"steps_a_second": steps / wall, "steps_a_cpu_second": steps / cpu, "fvu": last}


def sparsifys(args: argparse.Namespace) -> dict[str, float]:
    from sparsify import SparseCoder, SparseCoderConfig

    x = vectors(args, args.steps)

    def work() -> float:
        torch.manual_seed(0)
        coder = SparseCoder(args.size, SparseCoderConfig(num_latents=args.latents, k=args.k))
        coder.b_dec.data.copy_(x.mean(0))
        optimizer = torch.optim.Adam(coder.parameters(), lr=1e-3)
        since = torch.zeros(args.latents, dtype=torch.long)
        for rows in x.split(args.batch):
            coder.set_decoder_norm_to_unit_norm()
            out = coder(rows, dead_mask=since > 10_000_000)
            (out.fvu + out.auxk_loss / 32).backward()
            coder.remove_gradient_parallel_to_decoder_directions()
            optimizer.step()
            optimizer.zero_grad()
            fired = torch.zeros(args.latents, dtype=torch.bool)
            fired[out.latent_indices.flatten()] = True
            since += len(rows)
            since[fired] = 0
        return float(out.fvu)

    return rates(args.steps, work)


def ours(args: argparse.Namespace) -> dict[str, float]:
    from recbole_fair.model.popsteer.sae import SAESettings, TopKSAE, fit_sae

    x = vectors(args, args.steps)
    users = torch.arange(len(x)) // 64
    # A user more, since one is held out: as many steps as the other side.
    x, users = torch.cat([x, x[:64]]), torch.cat([users, users.new_full((64,), int(users[-1]) + 1)])

    def work() -> float:
        sae = TopKSAE(args.size, args.latents, args.k)
        settings = SAESettings(epochs=1, batch_size=args.batch, dead_after=10_000_000, validation_share=1e-9)
        return fit_sae(sae, x, users, settings).quality.fvu

    return rates(args.steps, work)


def bound(args: argparse.Namespace) -> float:
    """Steps a second if a step were the product of the encoder alone."""
    x, weight = torch.randn(args.batch, args.size), torch.randn(args.latents, args.size)
    out = torch.empty(args.batch, args.latents)
    best = float("inf")
    for _ in range(30):
        start = time.perf_counter()
        torch.mm(x, weight.t(), out=out)
        best = min(best, time.perf_counter() - start)
    return 1.0 / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sparsify", help="an interpreter that has eai-sparsify")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--latents", type=int, default=2048)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=("sparsify", "ours"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    torch.autograd.set_detect_anomaly(False)
    if args.side:
        print(json.dumps(sparsifys(args) if args.side == "sparsify" else ours(args)))
        return
    most = bound(args)
    print(f"{args.threads} threads; the encoder's product alone: {most:.0f} steps a second", flush=True)
    for _ in range(args.rounds):
        own = apart(sys.executable, "ours")
        print(f"ours: {own}, {own['steps_a_second'] / most:.2f} of the bound", flush=True)
        if args.sparsify:
            other = apart(args.sparsify, "sparsify")
            print(f"sparsify: {other}; ratio {own['steps_a_second'] / other['steps_a_second']:.2f}", flush=True)


def apart(interpreter: str, side: str) -> dict[str, float]:
    """One side in a process of its own."""
    command = [interpreter, __file__, *sys.argv[1:], f"--side={side}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
