"""Result documents as objects of a notebook: tables, figures and a short view of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from recbole_fair.config.keys import did_you_mean
from recbole_fair.errors import FairError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from recbole_fair.report.plots import Plot

# The rows that a document without metrics of its own is about, the first that it has.
_ROWS = ("settings", "systems", "trials", "variants")
_MOST_ROWS, _MOST_SENTENCES = 30, 12


class InNotebook(Mapping[str, Any]):
    """What a notebook, or a script, makes of a result document."""

    def to_frame(self) -> pd.DataFrame:
        """The numbers that the document is about, as a table.

        Returns:
            For a run, an evaluation or an audit a row a metric and a column a variant, with ``low`` and ``high`` of the
            95 % interval where there is one. For a sweep, a frontier, a comparison or a search a row a setting, system
            or trial; nested values get names such as ``test ndcg@10``.
        """
        test = self.get("test_result")
        if test:
            columns = self.get("variants") or {str(self["model"]): test}
            frame = pd.DataFrame({name: dict(values) for name, values in columns.items()}).reindex(list(test))
            for place, name in enumerate(("low", "high")):
                bounds = {metric: pair[place] for metric, pair in (self.get("intervals") or {}).items()}
                if bounds:
                    frame[name] = pd.Series(bounds, dtype=float)
            return frame.rename_axis("metric")
        rows: Sequence[Any] = next((self[key] for key in _ROWS if self.get(key)), [])
        plain = json.loads(json.dumps(list(rows), default=str))
        return pd.json_normalize(plain, sep=" ")

    @property
    def figure_titles(self) -> list[str]:
        """Titles of the figures that there are."""
        return [plot.title for plot in self._plots()]

    def figure(self, title: str | None = None) -> Figure:
        """An interactive figure, the report's own.

        Args:
            title: its title or a part of it, or a word of what is said about it, such as ``"lorenz"``; the first figure
                when left out.

        Raises:
            FairError: there is no such figure.
        """
        from plotly.graph_objects import Figure

        plots = self._plots()
        wanted = (title or "").lower()
        texts = [plot.title for plot in plots] + [f"{plot.caption} {plot.alt}" for plot in plots]
        found = next((plot for plot, text in zip(plots * 2, texts, strict=True) if wanted in text.lower()), None)
        if found is None:
            if not plots:
                raise FairError("This result has no figures.")
            hint = did_you_mean(str(title), [plot.title for plot in plots])
            raise FairError(f"There is no figure {title!r}{hint}; there are: {', '.join(self.figure_titles)}.")
        drawn = Figure(found.data, found.layout)
        drawn.update_layout(title={"text": escape(found.title), "x": 0}, height=found.height + 60, margin_t=80)
        return drawn

    def _plots(self) -> list[Plot]:
        from recbole_fair.report.documents import Document
        from recbole_fair.report.html import section_of

        assert isinstance(self, Document)

        return section_of(self).plots

    def _repr_html_(self) -> str:
        """Heading, findings and tables, as in the report; never the curves and settings."""
        from recbole_fair.report.documents import Document
        from recbole_fair.report.html import section_of, sentences_of

        assert isinstance(self, Document)

        section = section_of(self)
        parts = [f"<p><strong>{escape(section.title)}</strong></p>"]
        sentences = [*sentences_of(self), *section.notes][:_MOST_SENTENCES]
        if sentences:
            parts.append("<ul>" + "".join(f"<li>{escape(text)}</li>" for text in sentences) + "</ul>")
        parts += [_table(table.caption, table.header, table.rows, table.note) for table in section.tables]
        if section.plots:
            names = ", ".join(f"<code>{escape(plot.title)}</code>" for plot in section.plots)
            parts.append(f"<p>Figures, by <code>.figure(title)</code>: {names}</p>")
        return "".join(parts)


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[Any]], note: str) -> str:
    """A table in HTML; a cell ``(mark, text)`` shows its text."""

    def cells(values: Sequence[Any], tag: str) -> str:
        texts = [value[1] if isinstance(value, tuple) else value for value in values]
        return "<tr>" + "".join(f"<{tag}>{escape(str(text))}</{tag}>" for text in texts) + "</tr>"

    body = "".join(cells(row, "td") for row in rows[:_MOST_ROWS])
    more = f"<p>{len(rows) - _MOST_ROWS} more rows: see <code>.to_frame()</code>.</p>" if len(rows) > _MOST_ROWS else ""
    below = f"<p><small>{escape(note)}</small></p>" if note else ""
    return f"<table><caption>{escape(caption)}</caption>{cells(header, 'th')}{body}</table>{more}{below}"
