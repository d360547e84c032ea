"""Users times items of every supported model against RecBole's own scores of whole lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import BPR, EASE, NeuMF
from recbole.model.sequential_recommender import GRU4Rec
from recbole.utils import get_model as recbole_model
from recbole.utils import init_seed

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.registry import recbole_models
from recbole_fair.data.reading.prepare import load_data
from recbole_fair.errors import FairError
from recbole_fair.model.bases.split import NO_SPLIT, Split, split_class, split_names

SMALL: dict[str, Any] = {
    "embedding_size": 8, "hidden_size": 8, "inner_size": 8, "n_heads": 2, "MAX_ITEM_LIST_LENGTH": 8, "block_num": 1,
    "mlp_hidden_size": [12], "latent_dimension": 8, "hidden_dimension": 12, "rank": 6, "num_clusters": 3, "k": 3,
    "kg_embedding_size": 8, "gcn_output_dim": 12, "user_embedding_size": 8, "item_embedding_size": 8,
    "user_hidden_size_list": [8], "item_hidden_size_list": [8], "hidden_size_list": [8], "n_factors": 2,
    "interest_size": 3, "k_interests": 3, "prototype_size": 5, "selected_features": ["kind"], "item_attribute": "kind",
}  # fmt: skip


def write_data(folder: Path) -> None:
    """Forty items with features and a knowledge graph, thirty users who have ten of them on average."""
    rng = np.random.default_rng(0)
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(30):
        for time, item in enumerate(rng.permutation(40)[: rng.integers(5, 16)]):
            rows.append(f"u{user}\ti{item}\t{time}")
    folder.mkdir(parents=True)
    files = {
        "inter": rows,
        "item": ["item_id:token\tkind:token_seq", *(f"i{i}\t{'a b' if i % 2 else 'c'}" for i in range(40))],
        "link": ["item_id:token\tentity_id:token", *(f"i{i}\te{i}" for i in range(40))],
        "kg": [
            "head_id:token\trelation_id:token\ttail_id:token",
            *(f"e{i}\tr{i % 3}\te{40 + i % 7}" for i in range(40)),
        ],
    }
    for ending, lines in files.items():
        (folder / f"tiny.{ending}").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_data(folder / "tiny")
    return folder


def settings(tiny: Path, model: str) -> dict[str, Any]:
    known = FairConfig(model, "tiny", config_dict={"data_path": str(tiny)})
    own = {key: value for key, value in SMALL.items() if key in known}
    columns: dict[str, Any] = {"inter": ["user_id", "item_id", "timestamp"]}
    if "selected_features" in known or "item_attribute" in known:
        columns["item"] = ["item_id", "kind"]
    if str(known["MODEL_TYPE"]).endswith("KNOWLEDGE"):
        columns |= {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
    return {**own, "data_path": str(tiny), "load_col": columns}


def both(tiny: Path, name: str) -> tuple[Any, Any, Any]:
    """RecBole's model, ours with the same weights, and a batch of test users."""
    init_seed(3, True)
    config = FairConfig(name, "tiny", config_dict=settings(tiny, name))
    train, _, test = load_data(config)
    models = []
    for cls in (recbole_model(name), split_class(recbole_model(name))):
        init_seed(3, True)
        models.append(cls(config, train._dataset).eval())
    theirs, ours = models
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # zeros of a new model would hide a bias that is left out
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    ours.load_state_dict(theirs.state_dict())
    batch = next(iter(test))
    return theirs, ours, batch[0]


@pytest.mark.parametrize("name", split_names())
def test_users_times_items_are_recboles_scores(name: str, tiny: Path) -> None:
    theirs, ours, users = both(tiny, name)
    with torch.no_grad():
        expected = theirs.full_sort_predict(users).reshape(len(users), -1)
        products = ours.represent_users(users) @ ours.item_representations().t()
        bias = ours.score_bias()
        scores = ours.to_scores(products if bias is None else products + bias)
    if name == "FISM":  # RecBole adds a number a user, the same to all items
        expected = expected - theirs.user_bias[users["user_id"]].unsqueeze(1)
    assert scores.shape == expected.shape
    assert scores.std(dim=1).min() > 1e-4
    torch.testing.assert_close(scores, expected.float(), rtol=1e-5, atol=1e-5)
    same = ours.full_sort_predict(users)  # the class scores whole lists as before
    torch.testing.assert_close(same, theirs.full_sort_predict(users))


def test_graph_models_see_new_weights(tiny: Path) -> None:
    theirs, ours, users = both(tiny, "NGCF")
    with torch.no_grad():
        before = ours.represent_users(users)
        for model in (theirs, ours):
            model.user_embedding.weight.mul_(2)
        theirs.restore_user_e = None
        scores = ours.represent_users(users) @ ours.item_representations().t()
        assert not torch.equal(ours.represent_users(users), before)
        torch.testing.assert_close(scores.flatten(), theirs.full_sort_predict(users).flatten())


def test_every_model_of_recbole_can_be_split_or_says_why_not() -> None:
    general = {"GeneralRecommender", "SequentialRecommender"}
    for name in recbole_models():
        try:
            model = recbole_model(name)
        except (ImportError, ValueError):
            continue
        if not general & {one.__name__ for one in model.__mro__} or name in split_names():
            continue
        with pytest.raises(FairError, match=rf"^{model.__name__} cannot be a base: .+ What applies"):
            split_class(model)
    assert not set(NO_SPLIT) & set(split_names())
    with pytest.raises(FairError, match="NeuMF cannot be a base: a network scores each pair"):
        split_class(NeuMF)
    with pytest.raises(FairError, match="EASE cannot be a base: it has no vectors"):
        split_class(EASE)


def test_the_same_class_for_the_same_model() -> None:
    assert split_class(GRU4Rec) is split_class(GRU4Rec)
    assert split_class(split_class(GRU4Rec)) is split_class(GRU4Rec)
    assert split_class(GRU4Rec).__name__ == "GRU4Rec"
    assert issubclass(split_class(GRU4Rec), GRU4Rec)


class Renamed(BPR):
    """Scores as BPR does."""


class Other(BPR):
    """Scores in a way of its own, and does not say its vectors."""

    def full_sort_predict(self, interaction: Interaction) -> torch.Tensor:
        return super().full_sort_predict(interaction) ** 2


class Stated(Other):
    """Says its vectors."""

    def represent_users(self, interaction: Interaction) -> torch.Tensor:
        return self.user_embedding(interaction[self.USER_ID])

    def item_representations(self) -> torch.Tensor:
        return self.item_embedding.weight


class WithBias(Stated):
    """Has an item bias as a function."""

    def item_bias(self) -> torch.Tensor:
        return self.item_embedding.weight[:, 0]


class WithBiasParameter(Stated):
    """Calls a parameter by the name of the function."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.item_bias = torch.nn.Parameter(torch.ones(self.n_items))


def test_ones_own_class(tiny: Path) -> None:
    assert split_class(Renamed).item_representations is split_class(BPR).item_representations
    with pytest.raises(FairError, match=r"Other cannot be a base: it does not say .*represent_users"):
        split_class(Other)
    config = FairConfig("BPR", "tiny", config_dict=settings(tiny, "BPR"))
    dataset = load_data(config)[0]._dataset
    assert issubclass(split_class(Stated), Split)
    assert split_class(Stated)(config, dataset).score_bias() is None
    assert split_class(WithBias)(config, dataset).score_bias().shape == (dataset.item_num,)
    assert split_class(WithBiasParameter)(config, dataset).score_bias() is None
