"""The dossier of sites: what SPREE's probes have found, and how its strength moves users' lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from recbole_fair.analysis.dossier import SiteDossier
from recbole_fair.data.contract import EvaluationLoader, Loader
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import training_interactions
from recbole_fair.evaluator.result import EvaluationResult
from recbole_fair.model.spree.probe import Site, median_bias, share_bias
from recbole_fair.model.spree.spree import SPREE
from recbole_fair.report.documents import DossierDocument, SitesDocument, rows_of
from recbole_fair.report.dossiers import site_entries, site_lines
from recbole_fair.report.neuron_figures import site_figures
from recbole_fair.runs.dossiers.base import Dossier
from recbole_fair.runs.dossiers.measures import surface_of


class SitesDossier(Dossier):
    """The dossier of a SPREE model.

    Attributes:
        found: all of it, as data frames.
    """

    metrics = ("NDCG", "PCE")
    found: SiteDossier

    def examine(self) -> None:
        """Look at probes, calibration, biases and strengths."""
        trainer, show, clock = self.trainer, self.show, self.clock
        eval_data, model = self.eval_data, trainer.model
        assert isinstance(model, SPREE)
        probe = pd.DataFrame(model.report["probe"]["accuracies"])
        chosen = model.report["probe"]["chosen"]
        probe["chosen"] = (probe["block"] == chosen["block"]) & (probe["position"] == chosen["position"])
        with clock("variants"):
            results = {}
            for name in show(model.variants, "Variants"):
                with model.use_variant(name):
                    results[name] = trainer.evaluate_lists(eval_data)
        length = max(trainer.config["topk"])
        calibration = pd.DataFrame(
            [
                {"variant": name, "level": level, "tau_hat": value}
                for name, result in results.items()
                for level, value in zip(
                    result.curves["calibration"]["levels"],
                    result.curves["calibration"]["tau_hat"][str(length)],
                    strict=True,
                )
            ]
        )
        with clock("bias"):
            bias = _biases(model, self.train_data, eval_data, results)
        with clock("strengths"):
            values = surface_of(
                trainer,
                eval_data,
                {"spree_strength": list(self.options.strengths)},
                lambda some: show(some, "Strengths"),
            )
        variants = pd.DataFrame([{"variant": name, **result.metrics} for name, result in results.items()])
        self.found = SiteDossier(
            probe, calibration, length, bias, variants, values, model.scoring_notes(), clock.seconds
        )

    def document(self, **about: Any) -> DossierDocument:
        """Probes, curves and histograms of biases."""
        variants = rows_of(self.found.variants)
        entries = site_entries(self.found)
        model = self.trainer.model
        assert isinstance(model, SPREE)
        entries["concepts"] = model.known_concepts
        return SitesDocument(method="SPREE", variants=variants, notes=self.found.notes, **about, **entries)

    def tables(self) -> dict[str, pd.DataFrame]:
        """One row a site, level, user, variant or strength."""
        found = self.found
        return {
            "probe": found.probe,
            "calibration": found.calibration,
            "bias": found.bias,
            "variants": found.variants,
            "strengths": found.strengths,
        }

    def figures(self, metrics: Sequence[str], strengths: Mapping[str, Any]) -> dict[str, Callable[[], Figure]]:
        """SPREE's Figure 5, calibration and biases."""
        return site_figures(self.found, metrics)

    def lines(self, document: DossierDocument) -> list[str]:
        """Probes and biases."""
        return site_lines(document)


@torch.no_grad()
def _biases(
    model: SPREE, train_data: Loader, eval_data: EvaluationLoader, results: dict[str, EvaluationResult]
) -> pd.DataFrame:
    """Bias of each user's lists under every variant, and the estimate that the adaptive one moves by."""
    dataset = train_data._dataset
    histories = Histories.from_interactions(training_interactions(dataset))
    first = results["base"]
    assert first.user_ids is not None
    assert first.popularity is not None
    users = first.user_ids.cpu().numpy()
    frame = pd.DataFrame({"user_id": [str(token) for token in dataset.field2id_token[dataset.uid_field][users]]})
    if first.list_numbers is not None:
        frame["list"] = first.list_numbers.numpy()
    rows = histories.rows(users)
    for name, result in results.items():
        assert result.lists is not None
        lists = result.lists.cpu()
        if model.steers_popularity:
            frame[name] = median_bias(first.popularity.counts, lists, rows).numpy()
        else:
            frame[name] = share_bias(model.concept_weight[0], lists, rows).numpy()
    site = Site(*model.site.tolist())
    device = model.direction.device
    parts, owners = [], []
    for batch in eval_data:
        x = model.activations(batch[0].to(device), [site])[0]
        parts.append(model.estimate_bias(x).cpu())
        owners.append(batch[0][model.base.USER_ID].cpu())
    # The rows of a user keep their order.
    estimates = np.empty(len(frame))
    estimates[np.argsort(users, kind="stable")] = torch.cat(parts)[torch.cat(owners).argsort(stable=True)].numpy()
    frame["estimate"] = estimates
    return frame
