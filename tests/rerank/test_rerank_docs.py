"""The example of the documentation works as printed."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

from rerank_oracle import by_value, lists_of, make, minmax

from recbole_fair.config.layers import properties_dir, read_yaml
from recbole_fair.config.registry import get_reranker, rerankers
from recbole_fair.config.rerankers import reranker_defaults

DOCS = (Path(__file__).parents[2] / "docs" / "rerankers.md").read_text(encoding="utf-8")


def test_the_example_of_a_new_reranker() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    module = types.ModuleType("newcomers_of_the_docs")
    sys.modules[module.__name__] = module
    exec(code, module.__dict__)
    made = make()
    found = lists_of(module.Newcomers(below=8, bonus=0.5).rerank(made.candidates, made.facts, 10))
    expected = [
        by_value(items, [s + 0.5 * (made.counts[i] < 8) for i, s in zip(items, minmax(scores), strict=True)], 10)
        for items, scores in zip(made.items, made.scores, strict=True)
    ]
    assert found == expected
    defaults = reranker_defaults({"reranker": "newcomers_of_the_docs:Newcomers", "reranker_bonus": 0.2})
    assert defaults == {"reranker_below": 10, "reranker_bonus": 0.1}


def test_every_reranker_stands_in_the_table_with_its_keys_and_defaults() -> None:
    rows = {line.split("|")[1].strip(" `"): line for line in DOCS.splitlines() if line.startswith("| `")}
    assert sorted(rows) == list(rerankers())
    for name, row in rows.items():
        defaults = read_yaml(properties_dir() / "rerank" / f"{name}.yaml")
        assert set(defaults) == set(get_reranker(name).keys().values())
        for key, value in defaults.items():
            shown = f"`{key.removeprefix('reranker_')}`"
            value = str(value).lower() if isinstance(value, bool) else value
            assert (shown if value is None else f"{shown} ({value})") in row, (name, key)
