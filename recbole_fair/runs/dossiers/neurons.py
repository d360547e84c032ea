"""The dossier of neurons: what PopSteer's autoencoder has found, and what turning its neurons does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.figure import Figure

from recbole_fair.analysis import neuron_effects as on
from recbole_fair.analysis.distances import distance_frame, has_umap, project
from recbole_fair.analysis.dossier import NeuronDossier
from recbole_fair.analysis.populations import NAMES, Floats, Populations, activations
from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import DataSet
from recbole_fair.data.reading.titles import item_titles
from recbole_fair.errors import FairError
from recbole_fair.model.popsteer.popsteer import ERASING, PopSteer
from recbole_fair.report.documents import DossierDocument, NeuronsDocument, rows_of
from recbole_fair.report.dossiers import neuron_entries, neuron_lines
from recbole_fair.report.neuron_figures import neuron_figures
from recbole_fair.runs.dossiers.base import Dossier
from recbole_fair.runs.dossiers.controls import Controls
from recbole_fair.runs.dossiers.information import group_information
from recbole_fair.runs.dossiers.measures import lowered_neurons, surface_of, variant_metrics
from recbole_fair.runs.dossiers.neuron_table import neuron_table, turned_neurons
from recbole_fair.runs.dossiers.users import TrainingProfiles, collect

_GROUPS = (*NAMES, "steered")


class NeuronsDossier(Dossier):
    """The dossier of a PopSteer model.

    Attributes:
        found: all of it, as data frames.
    """

    metrics = ("NDCG", "GiniIndex")
    found: NeuronDossier

    @classmethod
    def check(cls, config: Settings) -> None:
        """Refuse the ways of steering that move no neuron by an amount of its own."""
        mode = config["steer_mode"]
        if mode in ("dense", "noise", *ERASING):
            raise FairError(
                f"steer_mode={mode} moves no neuron by an amount of its own: there is no steering of neurons to "
                "explain; add --steer_mode=popsteer (or random_select)."
            )

    def examine(self) -> None:
        """Look at neurons, their users and items, normality, steering, the map and distances."""
        trainer, options, show, clock = self.trainer, self.options, self.show, self.clock
        train_data, eval_data, model = self.train_data, self.eval_data, trainer.model
        assert isinstance(model, PopSteer)
        seed = trainer.config["seed"] + 1000 if options.seed is None else options.seed
        dataset = train_data._dataset
        notes: list[str] = []
        with clock("representations"):
            populations = collect(model, train_data, eval_data, options.synthetic_users, seed)
        notes.append(_who_stands_for(model, populations))
        with clock("neurons"):
            table = on.neuron_frame(model)
            shown = on.strongest(model, options.strongest)
            chosen = [j for side in shown.values() for j in side]
            samples = {name: activations(model, populations[name], np.asarray(chosen)) for name in NAMES}
            responses = on.activation_frame(model, populations, chosen)
        with clock("users_and_items"):
            users = on.top_users(model, populations, options.tops)
            items = on.top_items(model, populations, options.tops)
            table["head_share_of_top_users"] = on.head_share_of_top_users(users).reindex(table["neuron"]).to_numpy()
            _name_users(users, dataset)
            items = _name_items(items, dataset)
            every = neuron_table(model, populations, dataset, items, trainer.config["group_field"])
        with clock("normality"):
            normality = on.normality_frame(model, populations)
            summary = on.normality_summary(normality, table["alive"])
            table = table.merge(normality, on="neuron")
        with clock("reduction"):
            variants = variant_metrics(trainer, eval_data)
            reduction = lowered_neurons(trainer, eval_data, lambda tasks: show(tasks, "Lowered neurons"))
            turned = turned_neurons(trainer, eval_data, chosen, lambda some: show(some, "Turned neurons"))
            every = every.merge(turned, on="neuron", how="left")
        with clock("surface"), _own_strengths(model):
            grid = {"alpha_pop": list(options.alphas), "alpha_unpop": list(options.alphas)}
            surface = surface_of(trainer, eval_data, grid, lambda settings: show(settings, "Strengths"))
        with clock("map"):
            clouds, rows = clouds_of(model, populations, options.map_users, seed)
            how = _map_method(options.map, notes)
            plane, places = (None, None) if how is None else _plane(clouds, how, seed)
            if places is not None:
                tokens = dataset.field2id_token[dataset.uid_field][populations.users[rows]]
                places["user_id"] = [""] * (2 * len(rows)) + [str(token) for token in tokens] * 2
        with clock("distances"):
            distances = distance_frame(
                clouds, plane, options.permutations, seed, lambda rounds: show(rounds, "Permutations")
            )
        information = None
        if model.known_concepts[0]["of"] == "users":
            with clock("information"):
                concept = model.read_concepts(dataset, populations.inter)[0]
                information = group_information(trainer, eval_data, populations, concept, seed)
        controls = None
        if options.controls:
            with clock("controls"):
                compared = Controls(trainer, eval_data, populations, seed, options.reseeds)
                controls = compared.compare(lambda arms: show(arms, "Controls"))
        self.found = NeuronDossier(
            neurons=table,
            strongest=shown,
            activations=responses,
            samples=samples,
            users=users,
            items=items,
            head_share=populations.head_share,
            normality=summary,
            variants=variants,
            reduction=reduction,
            surface=surface,
            map=places,
            map_method=how,
            distances=distances,
            every=every,
            concepts=model.known_concepts,
            controls=controls,
            information=information,
            notes=notes,
            seconds=clock.seconds,
        )

    def document(self, **about: Any) -> DossierDocument:
        """Counts and histograms, not one entry a user or neuron."""
        variants = rows_of(self.found.variants)
        entries = neuron_entries(self.found)
        return NeuronsDocument(method="PopSteer", variants=variants, notes=self.found.notes, **about, **entries)

    def tables(self) -> dict[str, pd.DataFrame]:
        """One row a neuron, user, item, setting or group."""
        found = self.found
        tables = {
            "neurons": found.neurons,
            "activations": found.activations,
            "users": found.users,
            "items": found.items,
            "normality": found.normality,
            "variants": found.variants,
            "reduction": found.reduction,
            "strengths": found.surface,
            "distances": found.distances,
            "every": found.every,
        }
        if found.controls is not None:
            tables |= {
                "controls": pd.DataFrame(found.controls["arms"]),
                "seeds": pd.DataFrame(found.controls["reseeds"]),
            }
        if found.information is not None:
            tables["information"] = found.information
        return tables if found.map is None else {**tables, "map": found.map}

    def figures(self, metrics: Sequence[str], strengths: Mapping[str, Any]) -> dict[str, Callable[[], Figure]]:
        """PopSteer's Figures 3 to 6 and what goes with them."""
        return neuron_figures(self.found, metrics, strengths)

    def lines(self, document: DossierDocument) -> list[str]:
        """Counts, the strongest neurons, distances."""
        return neuron_lines(document)


