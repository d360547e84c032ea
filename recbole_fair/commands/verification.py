"""The command ``verify``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from recbole_fair.commands.interruptions import interruptible
from recbole_fair.config.results import Row, rows, rows_named, tables
from recbole_fair.errors import FairError

_EXIT_OUTSIDE = 1
_EXAMPLES = """\b
Examples:
  recbole-fair verify                                   what there is, with the minutes that each row takes
  recbole-fair verify --quick                           rows of ml-100k
  recbole-fair verify decrs-fm-fused --data_path=data   one row, all of its seeds
  recbole-fair verify decrs-fm --seeds 1                a table, one seed a row
  recbole-fair verify --table decrs-fm                  a table as it stands, as Markdown
"""


@click.command("verify", context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXAMPLES)
@click.argument("names", nargs=-1, metavar="[ROW_OR_TABLE]...")
@click.option("--all", "everything", is_flag=True, help="Every row; that takes days.")
@click.option("--quick", is_flag=True, help="Rows of ml-100k, the first seed of each: minutes in all.")
@click.option("--seeds", type=int, help="Run so many of each row's seeds.  [default: all]")
@click.option("--data_path", "--data-path", help="Folder with the data sets.")
@click.option("--folder", help="Keep checkpoints here, and find bases of post-hoc models again.")
@click.option("--table", "table", is_flag=True, help="Print tables as Markdown and run nothing.")
def verify_command(
    names: tuple[str, ...],
    everything: bool,
    quick: bool,
    seeds: int | None,
    data_path: str | None,
    folder: str | None,
    table: bool,
) -> None:
    """Make rows of the papers' tables again, and say how far they are from the measured values.

    Without names, the rows are listed. Exit code 1 means that a row is outside its tolerance.
    """
    if table:
        _print_tables(names)
        return
    chosen = _chosen(names, everything, quick)
    if not chosen:
        for line in listing():
            click.echo(line)
        return
    with interruptible(lambda: "rows that are printed are done; name the others to go on"):
        from recbole_fair.quick_start import verify
        from recbole_fair.report.verdicts import summary, verdict_lines

        seeds = 1 if quick and seeds is None else seeds
        verdicts = verify(chosen, seeds, data_path, folder, lambda verdict: _echo(verdict_lines(verdict)))
    _echo(summary(verdicts))
    if not all(verdict.within for verdict in verdicts):
        sys.exit(_EXIT_OUTSIDE)


def _echo(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(line)


def _chosen(names: Sequence[str], everything: bool, quick: bool) -> list[Row]:
    """The rows that a call is about.

    Raises:
        FairError: for several ways at once, or an unknown name.
    """
    if bool(names) + everything + quick > 1:
        raise FairError("verify takes names, --all or --quick; give one of them.")
    if everything or quick:
        return [row for row in rows().values() if row.repeatable and (everything or row.quick)]
    return rows_named(names)


def _print_tables(names: Sequence[str]) -> None:
    from recbole_fair.report.result_tables import markdown

    known = tables()
    for name in names or known:
        if name not in known:
            raise FairError(f"There is no table {name}; verify without a name lists them.")
        click.echo(f"{name}: {known[name].paper}; {known[name].title}\n\n{markdown(known[name])}\n")


def listing() -> list[str]:
    """Every table with its rows: name, minutes of two cores for all seeds, and what it is."""
    lines: list[str] = []
    for table in tables().values():
        lines += ["", f"{table.name}: {table.paper}; {table.title}"]
        width = max((len(row.name) for row in table.rows), default=0)
        for row in table.rows:
            if row.repeatable:
                assert row.minutes is not None
                cost = f"{row.minutes * len(row.seeds):8.1f} min{' (quick)' if row.quick else ''}"
            else:
                cost = "     by a script" if row.ours else "  not measured"
            lines.append(f"  {row.name:<{width}} {cost}  {row.label}")
    return lines[1:]
