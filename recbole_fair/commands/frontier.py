"""The command ``frontier``: of a checkpoint, or of a model on one data set or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from recbole_fair.commands import launching
from recbole_fair.commands.checkpoints import found_checkpoint
from recbole_fair.commands.interruptions import interruptible, report_failures
from recbole_fair.commands.settings import file_names, names_in, once, read_settings
from recbole_fair.config.catalogue import keys_of, method_keys
from recbole_fair.errors import FairError

_CONTEXT = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"]}
_EXAMPLES = """\b
Examples:
  recbole-fair frontier saved/SASRec.pth --x GiniIndex@10 --y NDCG@10 --loss 0.05 --loss 0.10
  recbole-fair frontier saved/SASRec.pth --x GiniIndex@10 --x PCE@10 --save saved/winner.pth
  recbole-fair frontier saved/BPR.pth --methods Lorenz,Tilt,IPR --fit PopSteerBPR
  recbole-fair frontier -m SASRec -d ml-100k,my-data --loss 0.05
"""


@click.command("frontier", context_settings=_CONTEXT, epilog=_EXAMPLES)
@click.argument("path", metavar="[CHECKPOINT]", required=False)
@click.option("-m", "--model", multiple=True, callback=once, help="In place of CHECKPOINT: the model, with --dataset.")
@click.option("-d", "--dataset", multiple=True, callback=once, help="Name of its data set; several joined by commas.")
@click.option("--x", multiple=True, default=("GiniIndex@10",), show_default=True, help="Metric to better; several.")
@click.option("--y", default="NDCG@10", show_default=True, help="Metric that may lose.")
@click.option("--loss", multiple=True, type=float, default=(0.05, 0.1), show_default=True, help="Budget: share of y.")
@click.option("--refine", type=int, default=2, show_default=True, help="Rounds of settings between those of the grid.")
@click.option("--methods", help="Names joined by commas; all that apply if left out.")
@click.option("--fitted", multiple=True, help="Checkpoint of a model fitted on this base; those beside it are found.")
@click.option("--fit", help="Names of models, joined by commas, to fit on this base where there is none yet.")
@click.option("--save", help="Write the winner of the first --x and the first --loss as this checkpoint.")
@click.option("--output", help="Where files go, without suffix.  [default: results/frontier-CHECKPOINT]")
@click.option("-c", "--config_files", "--config-files", multiple=True, help="YAML files, with --model.")
@click.argument("settings", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY=VALUE]...")
def frontier_command(
    path: str | None,
    model: str | None,
    dataset: str | None,
    x: tuple[str, ...],
    y: str,
    loss: tuple[float, ...],
    refine: int,
    methods: str | None,
    fitted: tuple[str, ...],
    fit: str | None,
    save: str | None,
    output: str | None,
    config_files: tuple[str, ...],
    settings: tuple[str, ...],
) -> None:
    """Find the best intervention: every post-hoc method that applies to a model, within a budget of accuracy.

    With -m and -d the model is taken from checkpoint_dir if it has been trained under these settings, and trained
    otherwise. Several data sets (-d A,B), or checkpoints of several joined by commas, give one table with ranks.

    Users are encoded and candidates ranked once. Winners are chosen on validation and shown on test, with intervals;
    all settings go to OUTPUT.csv and .json, the fronts to .png and .svg; an interrupted call goes on when repeated.
    """
    if path is not None and path.startswith("-"):  # there is no checkpoint, and the first setting stands in its place
        settings = (path, *settings)
        path = None
    config_dict, files = read_settings(settings), file_names(config_files)
    _check(path, model, dataset, files, settings)
    launching.launch_if_asked(launching.words_of_call(), config_dict, files)
    names = None if methods is None else names_in(methods)
    to_fit = names_in(fit or "")
    with interruptible(lambda: "what is measured is kept, the same command goes on"):
        from recbole_fair.quick_start import frontier_checkpoint, frontier_datasets, trained_checkpoints

        if path is None:
            of_base = {key: value for key, value in config_dict.items() if not (to_fit and key in method_keys())}
            paths = trained_checkpoints(str(model), names_in(dataset or ""), files, of_base)
            config_dict = _of_evaluation(config_dict)
        else:
            words = [path] if Path(path).is_file() else names_in(path)
            paths = [found_checkpoint(one, config_dict) for one in words or [path]]
        options: dict[str, Any] = {
            "fitted": fitted, "fit": to_fit, "save": save, "config_dict": config_dict, "refine": refine
        }  # fmt: skip
        if len(paths) > 1:
            study = frontier_datasets(paths, x, y, loss, names, output=output, **options)
            report_failures(study.failed_files)
            return
        (path,) = paths
        output = output or str(Path("results", f"frontier-{Path(path).stem}"))
        result = frontier_checkpoint(path, x, y, loss, names, output=output, **options)
    report_failures(result.failed_files)


def _check(
    path: str | None, model: str | None, dataset: str | None, files: Sequence[str], settings: Sequence[str]
) -> None:
    """See that a checkpoint is named, or a model with its data."""
    if path is None:
        if model is None and dataset is None and not files:
            first = f" {settings[0]}" if settings else ""
            raise FairError(
                f"Name the checkpoint before the settings: frontier CHECKPOINT{first}; or a model and its data, as in "
                "frontier -m SASRec -d ml-100k."
            )
        for name, value in (("model", model), ("dataset", dataset)):
            if value is None:
                raise FairError(f"{name} is not set: add --{name}=NAME.")
        return
    if model is not None or dataset is not None or files:
        raise FairError(
            f"{path} has its model, data and settings: leave --model, --dataset and -c out, or the checkpoint."
        )


def _of_evaluation(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that say what is trained and from where; the checkpoint knows them."""
    return {key: value for key, value in settings.items() if key not in (*keys_of("start"), "base")}
