"""The commands: ``recbole-fair run | evaluate | sweep | explain | report | doctor``.

Settings are given as ``--key=value`` or ``--key value``; values are read as YAML and never evaluated. A user's mistake
is one sentence on standard error and exit code 2; an interruption ends with exit code 130. Exit code 1: there is a
result, and something that was asked for is missing from it.

Nothing of RecBole is imported before a command needs it: ``doctor`` must work where RecBole does not.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from recbole_fair import __version__
from recbole_fair.commands import launching
from recbole_fair.commands.checkpoints import checkpoint_argument, found_checkpoint
from recbole_fair.commands.data import audit_command, convert_command
from recbole_fair.commands.frontier import frontier_command
from recbole_fair.commands.interruptions import (
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    checkpoint_advice,
    interruptible,
    report_failures,
)
from recbole_fair.commands.listings import LISTINGS
from recbole_fair.commands.serving import export_command, import_command, recommend_command, save_command
from recbole_fair.commands.settings import file_names, names_in, once, read_settings
from recbole_fair.commands.talking import arranged, verbosity_options, words_said
from recbole_fair.commands.tuning import tune_command
from recbole_fair.commands.verification import verify_command
from recbole_fair.errors import FairError
from recbole_fair.io.text import visible
from recbole_fair.io.verbosity import Verbosity, set_verbosity

_EXIT_MISTAKE = 2
_SETTINGS = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"]}

_EXAMPLES = """\b
Examples:
  recbole-fair run --model=PopSteerSASRec --dataset=ml-100k
  recbole-fair run -m BPR -d ml-100k --metrics="['NDCG','GiniIndex']"
  recbole-fair evaluate saved/checkpoint.pth --alpha_pop=3
  recbole-fair doctor
"""
_RUN_EXAMPLES = """\b
Examples:
  recbole-fair run -m PopSteerSASRec -d ml-100k --result_file=out.json
  recbole-fair run -m PopSteerSASRec -d ml-1m --data_path=data --alpha_pop=3 --alpha_unpop=3
  recbole-fair run -m PopSteer --base=GRU4Rec -d ml-100k
  recbole-fair run -m GRU4Rec -d ml-100k --learning_rate=1e-3 --topk="[5,10]"
  recbole-fair run -m PopSteerSASRec -d ml-100k --resume=saved/checkpoint.pth
  recbole-fair run -c "base.yaml mine.yaml" --epochs 20
"""
_EVALUATE_EXAMPLES = """\b
Examples:
  recbole-fair evaluate saved/checkpoint.pth
  recbole-fair evaluate saved/checkpoint.pth --alpha_pop=3 --topk="[10,50]" --result_file=out.json
"""


_SWEEP_EXAMPLES = """\b
Examples:
  recbole-fair sweep saved/PopSteerSASRec.pth --grid alpha_pop=0:5:0.5 --subject-to "NDCG@10 >= 0.9*base"
  recbole-fair sweep saved/SPREESASRec.pth --grid spree_strength=0:32:2 --x PCE@10
  recbole-fair sweep saved/BPR.pth --reranker=IPR --grid reranker_alpha=0:1:0.1
  recbole-fair sweep latest --grid alpha_pop=0:5:1 --subject-to "NDCG@10 >= 0.95*base" --save-chosen saved/chosen.pth
"""
_EXPLAIN_EXAMPLES = """\b
Examples:
  recbole-fair explain saved/PopSteerSASRec-checkpoint.pth
  recbole-fair explain saved/PopSteerSASRec-checkpoint.pth --map=pca --alpha_pop=3 --output-dir=dossier
"""
_REPORT_EXAMPLES = """\b
Examples:
  recbole-fair report results
  recbole-fair report out.json results/sweep.json --output=report.html
"""


_COMPARE_EXAMPLES = """\b
Examples:
  recbole-fair compare --models=SASRec,PopSteerSASRec,SPREESASRec --rerankers=IPR,FAstarIR --dataset=ml-100k --seeds=3
  recbole-fair compare -m BPR,ILEBPR -d ml-100k --seeds=1,2,3,4,5 --reference=all --metrics="[NDCG,GiniIndex,UPD]"
  recbole-fair compare -m SASRec,PopSteerSASRec -d ml-100k,shop --tune=20 --minimize=GiniIndex@10
"""


class _DefaultToRun(click.Group):
    """A group in which options without a command mean ``run``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``run`` in front when the first word is an option of a run, and ``keys`` for ``--help KEY``."""
        args = arranged(args)
        if len(args) == 2 and args[0] in ("-h", "--help"):  # --help KEY explains a key
            args = ["keys", args[1]]
        elif args and args[0].startswith("-") and args[0] not in ("-h", "--help", "--version"):
            args = ["run", *args]
        launching.begin_call(ctx, args)
        return super().parse_args(ctx, args)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, which then takes ``-q`` and ``-v`` as well."""
        cmd.params.extend(verbosity_options())
        super().add_command(cmd, name)


