"""What the sparse autoencoder and the synthetic users cost, against straightforward versions in the same run.

    python benchmarks/sae.py --threads 2

Processor seconds are printed next to wall seconds: the first hardly depend on what else the machine is doing.
The base model is an untrained SASRec of the paper's size (its speed does not depend on its weights).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction

from recbole_fair.data.facts.profiles import SyntheticProfiles
from recbole_fair.model.bases.sasrec import SASRec
from recbole_fair.model.popsteer.moments import StreamingMoments
from recbole_fair.model.popsteer.sae import SAESettings, TopKSAE, fit_sae
from recbole_fair.model.popsteer.vectors import collect_prefix_vectors

D, WINDOW, N_ITEMS = 64, 50, 3417


class _Settings(dict[str, Any]):
    def __getitem__(self, key: str) -> Any:
        return self.get(key)


class _Dataset:
    field2source: dict[str, str] = {}  # noqa: RUF012

    def num(self, field: str) -> int:
        return N_ITEMS


def sasrec() -> SASRec:
    torch.manual_seed(0)
    return SASRec(
        _Settings(
            USER_ID_FIELD="user_id", ITEM_ID_FIELD="item_id", LIST_SUFFIX="_list", NEG_PREFIX="neg_", device="cpu",
            ITEM_LIST_LENGTH_FIELD="item_length", MAX_ITEM_LIST_LENGTH=WINDOW, n_layers=2, n_heads=2, hidden_size=D,
            inner_size=256, hidden_dropout_prob=0.5, attn_dropout_prob=0.5, hidden_act="gelu", layer_norm_eps=1e-12,
            initializer_range=0.02, loss_type="CE", train_positions="all",
        ),
        _Dataset(),
    ).eval()  # fmt: skip


def clock(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds of one call, after a warm-up."""
    work()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(title: str, unit: int, ours: Callable[[], object], plain: Callable[[], object], plain_unit: int) -> None:
    a, b = clock(ours), clock(plain)
    wall, cpu = (1e6 * t / unit for t in a)
    plain_wall, plain_cpu = (1e6 * t / plain_unit for t in b)
    print(
        f"{title:<34} ours {wall:8.1f} us wall {cpu:8.1f} cpu   plain {plain_wall:8.1f} wall {plain_cpu:8.1f} cpu   "
        f"x{plain_cpu / cpu:.1f} (cpu)",
        flush=True,
    )


def training_step(n_latents: int, k: int, batch: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch * steps, D, generator=generator) @ torch.randn(D, D, generator=generator)
    users = torch.arange(len(x))
    sae = TopKSAE(D, n_latents, k)

    def ours() -> None:
        fit_sae(sae, x, users, SAESettings(epochs=1, batch_size=batch))

    weights = [torch.randn(n_latents, D, requires_grad=True) for _ in range(2)]
    biases = [torch.zeros(n_latents, requires_grad=True), torch.zeros(D, requires_grad=True)]
    optimizer = torch.optim.Adam([*weights, *biases])

    def plain() -> None:
        for rows in x.split(batch):
            z = (rows - biases[1]) @ weights[0].t() + biases[0]
            top = z.topk(k)
            dense = torch.zeros_like(z).scatter(1, top.indices, top.values.relu())
            loss = (dense @ weights[1] + biases[1] - rows).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    compare(f"training, a vector (N={n_latents}, K={k})", len(x), ours, plain, len(x))


def synthetic_users(n: int, n_latents: int) -> None:
    base, sae = sasrec(), TopKSAE(D, n_latents, 32)
    profiles = SyntheticProfiles(torch.arange(1, 343), n, WINDOW)

    @torch.no_grad()
    def ours() -> None:
        moments = StreamingMoments(D)
        for items, lengths in profiles.batches(64):
            moments.update(base.represent_users(Interaction({base.ITEM_SEQ: items, base.ITEM_SEQ_LEN: lengths})))
        moments.linear(sae.W_enc, sae.b_enc)

    @torch.no_grad()
    def plain() -> None:
        kept = [
            sae.encode_pre(base.forward(items, lengths)) for items, lengths in profiles.batches(2048)
        ]  # RecBole's forward pass, activations stored
        torch.cat(kept).std(dim=0)

    compare("synthetic users, a user", n, ours, plain, n)


def vectors(n_users: int, length: int, strides: tuple[int, ...]) -> None:
    base = sasrec()
    users = np.repeat(np.arange(1, n_users + 1), length)
    items = np.random.default_rng(0).integers(1, N_ITEMS, size=len(users))
    sample = min(4096, len(users))
    padded = torch.from_numpy(items[np.arange(sample)[:, None] % (len(items) - WINDOW) + np.arange(WINDOW)])

    @torch.no_grad()
    def plain() -> None:
        for part in padded.split(2048):
            base.forward(part, torch.full((len(part),), WINDOW))

    for stride in strides:
        compare(
            f"vectors, a prefix (stride {stride})",
            len(users),
            lambda stride=stride: collect_prefix_vectors(base, users, items, stride=stride),
            plain,
            sample,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a quarter of the work")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.autograd.set_detect_anomaly(False)  # RecBole's models switch it on when they are imported
    share = 4 if arguments.quick else 1
    for n_latents in (512, 2048, 4096):
        training_step(n_latents, 32, 2048, 24 // share)
    synthetic_users(16384 // share, 2048)
    vectors(120 // share, 165, (1, 10))


if __name__ == "__main__":
    main()
