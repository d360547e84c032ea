"""The tables by user group that a run prints below its metrics."""

from __future__ import annotations

from collections.abc import Iterator

from recbole_fair.evaluator.directions import display_name
from recbole_fair.evaluator.group_result import GroupResult
from recbole_fair.report.documents import EvaluationDocument
from recbole_fair.report.summary import number, text_table

MOST = 30  # groups of a table; a user column such as the zip code has thousands


def group_tables(run: EvaluationDocument) -> Iterator[tuple[str, str, dict[str, GroupResult]]]:
    """What there is to show by user group, a table a grouping and metric.

    Yields:
        Name of the grouping, metric ``name@k``, and the grouping's results by variant (of a model without variants by
        the model's name); all variants have the same groups.
    """
    groupings = run.groups or {}
    variants = run.variant_groups or {run.model: groupings}
    for name, grouping in groupings.items():
        results = {variant: groups[name] for variant, groups in variants.items()}
        for metric in grouping.metrics:
            yield name, metric, results


def group_lines(run: EvaluationDocument, decimals: int) -> list[str]:
    """Lines with one table a grouping and metric: a row a group, a column a variant, and how far groups are apart.

    Args:
        run: the result document.
        decimals: digits after the point.

    Returns:
        The lines; none if the run has no groups.
    """
    lines: list[str] = []
    for name, groups in (run.groups or {}).items():
        lines += ["", f"by {name}: {groups.definition}"]
        if groups.left_out:
            lines[-1] += f"; {groups.left_out} users without a value left out"
        for grouping, metric, variants in group_tables(run):
            if grouping != name:
                continue
            rows = []
            for place, label in enumerate(groups.labels[:MOST]):
                values = [result.by_group[metric].iat[place] for result in variants.values()]
                rows.append([label, str(groups.sizes[label]), *(number(value, decimals) for value in values)])
            apart = {
                "largest - smallest": [result.difference()[metric] for result in variants.values()],
                "smallest / largest": [result.ratio()[metric] for result in variants.values()],
            }
            rows += [[word, "", *(number(value, decimals) for value in values)] for word, values in apart.items()]
            lines += text_table([display_name(metric), "users", *variants], rows)
        if len(groups.labels) > MOST:
            lines.append(f"{len(groups.labels) - MOST} more groups: a result file (result_file) has them all.")
    return lines