@click.group(cls=_DefaultToRun, epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="recbole-fair", message="%(prog)s %(version)s")
def cli() -> None:
    """See and change who gets exposed and who is served by RecBole's recommenders.

    `recbole-fair --model=...` without a command is `recbole-fair run --model=...`. For CHECKPOINT, `latest` is the
    newest one in saved/.
    """
    set_verbosity(Verbosity.NORMAL)


@cli.command(context_settings=_SETTINGS, epilog=_RUN_EXAMPLES)
@click.option(
    "-m",
    "--model",
    multiple=True,
    callback=once,
    help="Name of a model of recbole_fair or RecBole, such as PopSteerSASRec or BPR.",
)
@click.option(
    "-d",
    "--dataset",
    multiple=True,
    callback=once,
    help="Name of the data set: its folder and its files below --data_path.",
)
@click.option(
    "-c",
    "--config_files",
    "--config-files",
    multiple=True,
    help="YAML files, later ones win: -c 'a.yaml b.yaml'. Presets: paper/popsteer-ml-1m.yaml.",
)
@click.argument("settings", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY=VALUE]...")
def run(model: str | None, dataset: str | None, config_files: tuple[str, ...], settings: tuple[str, ...]) -> None:
    """Train a model, evaluate it, and report accuracy and exposure.

    Every key of RecBole and of recbole_fair is an option: --key=value or --key value, read as YAML.
    """
    config_dict = read_settings(settings)
    files = file_names(config_files)
    pairs = [("model", model), ("dataset", dataset), *(("config_files", name) for name in files)]
    named = [f"--{key}={value}" for key, value in pairs if value is not None]
    launching.launch_if_asked(["run", *words_said(), *named, *settings], config_dict, files)
    with interruptible(checkpoint_advice(config_dict.get("resume"))):
        from recbole_fair.quick_start import run_recbole_fair

        result = run_recbole_fair(model=model, dataset=dataset, config_file_list=files, config_dict=config_dict)
    report_failures(result.failed_files)


@cli.command(context_settings=_SETTINGS, epilog=_EVALUATE_EXAMPLES)
@click.argument("path", metavar="CHECKPOINT", callback=checkpoint_argument)
@click.argument("settings", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY=VALUE]...")
def evaluate(path: str, settings: tuple[str, ...]) -> None:
    """Evaluate a saved model again, with other settings of scoring time if wanted; nothing is trained."""
    config_dict = read_settings(settings)
    path = found_checkpoint(path, config_dict)
    launching.launch_if_asked(["evaluate", *words_said(), path, *settings], config_dict)
    with interruptible():
        from recbole_fair.quick_start import evaluate_checkpoint

        result = evaluate_checkpoint(path, config_dict)
    report_failures(result.failed_files)


@cli.command(context_settings=_SETTINGS, epilog=_SWEEP_EXAMPLES)
@click.argument("path", metavar="CHECKPOINT", callback=checkpoint_argument)
@click.option("--grid", multiple=True, help="Values of a key: alpha_pop=0:5:0.5 or beta=0,0.5,1; one a key.")
@click.option("--x", default="GiniIndex@10", show_default=True, help="Metric to choose by.")
@click.option("--y", default="NDCG@10", show_default=True, help="Metric that it is traded against.")
@click.option("--subject-to", multiple=True, help="Bound on validation, such as 'NDCG@10 >= 0.9*base'.")
@click.option("--save-chosen", "--save_chosen", help="Write the setting that wins as this checkpoint.")
@click.option("--output", help="Where files go, without suffix.  [default: results/sweep-CHECKPOINT]")
@click.argument("settings", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY=VALUE]...")
def sweep(
    path: str,
    grid: tuple[str, ...],
    x: str,
    y: str,
    subject_to: tuple[str, ...],
    save_chosen: str | None,
    output: str | None,
    settings: tuple[str, ...],
) -> None:
    """Trade accuracy against exposure: evaluate a model under many scoring-time settings.

    Users are encoded once. The grid holds strengths of the model, keys of a re-ranker (--reranker=IPR), or both. All
    settings go to OUTPUT.csv and .json, the figure to .png and .svg; an interrupted sweep goes on when called again.
    """
    config_dict = read_settings(settings)
    launching.launch_if_asked(launching.words_of_call(), config_dict)
    path = found_checkpoint(path, config_dict)
    if output is None:
        named = [f"sweep-{Path(path).stem}", config_dict.get("reranker")]
        output = str(Path("results", "-".join(str(part) for part in named if part)))
    with interruptible(lambda: "what is measured is kept, the same command goes on"):
        from recbole_fair.quick_start import sweep_checkpoint

        result = sweep_checkpoint(path, grid, x, y, subject_to, output, config_dict, save_chosen)
    report_failures(result.failed_files)


