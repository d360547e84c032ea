"""Result documents for the report's tests, small and with known numbers."""

from __future__ import annotations

from typing import Any

from recbole_fair.report.documents import SCHEMA_VERSION

HOSTILE = "<script>window.hit = 1</script></script><img src=x onerror='window.hit = 1'>\u2028&amp; \"{{ 7 * 7 }}"


def document(kind: str) -> dict[str, Any]:
    """What every document begins with."""
    return {"kind": kind, "schema_version": SCHEMA_VERSION}


def run_document(**changes: Any) -> dict[str, Any]:
    """A steered run whose final lists are less accurate and more even than the base's."""
    base = {"ndcg@10": 0.2, "giniindex@10": 0.8, "itemcoverage@10": 0.25, "averagepopularity@10": 200.0}
    final = {"ndcg@10": 0.15, "giniindex@10": 0.6, "itemcoverage@10": 0.5, "averagepopularity@10": 100.0}
    return {
        **document("run"),
        "model": "PopSteerSASRec",
        "dataset": "toy",
        "seed": 7,
        "test_result": final,
        "base_test_result": base,
        "variants": {"base": base, "reconstructed": {**base, "ndcg@10": 0.19}, "steered": final},
        "n_users": 1234,
        "mask_seen": "train",
        "popularity": {"items": 40, "interactions": 400},
        "intervals": {"ndcg@10": [0.12, 0.21], "giniindex@10": [0.55, 0.65]},
        "lorenz_curves": {
            "base": {"10": {"items": [0.0, 0.5, 1.0], "exposure": [0.0, 0.0, 1.0]}},
            "steered": {"10": {"items": [0.0, 0.5, 1.0], "exposure": [0.0, 0.25, 1.0]}},
        },
        "exposure_curves": {
            name: {"items": [4, 16, 20], "popularity": [60.0, 8.0, 0.5], "exposure": {"10": values}}
            for name, values in (("base", [8.0, 0.5, 0.0]), ("steered", [3.0, 1.5, 0.2]))
        },
        "calibration_curves": {
            name: {"levels": [0.0, 0.5, 1.0], "tau_hat": {"10": values}}
            for name, values in (("base", [0.2, 0.7, 0.9]), ("steered", [0.1, 0.5, 0.8]))
        },
        "groups": {"gender": _grouping({"F": 0.1, "M": 0.2})},
        "variant_groups": {
            "base": {"gender": _grouping({"F": 0.15, "M": 0.25})},
            "steered": {"gender": _grouping({"F": 0.1, "M": 0.2})},
        },
        "notes": ["One note."],
        "config": {"epochs": 3, "topk": [10]},
        "timings": {"training": 1.25},
        "versions": {"recbole": "1.2.1"},
        **changes,
    }


def _grouping(values: dict[str, float]) -> dict[str, Any]:
    low, high = min(values.values()), max(values.values())
    return {
        "definition": "column 'gender'",
        "left_out": 2,
        "groups": [{"group": name, "size": 10, "values": {"NDCG@10": value}} for name, value in values.items()],
        "summary": {"NDCG@10": {"min": low, "max": high, "difference": high - low, "ratio": low / high}},
    }


def sweep_document(**changes: Any) -> dict[str, Any]:
    """Four settings of one strength, three of them on the front."""

    def row(alpha: int, gini: float, ndcg: float, front: bool) -> dict[str, Any]:
        values = {"giniindex@10": gini, "ndcg@10": ndcg}
        both = {f"{split} {name}": value for split in ("valid", "test") for name, value in values.items()}
        return {"alpha_pop": alpha, **both, "front": front}

    rows = [row(0, 0.8, 0.2, True), row(1, 0.7, 0.19, True), row(2, 0.75, 0.15, False), row(3, 0.6, 0.1, True)]
    plain = {"giniindex@10": 0.8, "ndcg@10": 0.2}
    return {
        **document("sweep"), "model": "PopSteerSASRec", "dataset": "toy", "seed": 7, "reranker": None,
        "x": "giniindex@10", "y": "ndcg@10", "grid": {"alpha_pop": [0, 1, 2, 3]},
        "base": {"valid": plain, "test": plain}, "settings": rows,
        "subject_to": [{"text": "NDCG@10 >= 0.9*base", "metric": "ndcg@10", "sign": ">=", "bound": 0.18}],
        "front": [row for row in rows if row["front"]], "chosen": rows[1], "versions": {}, "config": {}, **changes,
    }  # fmt: skip


