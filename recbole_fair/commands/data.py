"""Commands on data and lists of one's own: ``convert`` and ``audit``."""

from __future__ import annotations

from typing import Any

import click

from recbole_fair.commands.interruptions import interruptible
from recbole_fair.commands.settings import read_settings
from recbole_fair.io.text import visible

_HELP = {"help_option_names": ["-h", "--help"]}
_CONVERT_EXAMPLES = """\b
Examples:
  recbole-fair convert ratings.csv --output data/shop
  recbole-fair convert clicks.parquet --output data/shop --item=sku --items=products.csv --users=customers.jsonl
  recbole-fair convert ratings.dat --output data/films --columns=user,item,rating,time
  recbole-fair convert log.csv --output data/shop --time-format="%d/%m/%Y %H:%M" --keep=device,price:float
"""


def words(text: str | None) -> list[str]:
    """Names joined by commas."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


@click.command("convert", context_settings=_HELP, epilog=_CONVERT_EXAMPLES)
@click.argument("source", metavar="FILE_OR_FOLDER")
@click.option("--output", required=True, help="Folder of the data set, such as data/shop; shop is then its name.")
@click.option("--items", help="Table of items; its columns become features, titles and groups.")
@click.option("--users", help="Table of users.")
@click.option("--user", help="Column of users.  [default: the one with a usual name]")
@click.option("--item", help="Column of items.")
@click.option("--rating", help="Column of ratings; none to leave them out.")
@click.option("--time", help="Column of times (dates, or numbers since 1970); none to leave them out.")
@click.option("--time-unit", help="Of numbers: s, ms, us or ns.  [default: by their size]")
@click.option("--time-format", help="Of dates, as strptime takes it: '%d.%m.%Y %H:%M'.  [default: found]")
@click.option("--keep", help="Further columns of the interactions: all, or names joined by commas, as price:float.")
@click.option("--types", help="Types of columns of items and users, such as genres:token_seq,year:token.")
@click.option("--columns", help="Names of the columns of a file without a header, joined by commas.")
@click.option("--separator", help="Between the cells of a csv file.  [default: found in its first line]")
@click.option("--encoding", default="utf-8", show_default=True, help="Of csv and jsonl files.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
def convert_command(
    source: str, keep: str | None, types: str | None, columns: str | None, separator: str | None, **options: str | None
) -> None:
    """Convert csv, tsv, parquet or jsonl files into a data set that all commands read.

    Ids stay as they stand. Rows without user, item or a readable time are left out and counted. Memory stays bounded
    whatever the size of the files.
    """
    from recbole_fair.data.tables.conversion import Request, convert

    request = Request(
        source,
        keep=words(keep),
        types=words(types),
        columns=words(columns) or None,
        separator=separator.replace("\\t", "\t") if separator else None,
        **options,  # type: ignore[arg-type]
    )
    for report in convert(request):
        for line in report.lines():
            click.echo(visible(line))
    parent = str(request.folder.parent)
    click.echo(visible(f"Use it: recbole-fair run --model=BPR --dataset={request.name} --data_path={parent}"))


_AUDIT_EXAMPLES = """\b
Examples:
  recbole-fair audit lists.csv --train train.csv --test test.csv
  recbole-fair audit old.parquet new.parquet --train train.csv --test test.csv --items items.csv --group_field=genre
  recbole-fair audit recommendations.csv --run out.json
  recbole-fair audit lists.csv --data ml-100k --model=SASRec --data_path=data --metrics="[NDCG,GiniIndex,UPD]"
"""


@click.command("audit", context_settings={**_HELP, "ignore_unknown_options": True}, epilog=_AUDIT_EXAMPLES)
@click.argument("words_given", nargs=-1, type=click.UNPROCESSED, metavar="LISTS... [--KEY=VALUE]...")
@click.option("--train", help="Table of the interactions that the systems have learnt from.")
@click.option("--test", help="Table of held-out interactions; without it only exposure is measured.")
@click.option("--valid", help="Table of the interactions between these.")
@click.option("--items", help="Table of items: their groups, titles, and the catalogue.")
@click.option("--users", help="Table of users, for groups of users.")
@click.option("--types", help="Types of columns of items and users, such as genres:token_seq.")
@click.option("--run", "run_file", help="Result document of a run (--result_file): its data, split and metrics.")
@click.option("--data", help="Name of a data set of atomic files, split as --model and settings say.")
@click.option("--model", help="Whose split and order are the defaults for --data.  [default: random shares]")
@click.option("--names", help="Names of the systems, joined by commas.  [default: those of the files]")
@click.option("--user", help="Column of users.  [default: the one with a usual name]")
@click.option("--item", help="Column of items.")
@click.option("--rank", help="Column of ranks, from 1.")
@click.option("--score", help="Column of scores, where there are no ranks.")
@click.option("--time", help="Column of times in train, valid and test.")
@click.option("--permutations", default=10_000, show_default=True, help="Patterns of signs of the permutation test.")
@click.option("--output", help="Folder of the results.  [default: results/audit-NAME]")
def audit_command(words_given: tuple[str, ...], permutations: int, output: str | None, **options: Any) -> None:
    """Measure recommended lists that any system has made: all metrics, groups, intervals, curves and the report.

    LISTS are csv, parquet or jsonl files of user, item and rank or score. Several files are compared with paired tests,
    the first being the reference. Metrics and their options are settings, as in a run.
    """
    paths = list(words_given)
    first = next((place for place, word in enumerate(paths) if word.startswith("-")), len(paths))
    settings = read_settings(paths[first:])
    given = {key: value for key, value in options.items() if value is not None}
    columns = {role: given.get(role) for role in ("user", "item", "rank", "score", "time")}
    with interruptible():
        from recbole_fair.runs.audit import audit, folder_of, shown
        from recbole_fair.runs.audited import Tables

        tables = None
        if "train" in given:
            sides = {key: given.get(key) for key in ("test", "valid", "items", "users")}
            tables = Tables(given["train"], types=words(given.get("types")), **sides)
        document = audit(
            paths[:first],
            tables,
            run=given.get("run_file"),
            model=given.get("model"),
            dataset=given.get("data"),
            names=words(given.get("names")),
            columns=columns,
            permutations=permutations,
            output=output,
            config_dict=settings,
        )
    for line in shown(document):
        click.echo(visible(line))
    folder = folder_of(output, document.dataset)
    click.echo(visible(f"Written: audit.json, report.html, values by user and by item in {folder}"))
