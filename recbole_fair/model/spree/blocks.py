"""What leaves the blocks of a base model's encoder: read and replaced at one position, by hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_fair.model.bases.sasrec import SASRec, columns_needed
from recbole_fair.model.concept_steering import ConceptSteering
from recbole_fair.model.spree.probe import Site

Hook = Callable[[Tensor], "Tensor | None"]


class BlockReading(ConceptSteering):
    """A post-hoc model that reads and edits activations inside its base."""

    @property
    def n_blocks(self) -> int:
        """Blocks of the base model's encoder; without any, what stands before the items counts as one."""
        return len(self.base.blocks()) or 1

    @property
    def window(self) -> int:
        """Positions of a site: those of the longest sequence that the blocks read; 1 without blocks."""
        return int(self.base.max_seq_length) if self.base.blocks() else 1

    def run_blocks(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` user representations from a pass that calls every block as a module, so that hooks are called."""
        if not isinstance(self.base, SASRec):
            users: Tensor = self.base.represent_users(interaction)
            return users
        # RecBole's own pass; ours, which is quicker, does not call the blocks as modules.
        sequences, lengths = interaction[self.base.ITEM_SEQ], interaction[self.base.ITEM_SEQ_LEN]
        users = self.base.forward(sequences[:, : columns_needed(sequences, lengths)], lengths)
        return users

    def is_output(self, site: Site) -> bool:
        """Whether the activation at ``site`` is the user's representation, so that no hook is needed to edit it."""
        return not self.base.blocks() or (isinstance(self.base, SASRec) and site == Site(self.n_blocks, -1))

    def positions(self, interaction: Interaction, position: int) -> Tensor:
        """``[B]`` column of a position counted from the end; a shorter sequence gives its first column."""
        lengths: Tensor = interaction[self.base.ITEM_SEQ_LEN]
        return (lengths + position).clamp_min(0)

    @contextmanager
    def _hooks(self, functions: Mapping[int, Hook]) -> Iterator[None]:
        """Call each function with the output ``[B, L, d]`` of its block (1 the first); what it returns goes on."""

        def hook(function: Hook) -> Callable[..., Tensor | None]:
            return lambda module, arguments, output: function(output)

        with ExitStack() as stack:
            for block, function in functions.items():
                handle = self.base.blocks()[block - 1].register_forward_hook(hook(function))
                stack.callback(handle.remove)
            yield

    @torch.no_grad()
    def activations(self, interaction: Interaction, sites: Sequence[Site]) -> list[Tensor]:
        """``[B, d]`` what the unsteered base has at each site."""
        if all(self.is_output(site) for site in sites):
            users = self.base.represent_users(interaction)
            return [users for _ in sites]
        found: dict[Site, Tensor] = {}

        def keep(block: int) -> Hook:
            own = [site for site in sites if site.block == block]

            def record(hidden: Tensor) -> None:
                rows = torch.arange(len(hidden), device=hidden.device)
                for site in own:
                    found[site] = hidden[rows, self.positions(interaction, site.position)]

            return record

        with self._hooks({block: keep(block) for block in {site.block for site in sites}}):
            self.run_blocks(interaction)
        return [found[site] for site in sites]
