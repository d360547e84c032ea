"""The conformance page is what its generator writes, and its claims about other libraries hold."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
from doc_generators import DOCS, doc_generator


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return doc_generator("generate_metrics")


def test_page_is_up_to_date(generator: ModuleType) -> None:
    assert (DOCS / "metrics.md").read_text(encoding="utf-8") == generator.page(), "run python docs/generate_metrics.py"


def test_differences_are_the_stated_ones_alone(generator: ModuleType) -> None:
    x = generator.inputs()
    ours = generator.our_values(x)
    others = {"recbole": generator.recbole_values(x), "scipy": generator.scipy_values(x), **generator.RECORDED}
    for library, values in others.items():
        for name, value in values.items():
            same = math.isclose(value, ours[name], rel_tol=1e-5)
            assert same or name.partition("@")[0] in generator.REASONS, (library, name)


def test_recorded_ndcg_differ_by_the_stated_formulas(generator: ModuleType) -> None:
    lists, held_out, _ = generator.example()

    def mean_ndcg(weight: object, ideal: int | None) -> float:
        total = 0.0
        for ranked, wanted in zip(lists, held_out, strict=True):
            best = sum(weight(rank) for rank in range(1, (ideal or min(5, len(wanted))) + 1))  # type: ignore[operator]
            total += sum(weight(r) for r, i in enumerate(ranked, start=1) if i in wanted) / best  # type: ignore[operator]
        return total / len(lists)

    recorded = generator.RECORDED
    assert recorded["LensKit 2025.8.1"]["ndcg@5"] == pytest.approx(mean_ndcg(lambda r: 1 / max(1, math.log2(r)), None))
    assert recorded["RecTools 0.19.0"]["ndcg@5"] == pytest.approx(mean_ndcg(lambda r: 1 / math.log2(r + 1), 5))