def comparison_document(**changes: Any) -> dict[str, Any]:
    """Two systems, three seeds."""
    means = {"BPR": {"ndcg@10": 0.2, "giniindex@10": 0.8}, "BPR + IPR": {"ndcg@10": 0.19, "giniindex@10": 0.7}}
    return {
        **document("comparison"), "dataset": "toy", "models": ["BPR"], "rerankers": ["IPR"], "seeds": [1, 2, 3],
        "reference": "BPR", "spread": "seeds", "protocol": {"topk": [10]}, "settings": {}, "notes": [], "versions": {},
        "systems": [
            {"system": system, "metric": metric, "mean": mean, "std": 0.01, "seeds": 3,
             "best": (metric == "ndcg@10") == (system == "BPR")}
            for system, values in means.items() for metric, mean in values.items()
        ],
        "comparisons": [
            {"system": "BPR + IPR", "reference": "BPR", "metric": "ndcg@10", "kind": "users", "difference": -0.01,
             "low": -0.02, "high": 0.001, "holm_t": 0.2, "holm_wilcoxon": 0.3, "holm_permutation": 0.06, "seeds": 3,
             "seeds_better": 0},
            {"system": "BPR + IPR", "reference": "BPR", "metric": "giniindex@10", "kind": "lists", "difference": -0.1,
             "low": -0.12, "high": -0.08, "holm_t": None, "holm_wilcoxon": None, "holm_permutation": None, "seeds": 3,
             "seeds_better": 3},
        ],
        "failed": [{"system": "BPR + PCT", "seed": 2, "error": "no solver"}], **changes,
    }  # fmt: skip


def _neuron(number: int, d: float, title: str) -> dict[str, Any]:
    boxes = {"mean": d, "std": 1.0, "q05": d - 2, "q25": d - 1, "q50": d, "q75": d + 1, "q95": d + 2, "users": 9}
    items = [{"item": f"i{place}", "title": title if place else None} for place in range(3)]
    return {
        "neuron": number, "effect_size": d, "frequency": 0.0001, "weight": 1.0, "shift": -d,
        "head_share_of_top_users": 0.5 + d / 10, "users": ["u1", "u2"], "history": items, "promoted": items,
        "activations": {name: boxes for name in ("popular", "unpopular", "real")},
    }  # fmt: skip


def dossier_document(title: str = "A film", **changes: Any) -> dict[str, Any]:
    """A dossier of neurons."""
    metrics = {"ndcg@10": 0.2, "giniindex@10": 0.8}
    places = {"x": [0.0, 1.0, 2.0], "y": [1.0, 0.0, 1.0]}
    return {
        **document("neurons"), "method": "PopSteer", "model": "PopSteerSASRec", "dataset": "toy", "seed": 7,
        "split": "valid", "metrics": list(metrics), "strengths": {"alpha_pop": 2.0},
        "neurons": {"count": 32, "alive": 30, "popular": 20, "unpopular": 10, "above_1": 5, "below_1": 3},
        "effect_sizes": {"edges": [-2.0, -1.0, 0.0, 1.0, 2.0], "counts": [3, 7, 15, 5]},
        "strongest": {"popular": [_neuron(n, 3.0 - n / 10, title) for n in range(5)],
                      "unpopular": [_neuron(9, -2.0, title)]},
        "head_share": {"users": 4, "histogram": {"edges": [0.0, 0.5, 1.0], "counts": [3, 1]},
                       "quantiles": [0.1, 0.2, 0.4, 0.6, 0.8]},
        "normality": [{"population": "real", "neurons": "all", "count": 32, "skew": 0.5, "kurtosis": 0.25,
                       "both": 0.25, "test": None}],
        "variants": [{"variant": "base", **metrics}],
        "reduction": [{"side": side, "neurons": k, **metrics} for side in ("popular", "unpopular") for k in (0, 1)],
        "surface": [{"alpha_pop": float(a), "alpha_unpop": float(b), **metrics} for a in (0, 2) for b in (0, 2)],
        "map": {"method": "umap", "groups": {n: places for n in ("popular", "unpopular", "real", "steered")}},
        "distances": [{"to": "popular", "real": 1.0, "steered": 1.5, "change": 0.5, "p_value": 0.002},
                      {"to": "unpopular", "real": 4.0, "steered": 3.0, "change": -1.0, "p_value": 0.25}],
        "notes": [], "config": {}, "timings": {}, "versions": {}, **changes,
    }  # fmt: skip


def probe_document() -> dict[str, Any]:
    """A dossier of probes."""
    metrics = {"ndcg@10": 0.2, "pce@10": 0.1}
    histogram = {"edges": [-0.5, 0.0, 0.5], "counts": [3, 1]}
    return {
        **document("sites"), "method": "SPREE", "model": "SPREESASRec", "dataset": "toy", "seed": 7, "split": "test",
        "metrics": list(metrics), "strengths": {"spree_strength": 8.0, "spree_adaptive": True}, "list_length": 10,
        "probe": [{"block": b, "position": -1, "accuracy": 0.8 + b / 10, "chosen": b == 2} for b in (1, 2)],
        "calibration": [{"variant": v, "level": x, "tau_hat": x} for v in ("base", "vanilla", "adaptive")
                        for x in (0.0, 0.5, 1.0)],
        "bias": {v: {"mean": m, **histogram} for v, m in (("base", 0.1), ("vanilla", -0.1), ("adaptive", 0.02))},
        "variants": [{"variant": "base", **metrics}],
        "strength_curve": [{"spree_strength": s, **metrics} for s in (0.0, 8.0)],
        "notes": [], "config": {}, "timings": {}, "versions": {},
    }  # fmt: skip
