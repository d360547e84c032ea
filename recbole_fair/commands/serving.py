"""Commands on a trained model that is to serve: ``import``, ``recommend``, ``export``, ``save``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recbole_fair.commands.checkpoints import checkpoint_argument, found_checkpoint
from recbole_fair.commands.settings import read_settings
from recbole_fair.io.text import visible

_SETTINGS = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"]}
_IMPORT_EXAMPLES = """\b
Examples:
  recbole-fair import saved/SASRec-Jan-01-2023_10-00-00.pth
  recbole-fair import old.pth --output=new.pth --data_path=data
"""
_RECOMMEND_EXAMPLES = """\b
Examples:
  recbole-fair recommend saved/SASRec.pth --history "1193 661 914"
  recbole-fair recommend saved/PopSteerSASRec.pth --histories users.csv -k 20 --output=recs.parquet --alpha_pop=3
  recbole-fair recommend saved/BPR.pth --users "196 186"
"""
_EXPORT_EXAMPLES = """\b
Examples:
  recbole-fair export saved/SASRec.pth --output=model.onnx
  recbole-fair export saved/PopSteerSASRec.pth --output=model.onnx --alpha_pop=3 -k 20 --exclude-seen
  recbole-fair export saved/GRU4Rec.pth --format=arrays --output=index
"""
_SAVE_EXAMPLES = """\b
Examples:
  recbole-fair save saved/PopSteerSASRec.pth --output=served.pth --alpha_pop=3 --alpha_unpop=1
  recbole-fair save saved/SASRec.pth --output=served.pth --reranker=Lorenz --reranker_lambda=0.5
"""


@click.command("import", context_settings=_SETTINGS, epilog=_IMPORT_EXAMPLES)
@click.argument("path", metavar="OLD_CHECKPOINT", callback=checkpoint_argument)
@click.option("--output", help="The new checkpoint.  [default: saved/OLD_CHECKPOINT-imported.pth]")
@click.argument("settings", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY=VALUE]...")
def import_command(path: str, output: str | None, settings: tuple[str, ...]) -> None:
    """Take over a checkpoint of plain RecBole (1.0 to 1.2.1) without running anything in it.

    Weights and settings go into a safe checkpoint. Where the data are there, the validation score is computed again
    and shown beside the one in the file.
    """
    from recbole_fair.quick_start import import_checkpoint

    config_dict = read_settings(settings)
    import_checkpoint(found_checkpoint(path, config_dict), output, config_dict)


@click.command("recommend", context_settings=_SETTINGS, epilog=_RECOMMEND_EXAMPLES)
@click.argument("path", metavar="CHECKPOINT", callback=checkpoint_argument)
@click.option("--history", multiple=True, help="Items of one user, oldest first, in the data's own ids: '1193 661'.")
@click.option("--histories", help="File of histories (csv, parquet, jsonl) with user, item and, if there is, time.")
@click.option("--users", help="Names of users, for models that know users by name: '196 186'.")
@click.option("-k", "--k", type=int, default=10, show_default=True, help="Length of the lists.")
@click.option("--include-seen", is_flag=True, help="Also recommend what a user has had already.")
@click.option("--exclude", help="Items that nobody shall get: '1 2 3'.")
@click.option("--allowed", help="The only items that anybody may get: '1 2 3'.")
@click.option("--output", help="File of the lists: .csv, .parquet or .jsonl.  [default: shown]")
@click.argument("settings", nargs=-1, type=click.UNPROCESSED, metavar="[--STRENGTH=VALUE]...")
def recommend_command(path: str, settings: tuple[str, ...], **options: Any) -> None:
    """Recommend from a checkpoint alone, without its data: to given histories, or to users by name.

    Settings are strengths of a steered model, such as --alpha_pop=3, or --reranker=Tilt with its keys.
    """
    from recbole_fair.runs.recommending import Request, recommend_from

    config_dict = read_settings(settings)
    for line in recommend_from(found_checkpoint(path, config_dict), Request(**options), config_dict):
        click.echo(visible(line))


@click.command("export", context_settings=_SETTINGS, epilog=_EXPORT_EXAMPLES)
@click.argument("path", metavar="CHECKPOINT", callback=checkpoint_argument)
@click.option("--format", "kind", default="onnx", show_default=True, help="onnx, or arrays for an index over items.")
@click.option("--output", help="The file, or the folder of the arrays.  [default: CHECKPOINT with another ending]")
@click.option("-k", "--k", type=int, help="The graph gives the best so many items.  [default: scores of all items]")
@click.option("--exclude-seen", is_flag=True, help="The graph leaves out the items of the history.")
@click.option("--variant", help="How a steered model scores, such as base.  [default: steered]")
@click.option("--check", type=int, default=200, show_default=True, help="Made-up histories compared with recommend.")
@click.argument("settings", nargs=-1, type=click.UNPROCESSED, metavar="[--STRENGTH=VALUE]...")
def export_command(path: str, output: str | None, settings: tuple[str, ...], **options: Any) -> None:
    """Write a model for serving: an ONNX graph from item ids to scores, or arrays for an index over items.

    Strengths of a steered model and an item bias stand inside. The result is compared with `recommend`.
    """
    from recbole_fair.quick_start import export_checkpoint

    config_dict = read_settings(settings)
    path = found_checkpoint(path, config_dict)
    target = output or str(Path(path).with_suffix(".onnx" if options["kind"] == "onnx" else ""))
    found = export_checkpoint(path, target, config_dict=config_dict, **options)
    click.echo(visible(f"Written: {found['output']}; {found['checked']} lists compared, {found['differ']} differ."))


@click.command("save", context_settings=_SETTINGS, epilog=_SAVE_EXAMPLES)
@click.argument("path", metavar="CHECKPOINT", callback=checkpoint_argument)
@click.option("--output", required=True, help="The new checkpoint.")
@click.argument("settings", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY=VALUE]...")
def save_command(path: str, output: str, settings: tuple[str, ...]) -> None:
    """Write a checkpoint with chosen strengths, and with the item bias that Lorenz learns on validation users.

    The new checkpoint recommends and is exported under these settings, away from the data.
    """
    from recbole_fair.quick_start import save_served

    config_dict = read_settings(settings)
    found = save_served(found_checkpoint(path, config_dict), output, config_dict)
    for key, value in found["settings"].items():
        click.echo(visible(f"{key}: {value}"))
    for key, value in found["report"].items():
        if not isinstance(value, list | dict):
            shown = f"{value:.4g}" if isinstance(value, float) else value
            click.echo(visible(f"{key.replace('_', ' ')}: {shown}"))
    click.echo(visible(f"Written: {found['checkpoint']}"))
