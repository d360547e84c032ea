"""What the rooms may ask of a configuration, whichever class it is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from recbole_fair.config.data_tables import DataTables


class Settings(Protocol):
    """Settings by key: RecBole's ``Config``, our own, or a plain dictionary."""

    def __getitem__(self, key: str, /) -> Any:
        """The value of a setting; RecBole's ``Config`` gives None for a key that it does not have."""

    def __contains__(self, key: object, /) -> bool:
        """Whether there is a setting of that name."""


class MutableSettings(Settings, Protocol):
    """Settings that reading the data may complete."""

    def __setitem__(self, key: str, value: Any, /) -> None:
        """Change a setting."""


@runtime_checkable
class KnowsUser(Protocol):
    """Settings that know which of them the user gave."""

    user_settings: Mapping[str, Any]


@runtime_checkable
class KnowsTables(Protocol):
    """Settings whose ``data_path`` may name tables instead of atomic files."""

    data_tables: DataTables | None


def given_by_user(config: Settings) -> Mapping[str, Any]:
    """The settings that the user gave, without defaults; none where the configuration does not know."""
    return config.user_settings if isinstance(config, KnowsUser) else {}
