"""What a GPU gives, in at most ten minutes: the CPU's metrics, targets a second beside RecBole's, the autoencoder.

    python benchmarks/gpu.py --data_path=data --dataset=ml-1m              # all parts
    python benchmarks/gpu.py --data_path=data --dataset=ml-1m --parts same # only that metrics are the CPU's
    torchrun --nproc_per_node=1 benchmarks/gpu.py ...                      # one rank over nccl

``same``: checkpoints of SASRec, PopSteer, BPR and TALL, trained for two epochs on the CPU, are evaluated on the CPU and
on the GPU: all metrics agree to 1e-4, or the script ends with 1. ``speed``: training targets a second of our SASRec and
of RecBole's, on this card. ``sae``: steps of the sparse autoencoder a second. ``evaluation``: seconds for all test
users.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from typing import Any

import torch

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.model.popsteer.sae import SAESettings, TopKSAE, fit_sae
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair
from recbole_fair.runs.loading import new_trainer

_SAME = {"SASRec": {}, "PopSteerSASRec": {"sae_epochs": 2}, "BPR": {}, "TALL": {"n_experts": 10, "gap": 1}}
_STEPS, _WARM = 200, 20


def seconds_of(run: Any) -> float:
    """Seconds of a call, with what it has left running on the card."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def same(common: dict[str, Any]) -> bool:
    """Whether the GPU finds the CPU's metrics."""
    agree = True
    for model, settings in _SAME.items():
        trained = run_recbole_fair(model, config_dict={**common, **settings, "epochs": 2, "use_gpu": False})
        on = {
            use_gpu: evaluate_checkpoint(
                trained["checkpoint"],
                {"data_path": common["data_path"], "use_gpu": use_gpu, "gpu_id": 0, "show_progress": False},
            )["test_result"]
            for use_gpu in (False, True)
        }
        worst = max(abs(on[True][name] - value) for name, value in on[False].items())
        agree &= worst <= 1e-4
        print(f"{model:16} largest difference of {len(on[False])} metrics: {worst:.1e}", flush=True)
    return agree


def speed(common: dict[str, Any]) -> None:
    """Training targets a second: ours and RecBole's SASRec (one prefix a row, its own loss), on the same card."""
    for positions, batch in (("all", 2048), ("last", 2048)):
        settings = {"train_positions": positions, "train_batch_size": batch}
        trainer, (train, _, _) = new_trainer(FairConfig("SASRec", config_dict={**common, **settings}))
        model = trainer.model
        if positions == "last":  # RecBole's own training step
            from recbole.model.sequential_recommender.sasrec import SASRec

            model.__class__ = SASRec
        batches = [one.to(trainer.device) for one in itertools.islice(train, _WARM + _STEPS)]
        targets = sum(
            int((one["window_targets"] > 0).sum()) if positions == "all" else len(one) for one in batches[_WARM:]
        )

        def steps(part: list[Any], model: Any = model, trainer: Any = trainer) -> None:
            for one in part:
                trainer.optimizer.zero_grad(set_to_none=True)
                model.calculate_loss(one).backward()
                trainer.optimizer.step()

        model.train()
        steps(batches[:_WARM])
        taken = seconds_of(lambda steps=steps, batches=batches: steps(batches[_WARM:]))
        whose = "recbole_fair, all positions" if positions == "all" else "RecBole, one prefix a row"
        print(f"SASRec, {whose:28}: {targets / taken:12,.0f} targets a second", flush=True)


def sae() -> None:
    """Steps of the sparse autoencoder a second, on vectors of 64 numbers."""
    vectors = torch.randn(400_000, 64, device="cuda")
    users = torch.arange(len(vectors)) // 100
    settings = SAESettings(epochs=2)
    fitted: list[Any] = []
    taken = seconds_of(lambda: fitted.append(fit_sae(TopKSAE(64, 64 * 16, 32, True), vectors, users, settings)))
    print(
        f"autoencoder of 1,024 latents: {fitted[0].inputs / settings.batch_size / taken:,.0f} steps a second",
        flush=True,
    )


def evaluation(common: dict[str, Any]) -> None:
    """Seconds of an evaluation of all test users, SASRec and BPR."""
    for model in ("SASRec", "BPR"):
        trainer, (_, _, test) = new_trainer(FairConfig(model, config_dict=common))
        trainer.evaluate(test, load_best_model=False)
        taken = seconds_of(lambda trainer=trainer, test=test: trainer.evaluate(test, load_best_model=False))
        print(f"evaluation of {model:8}: {taken:.2f} s", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_path", required=True)
    parser.add_argument("--dataset", default="ml-1m")
    parser.add_argument("--parts", default="same,speed,sae,evaluation")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("This needs a GPU that PyTorch can use.")
    print(torch.cuda.get_device_name(), "with PyTorch", torch.__version__)
    common = {"dataset": given.dataset, "data_path": given.data_path, "show_progress": False, "state": "error"}
    parts = given.parts.split(",")
    agree = same(common) if "same" in parts else True
    for name, part in (("speed", speed), ("evaluation", evaluation)):
        if name in parts:
            part(common)
    if "sae" in parts:
        sae()
    sys.exit(0 if agree else 1)


if __name__ == "__main__":
    main()
