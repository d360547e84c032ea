"""Pop: everybody gets the items with the most training interactions."""

from __future__ import annotations

import torch
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import Pop as RecBolePop
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import DataSet
from recbole_fair.data.facts.interactions import training_interactions
from recbole_fair.data.facts.popularity import count_items


class Pop(RecBolePop):
    """RecBole's Pop with counts of interactions.

    RecBole counts an item once a batch, whatever its number of interactions there, and sampled items as well: with
    the default batch size the most popular items tie, and the ranking depends on the batch size.
    """

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        inter = training_interactions(dataset)
        self.item_cnt = torch.as_tensor(count_items(inter.item, inter.n_items), device=self.device).unsqueeze(1)
        self.max_cnt = self.item_cnt.max(dim=0).values

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Nothing is learnt: 0."""
        return torch.nn.Parameter(torch.zeros(1, device=self.device))
