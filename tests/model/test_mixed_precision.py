"""Training under RecBole's ``enable_amp``: the loss and its gradients are those of full precision, up to rounding."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.errors import FairError
from recbole_fair.quick_start import run_recbole_fair
from recbole_fair.runs.loading import new_trainer

CASES: list[tuple[str, dict[str, Any]]] = [
    ("SASRec", {"MAX_ITEM_LIST_LENGTH": 8, "hidden_size": 16, "inner_size": 16, "hidden_dropout_prob": 0.0}),
    ("ILEBPR", {"embedding_size": 8}),
    ("DecFM", {"embedding_size": 8, "dropout_prob": [0.0, 0.0]}),
    ("DecNFM", {"embedding_size": 8, "dropout_prob": [0.0, 0.0], "mlp_hidden_size": [8]}),
    ("MultVAE", {"latent_dimension": 4}),
    ("TALL", {"latent_dimension": 4, "n_experts": 3}),
    ("TALL", {"latent_dimension": 4, "n_experts": 3, "gate": "softmax", "gate_grad": True}),
    ("TALL", {"latent_dimension": 4, "n_experts": 3, "gate": "mlp", "gate_hidden_size": 8}),
]


@pytest.mark.parametrize(("model", "changes"), CASES)
def test_loss_and_gradients_of_a_batch(model: str, changes: dict[str, Any], small_data: Path, in_tmp: Path):
    options = {"data_path": str(small_data), "train_batch_size": 64, "state": "error", **changes}
    trainer, (train, *_) = new_trainer(FairConfig(model, "small", config_dict=options))
    net = trainer.model
    batch = next(iter(train)).to(trainer.device)

    def found(half: bool) -> tuple[float, torch.Tensor]:
        net.train()
        torch.manual_seed(1)
        with torch.autocast(trainer.device.type, enabled=half):
            losses = net.calculate_loss(batch)
        loss = sum(losses) if isinstance(losses, tuple) else losses
        # Not backward(): there the trainer's optimizer moves parameters and lets go of their gradients.
        params = list(net.parameters())
        grads = torch.autograd.grad(loss, params, allow_unused=True)
        return float(loss.detach()), torch.cat([grad.reshape(-1) for grad in grads if grad is not None])

    (full, grads), (half, rounded) = found(False), found(True)
    assert half == pytest.approx(full, rel=0.01)
    assert float(torch.cosine_similarity(grads, rounded, dim=0)) > 0.99


@pytest.mark.parametrize(("model", "changes"), [CASES[2], CASES[5]])
def test_a_run(model: str, changes: dict[str, Any], small_data: Path, in_tmp: Path):
    options = {"data_path": str(small_data), "epochs": 2, "show_progress": False, "state": "error", **changes}
    document = run_recbole_fair(model, "small", config_dict={**options, "enable_amp": True})
    assert all(math.isfinite(value) for value in document["test_result"].values())


@pytest.mark.parametrize("model", ["ILELightGCN", "IPSLightGCN", "PopSteerLightGCN"])
def test_propagation_stays_in_full_precision(model: str, small_data: Path, in_tmp: Path):
    options = {"data_path": str(small_data), "epochs": 1, "show_progress": False, "state": "error", "enable_amp": True}
    if model == "PopSteerLightGCN":
        options |= {"sae_scale": 4, "sae_k": 4, "sae_epochs": 1, "head_share": 0.2, "tail_share": 0.2}
    document = run_recbole_fair(model, "small", config_dict={**options, "embedding_size": 8})
    assert all(math.isfinite(value) for value in document["test_result"].values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="what 16 bits cannot do on a CPU")
def test_a_model_that_cannot_be_trained_in_16_bits_is_a_sentence(small_data: Path, in_tmp: Path):
    options = {"data_path": str(small_data), "epochs": 1, "show_progress": False, "state": "error", "enable_amp": True}
    with pytest.raises(FairError, match="enable_amp=True: NGCF cannot be trained in 16 bits"):
        run_recbole_fair("NGCF", "small", config_dict={**options, "embedding_size": 8})


def test_gate_network_sums_to_one_in_full_precision(small_data: Path, in_tmp: Path):
    options = {"data_path": str(small_data), "n_experts": 50, "gate": "mlp", "gate_hidden_size": 8, "state": "error"}
    trainer, _ = new_trainer(FairConfig("TALL", "small", config_dict={**options, "latent_dimension": 2}))
    net = trainer.model
    with torch.autocast(trainer.device.type):
        gate = net.gate_network(net.rows.of(torch.arange(1, 20)))
    assert gate.dtype == torch.float32
    torch.testing.assert_close(gate.sum(1), torch.ones(19), atol=1e-6, rtol=0)
