"""How our figures look, and how they are saved: readable without colour, in print and at small size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recbole_fair.evaluator.directions import best_at_zero, display_name, smaller_is_better
from recbole_fair.io.atomic import atomic_file

# Okabe and Ito's colours, which people with any common colour blindness can tell apart; their yellow, too pale on
# white, is left out. Series differ by marker and line style as well, so that a grey print can be read.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
BASE = "#000000"  # the model that others are compared with
MUTED = "#8C8C8C"  # what is there for context: dominated settings, grids
SEQUENTIAL = "cividis"  # colour map of magnitudes
DIVERGING = "PuOr"  # colour map of signed values, centred at zero

_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#404040",
    "axes.grid": True,
    "axes.labelsize": 10,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.unicode_minus": False,  # one minus in figures, tables and text
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.size": 9.5,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.8,
    "image.cmap": SEQUENTIAL,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "savefig.dpi": 200,
    "text.parse_math": False,  # names of data sets and items are no formulas
    "svg.fonttype": "none",  # text stays text: it can be searched, selected and read aloud
    "svg.hashsalt": "recbole_fair",  # the same figure is the same file
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in our style inside the block (or, as a decorator, the function); the user's own settings come back."""
    with mpl.rc_context(_STYLE):
        yield


def new_figure(
    rows: int = 1, columns: int = 1, width: float = 6.4, height: float = 4.2, **options: Any
) -> tuple[Figure, Any]:
    """A figure that belongs to no window and needs no display; call it inside :func:`house_style`.

    Args:
        rows: rows of panels.
        columns: columns of panels.
        width: inches, of the whole figure.
        height: inches, of the whole figure.
        options: those of :meth:`matplotlib.figure.Figure.subplots`, such as ``sharey``.

    Returns:
        The figure, and its axes: one, or an array of them when there are several panels.
    """
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, **options)


def better(metric: str) -> str:
    """In words, which way a metric is better: ``higher is better``, ``lower ...`` or ``nearer to 0 ...``."""
    if best_at_zero(metric):
        return "nearer to 0 is better"
    return "lower is better" if smaller_is_better(metric) else "higher is better"


def metric_label(metric: str, split: str | None = None) -> str:
    """Label of an axis that shows a metric.

    Args:
        metric: ``name@k`` in any case.
        split: ``valid`` or ``test``, to be named too.

    Returns:
        Text such as ``NDCG@10 on test (higher is better)``.
    """
    where = "" if split is None else f" on {'validation' if split == 'valid' else split}"
    return f"{display_name(metric)}{where} ({better(metric)})"


def label_axes(axes: Axes, x: str, y: str, split: str | None = None) -> None:
    """Label both axes of a panel with metrics and their directions of better."""
    axes.set_xlabel(metric_label(x, split))
    axes.set_ylabel(metric_label(y, split))


def save_figure(figure: Figure, stem: str | Path) -> tuple[Path, Path]:
    """Write ``stem.png`` (200 dots an inch) and ``stem.svg`` (text as text), each as a whole or not at all.

    Args:
        figure: what to write.
        stem: path without suffix; dots in it are part of the name.

    Returns:
        The two paths.

    Raises:
        FairError: if a file cannot be written.
    """
    paths = Path(f"{stem}.png"), Path(f"{stem}.svg")
    with house_style():
        for path, metadata in zip(paths, ({"Software": "recbole_fair"}, {"Date": None}), strict=True):
            with atomic_file(path, "the figure ") as file:
                figure.savefig(file, format=path.suffix[1:], metadata=metadata)
    return paths
