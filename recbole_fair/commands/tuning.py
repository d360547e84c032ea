"""The command ``tune``."""

from __future__ import annotations

from typing import Any

import click

from recbole_fair.commands import launching
from recbole_fair.commands.interruptions import interruptible
from recbole_fair.commands.settings import file_names, once, read_settings

_CONTEXT = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"]}
_EXAMPLES = """\b
Examples:
  recbole-fair tune -m PopSteerSASRec -d ml-100k --minimize GiniIndex@10 --subject-to "NDCG@10 >= 0.95*base"
  recbole-fair tune -m BPR -d ml-100k --params_file=model.hyper --trials 30
  recbole-fair tune -m SASRec -d ml-100k --reranker=Lorenz --minimize GiniIndex@10 --maximize NDCG@10
"""


@click.command("tune", context_settings=_CONTEXT, epilog=_EXAMPLES)
@click.option("-m", "--model", multiple=True, callback=once, help="Name of the model.")
@click.option("-d", "--dataset", multiple=True, callback=once, help="Name of the data set.")
@click.option("--space", "--params_file", "--params-file", help="Space: yaml, or RecBole's .hyper.  [default: shipped]")
@click.option("--trials", default=50, show_default=True, help="Trials in the end, earlier calls' among them.")
@click.option("--minimize", multiple=True, help="Metric to make small, such as GiniIndex@10.")
@click.option("--maximize", multiple=True, help="Metric to make large.  [default: valid_metric]")
@click.option("--subject-to", multiple=True, help="Bound on validation, such as 'NDCG@10 >= 0.95*base'.")
@click.option("--sampler", default="tpe", show_default=True, help="tpe, gp, nsga2 or random.")
@click.option("--pruner", default="median", show_default=True, help="median, hyperband or none.")
@click.option("--warmup", default=5, show_default=True, help="Epochs before which no training is ended.")
@click.option("--storage", help="Journal file or url of a database.  [default: OUTPUT/journal.log]")
@click.option("--output", help="Folder of what is written.  [default: results/tune-MODEL-DATASET]")
@click.option("-c", "--config_files", "--config-files", multiple=True, help="YAML files, later ones win.")
@click.argument("settings", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY=VALUE]...")
def tune_command(config_files: tuple[str, ...], settings: tuple[str, ...], **options: Any) -> None:
    """Search for the best settings on validation; test is looked at once, for what was chosen.

    Keys of scoring time are searched on one trained model. A search that was interrupted goes on when called again, and
    several processes may share its storage. The chosen settings go to OUTPUT/chosen.yaml, which run -c takes.
    """
    config_dict = read_settings(settings)
    files = file_names(config_files)
    launching.launch_if_asked(launching.words_of_call(), config_dict, files)
    with interruptible(lambda: "trials that have ended are kept, the same command goes on"):
        from recbole_fair.quick_start import tune

        tune(config_file_list=files, config_dict=config_dict, **options)
