"""One data set twice, the second time with other held-out test items: whatever chooses must not notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Each user's last interaction is test, the one before validation.
LAST_OF_EACH: dict[str, Any] = {
    "split": {"LS": "valid_and_test"},
    "order": "TO",
    "group_by": "user",
    "mode": "full",
}


def write_with_other_labels(data: Path, folder: Path) -> tuple[Path, Path]:
    """Write the data set ``small`` twice, the second time with another last item of every user.

    Args:
        data: folder of the data set.
        folder: where the two go.

    Returns:
        What ``data_path`` is for the one and for the other.
    """
    lines = (data / "small" / "small.inter").read_text().splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    last: dict[str, list[str]] = {}
    for row in rows:
        if row[0] not in last or float(row[3]) > float(last[row[0]][3]):
            last[row[0]] = row
    had = {user: {row[1] for row in rows if row[0] == user} for user in last}
    items = sorted({row[1] for row in rows})
    for user, row in last.items():
        row[1] = next(item for item in items if item not in had[user])
    # Two who have everything between them come first, so that items are numbered alike.
    first = [f"first{place % 2}\t{item}\t3\t{place}" for place, item in enumerate(items)]
    for name, changed in (("one", lines[1:]), ("two", ["\t".join(row) for row in rows])):
        (folder / name / "small").mkdir(parents=True)
        (folder / name / "small" / "small.inter").write_text("\n".join([lines[0], *first, *changed]) + "\n")
    return folder / "one", folder / "two"
