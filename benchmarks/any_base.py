"""PopSteer on every base model, one line each: what docs/any-base.md shows.

    python benchmarks/any_base.py run results.json              # all bases that results.json has not yet
    python benchmarks/any_base.py run results.json GRU4Rec BPR  # these
    python benchmarks/any_base.py page results.json             # write the table into docs/any-base.md

ml-100k (RecBole's copy), users with at most 60 interactions, so that all bases are measured in an hour; the last
interaction of each user for testing and the one before for validation, nobody is recommended what is known of them, a
few epochs of each base, PopSteer at the strengths that it chooses on validation by its own rule: nothing else is tuned,
and no base is trained to its end. The lines show that the method works on a base, not which base is best.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.model.bases.split import split_names
from recbole_fair.quick_start import run_recbole_fair

SETTINGS: dict[str, Any] = {
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
    "user_inter_num_interval": "[5,60]",
    "mask_seen": "all",
    "learning_rate": 0.005,
    "train_batch_size": 512,
    "seed": 2020,
    "metrics": ["NDCG", "GiniIndex"],
    "topk": [10],
    "valid_metric": "NDCG@10",
    "sae_max_inputs": 200_000,
    "show_progress": False,
    "state": "WARNING",
}
# Sequential models see each interaction as a sequence of its own; the others are quick, but for one.
SEQUENTIAL: dict[str, Any] = {"epochs": 5, "MAX_ITEM_LIST_LENGTH": 20, "synthetic_users": 5000}
GENERAL: dict[str, Any] = {"epochs": 20}
SLOW: dict[str, Any] = {"epochs": 5}
PAGE = Path(__file__).resolve().parent.parent / "docs" / "any-base.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
# They are trained in stages, the first of which alone is measured here.
STAGES = {"RaCT": "actor_pretrain", "S3Rec": "pretrain"}
# Hidden layers as wide as the vectors of the others.
WIDTHS = {name: {"mlp_hidden_size": [64]} for name in ("MultiVAE", "MultiDAE", "RaCT")}
FEATURES = {"selected_features": ["class"], "item_attribute": "class"}


def settings_of(base: str) -> dict[str, Any]:
    """The common settings and what a base cannot do without."""
    known = FairConfig(base, "ml-100k", config_dict={"eval_args": SETTINGS["eval_args"]})
    own = {key: value for key, value in FEATURES.items() if key in known}
    columns: dict[str, Any] = {"inter": ["user_id", "item_id", "timestamp"]}
    if own:
        columns["item"] = ["item_id", "class"]
    if str(known["MODEL_TYPE"]).endswith("KNOWLEDGE"):
        columns |= {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
    if base in STAGES:
        own["train_stage"] = STAGES[base]
    kind = SEQUENTIAL if str(known["MODEL_TYPE"]).endswith("SEQUENTIAL") else SLOW if base == "DGCF" else GENERAL
    own |= WIDTHS.get(base, {})
    return {**SETTINGS, **kind, **own, "load_col": columns, "base": base}


def measure(base: str) -> dict[str, Any]:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = run_recbole_fair("PopSteer", "ml-100k", config_dict={**settings_of(base), "checkpoint_dir": folder})
    return {
        "variants": result["variants"],
        "chosen": result["chosen_strengths"]["chosen"],
        "timings": result["timings"],
        "seconds": time.perf_counter() - start,
        "versions": result["versions"],
    }


def run(path: Path, names: list[str]) -> None:
    for base in names or split_names():
        found = json.loads(path.read_text()) if path.is_file() else {}
        if base in found and not names:
            continue
        try:
            found[base] = measure(base)
        except Exception as error:  # one base that fails must not keep the others from being measured
            found[base] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(base, found[base].get("error") or f"{found[base]['seconds']:.0f} s", flush=True)


def table(found: dict[str, Any]) -> str:
    lines = [
        "| base | NDCG@10 | steered | Gini@10 | steered | alpha_pop, alpha_unpop chosen |",
        "|---|---|---|---|---|---|",
    ]
    for base in sorted(name for name in found if "variants" in found[name]):
        variants, chosen = found[base]["variants"], found[base]["chosen"]
        cells = [f"{variants[name][key]:.4f}" for key in ("ndcg@10", "giniindex@10") for name in ("base", "steered")]
        lines.append(f"| {base} | {' | '.join(cells)} | {chosen['alpha_pop']:g}, {chosen['alpha_unpop']:g} |")
    return "\n".join(lines)


def page(path: Path) -> None:
    found = json.loads(path.read_text())
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(found)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    command, file, *names = sys.argv[1:]
    if command == "run":
        run(Path(file), names)
    else:
        page(Path(file))