@cli.command(context_settings=_SETTINGS, epilog=_EXPLAIN_EXAMPLES)
@click.argument("path", metavar="CHECKPOINT", callback=checkpoint_argument)
@click.option("--output-dir", "--output_dir", help="Folder of the dossier.  [default: results/explain-CHECKPOINT]")
@click.option(
    "--split", default="valid", show_default=True, help="Whose users and metrics are looked at: valid or test."
)
@click.option("--map", "map_", default="auto", show_default=True, help="Map of users: umap, pca, none or auto.")
@click.option("--strongest", type=int, default=10, show_default=True, help="Neurons of either side shown one by one.")
@click.option("--permutations", type=int, default=499, show_default=True, help="Of the test on the distances.")
@click.option("--controls/--no-controls", default=True, help="Compare the autoencoder with random and other features.")
@click.option("--reseeds", type=int, default=2, show_default=True, help="Autoencoders of other seeds among them.")
@click.argument("settings", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY=VALUE]...")
def explain(
    path: str,
    output_dir: str | None,
    split: str,
    map_: str,
    strongest: int,
    permutations: int,
    controls: bool,
    reseeds: int,
    settings: tuple[str, ...],
) -> None:
    """Write the dossier of a steered model: what its neurons or probes respond to, as tables and figures.

    For PopSteer: effect sizes, activations, top users and items of every neuron, what lowering neurons and changing
    strengths does, a map of users with distances. For SPREE: probes, calibration, bias of users' lists.
    """
    config_dict = read_settings(settings)
    path = found_checkpoint(path, config_dict)
    with interruptible():
        from recbole_fair.quick_start import explain_checkpoint
        from recbole_fair.runs.dossiers.base import Options

        options = Options(map=map_, strongest=strongest, permutations=permutations, controls=controls, reseeds=reseeds)
        result = explain_checkpoint(path, output_dir, split, options, config_dict)
    report_failures(result.failed_files)


@cli.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_REPORT_EXAMPLES)
@click.argument("paths", nargs=-1, metavar="FILE_OR_FOLDER...")
@click.option("--output", help="The HTML file.  [default: FOLDER/report.html, or beside the first FILE]")
def report(paths: tuple[str, ...], output: str | None) -> None:
    """Make one HTML file of result documents; it opens from the disk and needs no network.

    Takes the JSON files of run and evaluate (--result_file), sweep, compare, explain and audit, and folders with them.
    """
    from recbole_fair.report.html import write_report

    click.echo(visible(f"Written: {write_report(paths, output)}"))


@cli.command("compare", context_settings=_SETTINGS, epilog=_COMPARE_EXAMPLES)
@click.option("-m", "--models", multiple=True, help="Names joined by commas; the first is the reference.")
@click.option("--rerankers", multiple=True, help="Names joined by commas; each is applied to every model.")
@click.option("-d", "--dataset", multiple=True, callback=once, help="Name of the data set; several by commas.")
@click.option("--lists", multiple=True, help="Lists of another system, NAME=FILE (csv, parquet, jsonl); once a system.")
@click.option("--seeds", default="3", show_default=True, help="How many, counted up from --seed; or 1,2,3 themselves.")
@click.option("--reference", help="System to compare with, such as 'SASRec + IPR'; or all, for all pairs.")
@click.option("--spread", default="seeds", show_default=True, help="seeds: standard deviation; none: means alone.")
@click.option("--permutations", default=10_000, show_default=True, help="Patterns of signs of the permutation test.")
@click.option("--tune", type=int, help="Tune each system first, by so many trials on validation.")
@click.option("--minimize", multiple=True, help="What it is tuned for, such as GiniIndex@10.")
@click.option("--maximize", multiple=True, help="Likewise.  [default: valid_metric]")
@click.option("--subject-to", multiple=True, help="Bound of the tuning on validation: 'NDCG@10 >= 0.95*base'.")
@click.option("--space", multiple=True, help="Space of a model or re-ranker, NAME=FILE.  [default: shipped]")
@click.option("--output", help="Folder of the comparison.  [default: results/compare-DATASET]")
@click.option("-c", "--config_files", "--config-files", multiple=True, help="YAML files, later ones win.")
@click.argument("settings", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY=VALUE]...")
def compare_command(
    seeds: str,
    config_files: tuple[str, ...],
    settings: tuple[str, ...],
    lists: tuple[str, ...],
    tune: int | None,
    **options: Any,
) -> None:
    """Train and test models, alone and with re-rankers, under several seeds and one protocol.

    The base of post-hoc models is trained once a seed and shared. Tables with mean and spread, paired tests and
    intervals go to OUTPUT as CSV, JSON, Markdown and LaTeX; an interrupted comparison goes on when called again.
    Several data sets (-d A,B) give a comparison each, one table of all, and ranks over the data sets with their test.
    Exit code 1 means that some cells have no result.
    """
    config_dict = read_settings(settings)
    files = file_names(config_files)
    launching.launch_if_asked(launching.words_of_call(), config_dict, files)
    with interruptible(lambda: "finished cells are kept, the same command goes on"):
        from recbole_fair.quick_start import compare, compare_datasets

        options |= {"lists": _read_lists(lists), "config_file_list": files, "config_dict": config_dict}
        options["tuning"] = _tuning(tune, **{key: options.pop(key) for key in _OF_TUNING})
        names = names_in(options["dataset"] or "")
        if len(names) > 1:
            del options["dataset"]
            result: Any = compare_datasets(datasets=names, seeds=_read_seeds(seeds), **options)
        else:
            result = compare(seeds=_read_seeds(seeds), **options)
    report_failures(result.failed_files)
    if result.failed:
        sys.exit(EXIT_INCOMPLETE)


