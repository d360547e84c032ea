"""All that is found out about a steered model for its dossier: one object of data frames a method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbole_fair.analysis import neuron_effects as on
from recbole_fair.analysis.distances import distance_frame, has_umap, project
from recbole_fair.analysis.populations import NAMES, Floats, Populations, activations, collect
from recbole_fair.data.contract import DataSet, EvaluationLoader, TrainingLoader
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import training_interactions
from recbole_fair.data.reading.titles import item_titles
from recbole_fair.errors import FairError
from recbole_fair.io.timing import Stages
from recbole_fair.model.popsteer.popsteer import PopSteer
from recbole_fair.model.spree.probe import Site
from recbole_fair.model.spree.spree import SPREE, median_bias

MAPS = ("auto", "umap", "pca", "none")
_GROUPS = (*NAMES, "steered")


@dataclass(frozen=True)
class Options:
    """How much is looked at.

    Attributes:
        synthetic_users: users a side for activations and normality, at most.
        strongest: neurons of either sign that are shown one by one.
        tops: users and items listed for each neuron.
        map_users: users of each group on the map and in the distances.
        map: ``umap``, ``pca``, ``none``, or ``auto``: UMAP where it is installed, else principal components.
        permutations: of the test on the distances.
        alphas: values of both strengths for the sensitivity surfaces.
        strengths: values of SPREE's strength.
        seed: of everything drawn here; None is the model's seed plus 1000, other users than the fit has seen.
    """

    synthetic_users: int = 5000
    strongest: int = 10
    tops: int = 10
    map_users: int = 400
    map: str = "auto"
    permutations: int = 499
    alphas: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    strengths: tuple[float, ...] = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.map not in MAPS:
            raise FairError(f"map={self.map!r} is not allowed: it must be one of {', '.join(MAPS)}.")
        for name in ("synthetic_users", "strongest", "tops", "map_users", "permutations"):
            if getattr(self, name) < 1:
                raise FairError(f"{name}={getattr(self, name)} is not allowed: it must be at least 1.")


@dataclass
class NeuronDossier:
    """What is known about a PopSteer model.

    Attributes:
        neurons: one row a neuron: statistics, steering, normality, head share of its users.
        strongest: the neurons shown one by one, by the side that they lean to.
        activations: quantiles of their pre-activations under each kind of users.
        samples: those pre-activations ``[n, m]`` by population, columns as in ``shown``.
        users: top users of every neuron, with the data's ids.
        items: top items of every neuron, with the data's ids and titles.
        head_share: share of head items of every real user ``[U]``.
        normality: shares of neurons that look normal.
        variants: metrics of base, reconstructed and steered.
        reduction: metrics when the strongest neurons are lowered.
        surface: metrics over the grid of strengths.
        map: places of users on a plane, or None.
        map_method: ``umap`` or ``pca``, or None.
        distances: Wasserstein distances and their test.
        notes: sentences for whoever reads the dossier.
        seconds: by part.
    """

    neurons: pd.DataFrame
    strongest: dict[str, list[int]]
    activations: pd.DataFrame
    samples: dict[str, Floats]
    users: pd.DataFrame
    items: pd.DataFrame
    head_share: Floats
    normality: pd.DataFrame
    variants: pd.DataFrame
    reduction: pd.DataFrame
    surface: pd.DataFrame
    map: pd.DataFrame | None
    map_method: str | None
    distances: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def shown(self) -> list[int]:
        """The neurons shown one by one, popular ones first."""
        return [j for side in self.strongest.values() for j in side]


def _silent(items: Sequence[Any], title: str) -> Iterable[Any]:
    return items


def neuron_dossier(
    trainer: Any,
    train_data: TrainingLoader,
    eval_data: EvaluationLoader,
    options: Options,
    show: Callable[[Sequence[Any], str], Iterable[Any]] = _silent,
) -> NeuronDossier:
    """Examine the neurons of a fitted PopSteer model.

    Args:
        trainer: a trainer with its splits bound.
        train_data: the training loader.
        eval_data: the split whose users and metrics are looked at.
        options: how much.
        show: wraps what takes long, with a title, for progress bars.
    """
    model, clock = trainer.model, Stages()
    assert isinstance(model, PopSteer)
    seed = trainer.config["seed"] + 1000 if options.seed is None else options.seed
    dataset = train_data._dataset
    notes: list[str] = []
    with clock("representations"):
        populations = collect(model, train_data, eval_data, options.synthetic_users, seed)
    sizes = f"{len(populations.popular)} and {len(populations.unpopular)}"
    if hasattr(model, "profile_users"):
        notes.append(
            "Users of popular and of unpopular items are the training users whose histories lean most to either side "
            f"({sizes})."
        )
    else:
        notes.append(f"Users of popular and of unpopular items are synthetic ({sizes}), drawn anew.")
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
    with clock("normality"):
        normality = on.normality_frame(model, populations)
        summary = on.normality_summary(normality, table["alive"])
        table = table.merge(normality, on="neuron")
    with clock("reduction"):
        variants = on.variant_metrics(trainer, eval_data)
        reduction = on.reduction(trainer, eval_data, lambda tasks: show(tasks, "Lowered neurons"))
    with clock("surface"):
        grid = {"alpha_pop": list(options.alphas), "alpha_unpop": list(options.alphas)}
        surface = on.surface(trainer, eval_data, grid, lambda settings: show(settings, "Strengths"))
    with clock("map"):
        clouds, rows = _clouds(model, populations, options.map_users, seed)
        how = _map_method(options.map, notes)
        plane, places = (None, None) if how is None else _plane(clouds, how, seed)
        if places is not None:
            tokens = dataset.id2token(dataset.uid_field, populations.users[rows])
            places["user_id"] = [""] * (2 * len(rows)) + [str(token) for token in tokens] * 2
    with clock("distances"):
        distances = distance_frame(
            clouds, plane, options.permutations, seed, lambda rounds: show(rounds, "Permutations")
        )
    return NeuronDossier(
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
        notes=notes,
        seconds=clock.seconds,
    )


def _name_users(users: pd.DataFrame, dataset: DataSet) -> None:
    tokens = dataset.id2token(dataset.uid_field, users.pop("user").to_numpy())
    users.insert(2, "user_id", [str(token) for token in tokens])


def _name_items(items: pd.DataFrame, dataset: DataSet) -> pd.DataFrame:
    ids = items.pop("item").to_numpy()
    items.insert(3, "item_id", [str(token) for token in dataset.id2token(dataset.iid_field, ids)])
    titles = item_titles(dataset)
    if titles is not None:
        items.insert(4, "title", [titles[item] for item in ids])
    return items


@torch.no_grad()
def _clouds(
    model: PopSteer, populations: Populations, n: int, seed: int
) -> tuple[dict[str, Floats], np.ndarray[Any, Any]]:
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


def _map_method(wanted: str, notes: list[str]) -> str | None:
    if wanted == "none":
        return None
    if wanted == "auto" and not has_umap():
        notes.append(
            "umap-learn is not installed, so that the map shows the first two principal components; "
            "pip install 'recbole_fair[viz]' brings UMAP."
        )
        return "pca"
    return "umap" if wanted == "auto" else wanted


def _plane(clouds: dict[str, Floats], how: str, seed: int) -> tuple[dict[str, Floats], pd.DataFrame]:
    n = len(clouds["real"])
    flat = project(np.concatenate([clouds[name] for name in _GROUPS]), how, seed)
    plane = {name: flat[number * n : (number + 1) * n] for number, name in enumerate(_GROUPS)}
    places = pd.DataFrame({"group": np.repeat(_GROUPS, n), "x": flat[:, 0], "y": flat[:, 1]})
    return plane, places


# -- SPREE -------------------------------------------------------------------------------------------------------------


@dataclass
class SiteDossier:
    """What is known about a SPREE model.

    Attributes:
        probe: ``block``, ``position``, ``accuracy`` and whether the site was ``chosen``.
        calibration: ``variant``, ``level`` and ``tau_hat``, the mean over users, at the longest list.
        list_length: that length.
        bias: one row a user: ``user_id``, the bias of the lists of each variant and the ``estimate``.
        variants: metrics of each variant.
        strengths: metrics over ``spree_strength``, of the variant that the run is about.
        notes: sentences for whoever reads the dossier.
        seconds: by part.
    """

    probe: pd.DataFrame
    calibration: pd.DataFrame
    list_length: int
    bias: pd.DataFrame
    variants: pd.DataFrame
    strengths: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def site_dossier(
    trainer: Any,
    train_data: TrainingLoader,
    eval_data: EvaluationLoader,
    options: Options,
    show: Callable[[Sequence[Any], str], Iterable[Any]] = _silent,
) -> SiteDossier:
    """Examine a fitted SPREE model; arguments as in :func:`neuron_dossier`."""
    model, clock = trainer.model, Stages()
    assert isinstance(model, SPREE)
    probe = pd.DataFrame(model.report["probe"]["accuracies"])
    chosen = model.report["probe"]["chosen"]
    probe["chosen"] = (probe["block"] == chosen["block"]) & (probe["position"] == chosen["position"])
    with clock("variants"):
        results = {}
        for name in show(model.variants, "Variants"):
            with model.use_variant(name):
                results[name] = trainer.evaluate_lists(eval_data)
    length = max(trainer.config["topk"])
    calibration = pd.DataFrame(
        [
            {"variant": name, "level": level, "tau_hat": value}
            for name, result in results.items()
            for level, value in zip(
                result.curves["calibration"]["levels"],
                result.curves["calibration"]["tau_hat"][str(length)],
                strict=True,
            )
        ]
    )
    with clock("bias"):
        bias = _biases(model, train_data, eval_data, results)
    with clock("strengths"):
        values = on.surface(
            trainer, eval_data, {"spree_strength": list(options.strengths)}, lambda some: show(some, "Strengths")
        )
    variants = pd.DataFrame([{"variant": name, **result.metrics} for name, result in results.items()])
    return SiteDossier(probe, calibration, length, bias, variants, values, model.scoring_notes(), clock.seconds)


@torch.no_grad()
def _biases(
    model: SPREE, train_data: TrainingLoader, eval_data: EvaluationLoader, results: dict[str, Any]
) -> pd.DataFrame:
    """Popularity bias of each user's lists under every variant, and the estimate that the adaptive one moves by."""
    dataset = train_data._dataset
    histories = Histories.from_interactions(training_interactions(dataset))
    first = results["base"]
    users = first.user_ids.cpu().numpy()
    frame = pd.DataFrame({"user_id": [str(token) for token in dataset.id2token(dataset.uid_field, users)]})
    rows = histories.rows(users)
    for name, result in results.items():
        frame[name] = median_bias(first.popularity.counts, result.lists.cpu(), rows).numpy()
    site = Site(*model.site.tolist())
    device = model.direction.device
    parts, owners = [], []
    for batch in eval_data:
        x = model.activations(batch[0].to(device), [site])[0]
        parts.append(model.estimate_bias(x).cpu())
        owners.append(batch[0][model.base.USER_ID].cpu())
    estimates = dict(zip(torch.cat(owners).tolist(), torch.cat(parts).tolist(), strict=True))
    frame["estimate"] = [estimates[user] for user in users.tolist()]
    return frame
