"""What lists are audited against: the parts of a data set of RecBole, or of tables, and who is tested on what."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from recbole.utils import EvaluatorType, init_seed
from torch import Tensor

from recbole_fair.config.catalogue import keys_of, scope_of
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.imports import refuse_stored
from recbole_fair.data.contract import DataSet, EvaluationLoader
from recbole_fair.data.reading.prepare import load_data
from recbole_fair.data.tables.conversion import write_features
from recbole_fair.data.tables.lists import users_of
from recbole_fair.data.tables.names import find_columns
from recbole_fair.data.tables.sources import open_table
from recbole_fair.data.tables.splits import TableSplit, read_parts
from recbole_fair.errors import FairError
from recbole_fair.report.documents import EvaluationDocument, document_of
from recbole_fair.runs.journal import digest_of, file_digest

_OF_LISTS = ("evaluation", "machine")


@dataclass(frozen=True)
class Tables:
    """Tables that lists are audited against.

    Attributes:
        train: interactions that the system has learnt from.
        test: held-out interactions; None to look at exposure alone.
        valid: interactions between these, part of the histories under ``metric_history: train_valid``.
        items: features of items; its items belong to the catalogue.
        users: features of users.
        types: types of columns of items and users, ``name:type``.
        name: of the data set, for the report.
    """

    train: str | Path
    test: str | Path | None = None
    valid: str | Path | None = None
    items: str | Path | None = None
    users: str | Path | None = None
    types: Sequence[str] = ()
    name: str | None = None


@dataclass(frozen=True)
class Reference:
    """Who is evaluated, on what.

    Attributes:
        config: the settings.
        train: the training part.
        valid: the validation part, or None.
        users: inner id of the user of each row ``[U]``.
        positive_rows: row of each held-out item.
        positive_items: the held-out items.
        has_test: whether there are held-out items at all.
        notes: sentences on what was left out.
        facts: numbers for the document.
    """

    config: FairConfig
    train: DataSet
    valid: DataSet | None
    users: Tensor
    positive_rows: Tensor
    positive_items: Tensor
    has_test: bool = True
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def row_of(self) -> dict[str, int]:
        """Row of each user by the original id."""
        tokens = self.train.field2id_token[self.train.uid_field]
        return {str(tokens[user]): row for row, user in enumerate(self.users.tolist())}

    @property
    def item_ids(self) -> dict[str, int]:
        """Inner id of each item by the original one."""
        tokens = self.train.field2id_token[self.train.iid_field]
        return {str(token): number for number, token in enumerate(tokens) if number}


def settings_of_run(path: str | Path, changes: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Model, data set and settings of a run, out of its result document.

    Raises:
        FairError: if it is none, or names a class that this call does not name again.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FairError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise FairError(f"{path} is no JSON file: {error}.") from error
    document = document_of(content, path)
    if not isinstance(document, EvaluationDocument):
        raise FairError(f"{path} is a {document.kind}; name the result document of a run or an evaluation.")
    refuse_stored({"model": document.model, **document.config}, changes)
    stored = {key: value for key, value in document.config.items() if key not in keys_of("file", "start")}
    if document.seed is not None:
        stored.setdefault("seed", document.seed)
    return document.model, document.dataset, stored


def reference_of_data(
    model: str, dataset: str, settings: Mapping[str, Any], config_files: Sequence[str | Path] = ()
) -> Reference:
    """A data set of RecBole, split as a run of these settings splits it.

    Args:
        model: gives the defaults of splits and order.
        dataset: its name.
        settings: the split and whatever else differs from the defaults.
        config_files: yaml files.

    Raises:
        FairError: for data or settings that cannot be used, and a test part with several rows a user.
    """
    return reference_of_config(FairConfig(model, dataset, config_files, settings))


def reference_of_config(config: FairConfig) -> Reference:
    """The data set of a configuration, split as its run splits it.

    Raises:
        FairError: for data or settings that cannot be used, and a test part with several rows a user.
    """
    if config["eval_type"] != EvaluatorType.RANKING:
        raise FairError(f"metrics={config['metrics']} rate single rows; lists need ranking metrics.")
    init_seed(config["seed"], config["reproducibility"])
    train, valid, test = load_data(config)
    if test is None:
        raise FairError("eval_args leave no test part, on which lists could be measured.")
    data = train._dataset
    users, rows, items = _held_out(test, data.uid_field)
    if len(set(users.tolist())) < len(users):
        raise FairError(
            "The test part has several rows a user (a sequential model with a split by shares): lists by user cannot "
            "be told apart; leave one out (eval_args)."
        )
    facts = {"train": len(data.inter_feat), "test": len(items), "users": data.user_num - 1, "items": data.item_num - 1}
    return Reference(config, data, None if valid is None else valid._dataset, users, rows, items, facts=facts)


def digest_of_lists(path: str | Path) -> str:
    """Digest of a file of lists, or of all files of a folder."""
    return digest_of([file_digest(file) for file in open_table(path).files])


def _held_out(test: EvaluationLoader, user_field: str) -> tuple[Tensor, Tensor, Tensor]:
    """Users of the rows, and row and id of each held-out item."""
    users, rows, items, start = [], [], [], 0
    for interaction, _, positive_u, positive_i in test:
        batch = interaction[user_field].long()
        n_rows = int(positive_u.max()) + 1 if len(positive_u) else 0
        if len(batch) != n_rows:  # drawn candidates: the rows of a user are together
            batch = torch.unique_consecutive(batch)
        users.append(batch)
        rows.append(positive_u.long() + start)
        items.append(positive_i.long())
        start += len(batch)
    return torch.cat(users), torch.cat(rows), torch.cat(items)


@contextmanager
def reference_of_tables(
    tables: Tables, lists: Iterable[str | Path], settings: Mapping[str, Any], columns: Mapping[str, str | None]
) -> Iterator[Reference]:
    """Parts that stand in tables; files of features last as long as the block.

    Args:
        tables: the tables.
        lists: files of lists, whose users are evaluated where there is no test part.
        settings: metrics and their options.
        columns: columns that the user named, by role.

    Raises:
        FairError: for tables or settings that cannot be used.
    """
    name = tables.name or Path(tables.train).stem.removesuffix(".train")
    for key, value in settings.items():
        if scope_of(key) not in _OF_LISTS and key != "seed":
            raise FairError(f"{key}={value!r} has no effect on lists that are there already; leave the key out.")
    config = FairConfig("Pop", name, config_dict=settings)
    if config["eval_type"] != EvaluatorType.RANKING:
        raise FairError(f"metrics={config['metrics']} rate single rows; lists need ranking metrics.")
    with TemporaryDirectory(prefix="recbole-fair-") as folder:
        for side, path in (("item", tables.items), ("user", tables.users)):
            if path is not None:
                write_features(path, side, Path(folder, f"{name}.{side}"), tables.types, columns.get(side))
        more_items = _ids_of(tables.items, columns.get("item")) if tables.items is not None else ()
        more_users: list[str] = []
        if tables.test is None:
            more_users = [user for path in lists for user in users_of(path, columns)]
        paths = {"train": tables.train, "valid": tables.valid, "test": tables.test}
        parts, notes = read_parts(paths, config, name, folder, more_users, more_items, columns)
        yield _of_parts(config, parts, notes, more_users)


def _ids_of(path: str | Path, column: str | None) -> list[str]:
    table = open_table(path)
    column = find_columns(table, ("item",), ("item",), {"item": column if column in table.columns else None})["item"]
    return [cell for batch in table.batches([column]) for cell in batch.cells[column].tolist() if isinstance(cell, str)]


def _of_parts(
    config: FairConfig, parts: Mapping[str, TableSplit], notes: list[str], listed: Sequence[str]
) -> Reference:
    train, test = parts["train"], parts.get("test")
    facts = {"train": len(train), "users": train.user_num - 1, "items": train.item_num - 1}
    valid = parts.get("valid")
    if test is None:
        numbers = train.field2token_id[train.uid_field]
        users = torch.tensor([numbers[user] for user in dict.fromkeys(listed)], dtype=torch.long)
        none = torch.zeros(0, dtype=torch.long)
        return Reference(config, train, valid, users, none, none, False, notes, facts)
    user = torch.from_numpy(test.inter_feat[test.uid_field].to_numpy().copy())
    users, rows = torch.unique(user, return_inverse=True)
    items = torch.from_numpy(test.inter_feat[test.iid_field].to_numpy().copy())
    return Reference(config, train, valid, users, rows, items, True, notes, {**facts, "test": len(test)})
