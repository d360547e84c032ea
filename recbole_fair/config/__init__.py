"""Keys, layers of yaml files, protocol and registry: what a run is told before it looks at data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_fair.config.fair_config import FairConfig

__all__ = ["FairConfig"]


def __getattr__(name: str) -> Any:
    """``FairConfig``, imported when first asked for: it needs RecBole, which ``--help`` does not wait for."""
    if name != "FairConfig":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from recbole_fair.config.fair_config import FairConfig

    return FairConfig