def _who_stands_for(model: PopSteer, populations: Populations) -> str:
    """A sentence on the users of either side."""
    concept = model.known_concepts[0]
    sizes = f"{len(populations.popular)} and {len(populations.unpopular)}"
    what = "popular and of unpopular" if model.steers_popularity else f"{concept['label']} and of other"
    if concept["of"] == "users":
        return f"{concept['label']} and other users are the training users who have it and have not ({sizes})."
    if isinstance(model, TrainingProfiles):
        return f"Users of {what} items are the training users whose histories lean most to either side ({sizes})."
    return f"Users of {what} items are synthetic ({sizes}), drawn anew."


@contextmanager
def _own_strengths(model: PopSteer) -> Iterator[None]:
    """Inside the block the method's own strengths act, whatever ``steer`` says."""
    before = model.steer
    model.set_strengths(steer=None)
    try:
        yield
    finally:
        model.set_strengths(steer=before)


def _name_users(users: pd.DataFrame, dataset: DataSet) -> None:
    tokens = dataset.field2id_token[dataset.uid_field][users.pop("user").to_numpy()]
    users.insert(2, "user_id", [str(token) for token in tokens])


def _name_items(items: pd.DataFrame, dataset: DataSet) -> pd.DataFrame:
    ids = items.pop("item").to_numpy()
    items.insert(3, "item_id", [str(token) for token in dataset.field2id_token[dataset.iid_field][ids]])
    titles = item_titles(dataset)
    if titles is not None:
        items.insert(4, "title", [titles[item] for item in ids])
    return items


@torch.no_grad()
def clouds_of(
    model: PopSteer, populations: Populations, n: int, seed: int
) -> tuple[dict[str, Floats], npt.NDArray[np.int64]]:
    """Equally many representations of all four groups, and the rows of the real users.

    The unsteered ones pass through the autoencoder as well if the steered ones do: what it cannot reconstruct must not
    look like an effect of steering.
    """
    n = min(n, *(len(populations[name]) for name in NAMES))
    rng = np.random.default_rng(seed)
    rows = {name: np.sort(rng.choice(len(populations[name]), n, replace=False)) for name in NAMES}
    points = {name: populations[name][torch.from_numpy(rows[name])] for name in NAMES}
    whole = model.steer_mode == "dense" or model.keep_reconstruction_error
    clouds = {name: x if whole else model.edit(x, "reconstructed") for name, x in points.items()}
    with model.use_variant("steered"):
        clouds["steered"] = model.edit(points["real"], "steered")
    return {name: x.double().cpu().numpy() for name, x in clouds.items()}, rows["real"]


def _map_method(asked: str, notes: list[str]) -> str | None:
    if asked == "none":
        return None
    if asked == "auto" and not has_umap():
        notes.append(
            "umap-learn is not installed, so that the map shows the first two principal components; "
            "pip install 'recbole_fair[viz]' brings UMAP."
        )
        return "pca"
    return "umap" if asked == "auto" else asked


def _plane(clouds: dict[str, Floats], how: str, seed: int) -> tuple[dict[str, Floats], pd.DataFrame]:
    n = len(clouds["real"])
    flat = project(np.concatenate([clouds[name] for name in _GROUPS]), how, seed)
    plane = {name: flat[number * n : (number + 1) * n] for number, name in enumerate(_GROUPS)}
    places = pd.DataFrame({"group": np.repeat(_GROUPS, n), "x": flat[:, 0], "y": flat[:, 1]})
    return plane, places
