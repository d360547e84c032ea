"""Text from data as it may be shown: what would steer a terminal is spelled out instead."""

from __future__ import annotations

import re

# C0 and C1 controls with DEL, lone surrogates, and the marks that turn the direction of what follows.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_COLOURS = re.compile("\x1b\\[[0-9;]*m")


def visible(text: str, lines: bool = False, colours: bool = False) -> str:
    r"""Text whose control characters are written as escapes, such as ``\x1b``: shown, never obeyed.

    Args:
        text: any text.
        lines: whether line ends and tabs stay as they are.
        colours: whether sequences that set colours stay as they are.

    Examples:
        >>> print(visible("a\x1b[2Jb"))
        a\x1b[2Jb
    """
    parts = _COLOURS.split(text) if colours else [text]
    kept = _COLOURS.findall(text) if colours else []
    shown = [_CONTROLS.sub(lambda match: _escape(match.group(), lines), part) for part in parts]
    return "".join(word for pair in zip(shown, [*kept, ""], strict=True) for word in pair)


def without_colours(text: str) -> str:
    """Text without the sequences that set colours."""
    return _COLOURS.sub("", text)


def _escape(character: str, lines: bool) -> str:
    if lines and character in "\n\t":
        return character
    return character.encode("unicode_escape").decode("ascii")
