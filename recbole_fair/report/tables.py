"""Plain-text tables of what a post-hoc method has fitted, from the values of its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_fair.report.summary import number, text_table


def intervention_tables(
    report: Mapping[str, Any], validation: Mapping[str, Mapping[str, float]], valid_metric: str
) -> list[str]:
    """Lines with everything that the report has a table for.

    Args:
        report: the intervention's report in the result document.
        validation: metrics by variant on validation.
        valid_metric: the metric by which models are chosen, as ``NDCG@10``.
    """
    lines: list[str] = []
    if "sae" in report:
        lines += ["", *sae_table(report["sae"], validation, valid_metric)]
    if "neurons" in report:
        for side, title in (("popular", "lean to popular users"), ("unpopular", "lean to unpopular users")):
            lines += ["", f"Neurons that {title}", *neuron_table(report["neurons"].get(side, []))]
    if "probe" in report:
        lines += ["", *probe_table(report["probe"]), "", *estimator_lines(report["bias"], report["estimator"])]
    if "ddc" in report:
        lines += ["", *ddc_lines(report["ddc"])]
    return lines


def ddc_lines(ddc: Mapping[str, Any]) -> list[str]:
    """DDC's direction of popularity and the quartiles of the two numbers that users have got."""
    names = ("lower_quartile", "median", "upper_quartile")
    rows = [[name, *(number(ddc[name][key], 4) for key in names)] for name in ("alpha", "beta")]
    return [
        *text_table(["users", "lower quartile", "median", "upper quartile"], rows),
        f"epoch {ddc['best_epoch']} of {ddc['epochs']}; popularity's direction from {ddc['tail_items']} unpopular to "
        f"{ddc['head_items']} popular items, correlation of items' places along it with the logarithm of their "
        f"interactions {ddc['popularity_correlation']:.3f}",
    ]


def probe_table(probe: Mapping[str, Any], most: int = 12) -> list[str]:
    """Probe accuracies, a row a block and a column a position, and the chosen site (SPREE Figure 5).

    Args:
        probe: the report's entry.
        most: columns at most; of more positions the last ones are shown, the result document has all.
    """
    accuracy = {(row["block"], row["position"]): row["accuracy"] for row in probe["accuracies"]}
    blocks, positions = sorted({block for block, _ in accuracy}), sorted({position for _, position in accuracy})
    shown = positions[-most:]
    rows = [[f"block {block}", *(number(accuracy.get((block, p)), 4) for p in shown)] for block in blocks]
    chosen = probe["chosen"]
    lines = text_table(["probe accuracy at position", *map(str, shown)], rows)
    if len(shown) < len(positions):
        lines.append(f"and {len(positions) - len(shown)} earlier positions")
    return [*lines, f"chosen: block {chosen['block']} at position {chosen['position']}"]


def estimator_lines(bias: Mapping[str, Any], estimator: Mapping[str, Any]) -> list[str]:
    """The bias of the validation users' lists and how well the estimator predicts it (SPREE Table 5)."""
    lines = [
        f"bias of {bias['users']} validation users' lists of {bias['list_length']}: mean {bias['mean']:+.4f}, "
        f"standard deviation {bias['std']:.4f}",
        f"bias estimator: held-out R2 {estimator['held_out_r2']:.4f}, MSE {estimator['held_out_mse']:.4f}, "
        f"{estimator['nonzero']} of {len(estimator['coefficients'])} coefficients, alpha {estimator['alpha']:.3g}, "
        f"mean step {estimator['mean_step']:.4f}",
    ]
    return [*lines, estimator["warning"]] if "warning" in estimator else lines


def sae_table(
    sae: Mapping[str, Any], validation: Mapping[str, Mapping[str, float]], valid_metric: str, decimals: int = 4
) -> list[str]:
    """The autoencoder's quality in one row (PopSteer Table 3, with what that table leaves out)."""
    quality = sae["users"]
    key = valid_metric.lower()
    header = ["autoencoder", "cosine", "FVU", "L0", "alive", f"valid {key} base", "reconstructed"]
    row = [
        f"{sae['latents']} latents, k={sae['k']}",
        number(quality["cosine"], decimals),
        number(sae["validation"]["fvu"], decimals),
        number(quality["l0"], 1),
        f"{100 * sae['validation']['alive_share']:.0f} %",
        number(validation.get("base", {}).get(key), decimals),
        number(validation.get("reconstructed", {}).get(key), decimals),
    ]
    return text_table(header, [row])


def neuron_table(neurons: list[Mapping[str, Any]], width: int = 100) -> list[str]:
    """Neurons with effect size, firing frequency, the head share of their users, and those users' items."""
    header = ["neuron", "d", "fires", "head share"]
    rows = [
        [
            str(neuron["neuron"]),
            f"{neuron['effect_size']:+.2f}",
            f"{100 * neuron['frequency']:.1f} %",
            f"{neuron['head_share_of_top_users']:.2f}",
        ]
        for neuron in neurons
    ]
    if not rows:
        return ["none"]
    lines = text_table(header, rows)
    named = ["items whose users activate it most", ""]
    for neuron in neurons:
        titles = neuron["titles"] or [""] * len(neuron["items"])
        pairs = zip(titles, neuron["items"], strict=True)
        text = "; ".join(title or f"item {item}" for title, item in pairs)
        named.append(text if len(text) <= width else text[: width - 1] + "…")
    return [f"{line}  {name}".rstrip() for line, name in zip(lines, named, strict=True)]
