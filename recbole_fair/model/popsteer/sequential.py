"""PopSteer on sequential models: the autoencoder learns all prefixes of users' sequences, profiles are synthetic."""

from __future__ import annotations

from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import DataSet
from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.data.facts.profiles import check_profile_length
from recbole_fair.model.popsteer.keys import SEQUENTIAL_KEYS
from recbole_fair.model.popsteer.popsteer import PopSteer
from recbole_fair.model.popsteer.vectors import UserVectors, collect_prefix_vectors
from recbole_fair.model.posthoc import progress_bar


class PopSteerSequential(PopSteer):
    """PopSteer on a model that represents sequences of items."""

    keys = SEQUENTIAL_KEYS
    rows_at_once = (64, 2048)
    reads_sequences = True

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        check_profile_length(config["synthetic_length"], int(self.base.max_seq_length))

    def collect_vectors(self, inter: Interactions, show_progress: bool) -> UserVectors:
        """Representations of all training prefixes (``sae_vectors: all``) or of each user's whole history."""
        config = self._config
        with progress_bar("Representations", show_progress) as move:
            return collect_prefix_vectors(
                self.base,
                inter.user,
                inter.item,
                config["sae_vectors"],
                config["sae_vector_stride"],
                move,
                config["eval_memory_mb"],
            )
