"""Commands on data of one's own: ``convert``."""

from __future__ import annotations

import click

_HELP = {"help_option_names": ["-h", "--help"]}
_CONVERT_EXAMPLES = """\b
Examples:
  convert ratings.csv --output data/shop
  convert clicks.parquet --output data/shop --item=sku --items=products.csv --users=customers.jsonl
  convert ratings.dat --output data/films --columns=user,item,rating,time
  convert log.csv --output data/shop --time-format="%d/%m/%Y %H:%M" --keep=device,price:float
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
@click.option("--rating", help="Column of ratings.")
@click.option("--time", help="Column of times: ISO or other dates, or numbers since 1970.")
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

    separator = separator.encode().decode("unicode_escape") if separator is not None else None
    request = Request(
        source,
        keep=words(keep),
        types=words(types),
        columns=words(columns) or None,
        separator=separator,
        **options,  # type: ignore[arg-type]
    )
    for report in convert(request):
        for line in report.lines():
            click.echo(line)
    parent = str(request.folder.parent)
    click.echo(f"Use it: recbole-fair run --model=BPR --dataset={request.name} --data_path={parent}")
