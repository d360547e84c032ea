"""Drawing synthetic users until effect sizes have settled."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_popsteer import SETTINGS, Settings, ToyDataset, ToyPopSteer

from recbole_fair.data.facts.interactions import training_interactions
from recbole_fair.model.popsteer.neurons import COLUMNS, effect_size_error


@pytest.mark.parametrize(("d", "n_a", "n_b"), [(0.0, 40, 40), (0.8, 60, 60), (-2.0, 50, 150)])
def test_the_standard_error_is_that_of_repeated_samples(d: float, n_a: int, n_b: int) -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(d, 1, (20_000, n_a)), rng.normal(0, 1, (20_000, n_b))
    pooled = ((n_a - 1) * a.var(1, ddof=1) + (n_b - 1) * b.var(1, ddof=1)) / (n_a + n_b - 2)
    spread = ((a.mean(1) - b.mean(1)) / np.sqrt(pooled)).std()
    assert float(effect_size_error(torch.tensor(d), n_a, n_b)) == pytest.approx(spread, rel=0.04)


def test_no_users_no_certainty() -> None:
    assert torch.isinf(effect_size_error(torch.zeros(3), 0, 10)).all()


def fitted(**changes: object) -> ToyPopSteer:
    made = ToyPopSteer(Settings({**SETTINGS, **changes}), ToyDataset())
    made.freeze_base()
    made.fit_intervention(SimpleNamespace(_dataset=ToyDataset()), None)
    return made


def test_drawing_ends_when_effect_sizes_have_settled() -> None:
    everyone = fitted(synthetic_users=60_000)
    settled = fitted(synthetic_users=60_000, synthetic_error=0.05)
    drawn = settled.report["profiles"]["users_a_side"]
    assert 2000 <= drawn < 60_000
    assert everyone.report["profiles"]["users_a_side"] == 60_000
    d, true = (m.neurons[:, COLUMNS.index("effect_size")] for m in (settled, everyone))
    scale = d.abs().clamp_min(1.0)
    assert float(scale.max()) > 2.0  # above 1 the error counts as a share
    assert float((effect_size_error(d, drawn, drawn) / scale).max()) <= 0.05
    assert float(((d - true).abs() / scale).max()) <= 4 * 0.05  # four standard errors


def test_an_error_that_is_never_reached_draws_all_users() -> None:
    assert fitted(synthetic_users=600, synthetic_error=0.001).report["profiles"]["users_a_side"] == 600


def test_both_sides_are_those_of_a_single_stream_each() -> None:
    """Drawing in turn changes nothing: moments are those of each side's own stream."""
    made = fitted(synthetic_users=300)
    inter = training_interactions(ToyDataset())
    concept = made.read_concepts(ToyDataset(), inter)[0]
    for side, seed, name in ((True, made._seed + 1, "popular"), (False, made._seed + 2, "unpopular")):
        vectors = torch.cat(list(made.profile_vectors(concept, side, inter, seed))).double()
        assert torch.allclose(getattr(made, f"mean_{name}"), vectors.mean(0), atol=1e-6)
