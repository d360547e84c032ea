"""The tables by user group that a run prints below its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_fair.evaluator.directions import display_name
from recbole_fair.report.summary import number, text_table

MOST = 30  # groups of a table; a user column such as the zip code has thousands


def group_lines(result: Mapping[str, Any], decimals: int) -> list[str]:
    """Lines with one table a grouping and metric: a row a group, a column a variant, and how far groups are apart.

    Args:
        result: the result document of a run.
        decimals: digits after the point.

    Returns:
        The lines; none if the run has no groups.
    """
    groupings: Mapping[str, Any] = result.get("groups") or {}
    variants: Mapping[str, Any] = result.get("variant_groups") or {result["model"]: groupings}
    lines: list[str] = []
    for name, grouping in groupings.items():
        lines += ["", f"by {name}: {grouping['definition']}"]
        if grouping["left_out"]:
            lines[-1] += f"; {grouping['left_out']} users without a value left out"
        groups = grouping["groups"][:MOST]
        for metric in grouping["summary"]:
            rows = []
            for place, group in enumerate(groups):
                values = [variant[name]["groups"][place]["values"][metric] for variant in variants.values()]
                rows.append([group["group"], str(group["size"]), *(number(value, decimals) for value in values)])
            for key in ("difference", "ratio"):
                apart = [variant[name]["summary"][metric][key] for variant in variants.values()]
                title = "largest - smallest" if key == "difference" else "smallest / largest"
                rows.append([title, "", *(number(value, decimals) for value in apart)])
            lines += text_table([display_name(metric), "users", *variants], rows)
        if len(grouping["groups"]) > MOST:
            lines.append(f"{len(grouping['groups']) - MOST} more groups: a result file (result_file) has them all.")
    return lines
