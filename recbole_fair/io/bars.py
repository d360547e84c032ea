"""Progress bars: on a terminal and in a notebook, never in a file."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from tqdm import tqdm


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    return "ipykernel" in sys.modules


def bars_shown(wanted: bool) -> bool:
    """Whether bars are drawn: if they are wanted and somebody watches."""
    return wanted and (in_notebook() or (sys.stderr is not None and sys.stderr.isatty()))


def new_bar(*args: Any, **options: Any) -> Any:
    """A bar of tqdm that goes when it is full; in a notebook one of the notebook's own kind.

    Args:
        args: as tqdm takes them.
        options: as tqdm takes them.
    """
    options = {"ncols": 100, **options, "leave": False}
    if not in_notebook():
        return tqdm(*args, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets it is a bar of text, which will do
        from tqdm.auto import tqdm as notebook_bar

        return notebook_bar(*args, **options)
