"""Rows as text of an atomic file, so that the reader gives back every cell as it was."""

from __future__ import annotations

from collections.abc import Sequence

from recbole_fair.errors import FairError

_SPECIAL = '\t\n\r"'


def text_of(columns: Sequence[list[str]], first: int) -> bytes:
    r"""Lines of some rows in UTF-8, each ended by a newline.

    A cell is put in quotes where it holds a tab or a line break, or begins with a quote. A record that would then look
    like a quote that swallowed rows (both its first and its last line have as many tabs as a row) cannot be told from a
    damaged file; there line breaks become blanks.

    Args:
        columns: cells by column, ``[n]`` each.
        first: number of the first row, for messages.

    Raises:
        FairError: for a NUL character, which no text has, or half of a surrogate pair.
    """
    broken = False
    prepared = []
    for cells in columns:
        joined = "".join(cells)
        if "\0" in joined:
            row = first + next(place for place, cell in enumerate(cells) if "\0" in cell)
            raise FairError(f"Row {row} holds a NUL character, which no text has; is the file damaged?")
        if any(mark in joined for mark in _SPECIAL):
            broken = broken or "\n" in joined or "\r" in joined
            cells = [quoted(cell) for cell in cells]
        prepared.append(cells)
    lines = list(map("\t".join, zip(*prepared, strict=True)))
    if broken:
        lines = [_told_from_damage(line, len(columns)) for line in lines]
    lines.append("")
    try:
        return "\n".join(lines).encode()
    except UnicodeEncodeError as error:
        raise FairError(
            f"A cell from row {first} on holds {error.object[error.start]!r}, half a character: mend the file."
        ) from error


def quoted(cell: str) -> str:
    """A cell by the rules of Python's ``csv``: in quotes only where it must be."""
    if cell.startswith('"') or "\t" in cell or "\n" in cell or "\r" in cell:
        return '"' + cell.replace('"', '""') + '"'
    return cell


def _told_from_damage(line: str, width: int) -> str:
    inner = line.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if len(inner) < 2 or min(inner[0].count("\t"), inner[-1].count("\t")) < width - 1:
        return line
    return line.replace("\r\n", " ").replace("\r", " ").replace("\n", " ")