_OF_TUNING = ("minimize", "maximize", "subject_to", "space")


def _tuning(trials: int | None, space: Sequence[str], **aims: Sequence[str]) -> Any:
    """How systems are tuned before they are compared; None where they are not."""
    if trials is None:
        given = next((key for key, value in {**aims, "space": space}.items() if value), None)
        if given is not None:
            raise FairError(f"--{given.replace('_', '-')} says what systems are tuned for: add --tune=TRIALS.")
        return None
    from recbole_fair.runs.tuned import Tuning

    spaces = _read_lists(space, "space")
    return Tuning(trials, aims["minimize"], aims["maximize"], aims["subject_to"], spaces)


def _read_lists(words: Sequence[str], what: str = "lists") -> dict[str, str]:
    """File by name of the system; a file alone is named by itself."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, path = word.partition("=")
        name, path = (name, path) if equals else (Path(word).stem, word)
        if name in found:
            raise FairError(f"{what} names {name} twice.")
        found[name] = path
    return found


def _read_seeds(text: str) -> int | list[int]:
    """``3`` is a number of seeds, ``1,2,3`` and ``7,`` are seeds."""
    try:
        numbers = [int(word) for word in text.strip("[]() ").split(",") if word.strip()]
    except ValueError:
        raise FairError(f"seeds={text!r} is not allowed: give a number of seeds, or the seeds as 1,2,3.") from None
    return numbers if "," in text or len(numbers) != 1 else numbers[0]


@cli.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--no-run", is_flag=True, help="Only look at versions; leave out the short real run.")
def doctor(no_run: bool) -> None:
    """Name what on this machine would break RecBole, with the cure, and prove health by a short real run."""
    from recbole_fair.doctor import examine

    sys.exit(0 if examine(click.echo, real_run=not no_run) else 1)


_SERVING = (import_command, recommend_command, export_command, save_command)
for _command in (audit_command, convert_command, frontier_command, tune_command, verify_command, *_SERVING, *LISTINGS):
    cli.add_command(_command)


def _open_standard_streams() -> None:
    """Give a process that was started with a closed standard stream an idle one.

    The next file that it opened would else take the stream's place, and get what is meant for it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Args:
        args: the words after the program's name; those of the process when left out.
    """
    _open_standard_streams()
    launching.watch_parent()
    if not sys.warnoptions:
        # RecBole's use of older pandas and PyTorch calls is nothing that a user could mend.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    try:
        cli.main(args=None if args is None else list(args), prog_name="recbole-fair", standalone_mode=False)
    except FairError as error:
        launching.say_and_end(visible(f"recbole-fair: {error}"), _EXIT_MISTAKE)
    except ModuleNotFoundError as error:  # some of RecBole's models need more than RecBole asks for
        if (error.name or "").partition(".")[0] in ("", "recbole", "recbole_fair"):
            raise
        text = f"recbole-fair: this model needs the package '{error.name}', which is not installed."
        launching.say_and_end(text, _EXIT_MISTAKE)
    except click.ClickException as error:
        error.show()
        sys.exit(_EXIT_MISTAKE)
    except click.Abort:  # click's name for an interruption outside a run
        click.echo("Interrupted.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        launching.end_with_traceback(error)
    sys.exit(0)


if __name__ == "__main__":
    main()
