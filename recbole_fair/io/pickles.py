"""Read pickles without running them: a small machine that knows how to build values and can call nothing.

Python's own ``pickle`` imports and calls whatever a file names. Here the operations are decoded by ``pickletools``,
which only reads, and carried out by :class:`_Machine`: containers, numbers and texts are built, a name stays a
:class:`Name`, and what would be an object or the result of a call becomes a :class:`Record` of what the file says about
it. Only the functions in the reader's own table are ever called, on values that were built here.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any

from recbole_fair.errors import FairError


class DamagedFileError(FairError):
    """The bytes are no pickle, or end too early."""


class UnsafeFileError(FairError):
    """Reading the file in the ordinary way would run code that no checkpoint needs."""


class Name:
    """A class or function that a pickle names; it is never looked up.

    Attributes:
        full: module and name, joined by a dot.
    """

    def __init__(self, module: str, name: str) -> None:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        self.full = f"{module}.{name}"

    def __repr__(self) -> str:
        return f"<name {self.full}>"


class Record:
    """What a pickle says about an object: its class, the arguments it was made of, and its attributes.

    Attributes:
        kind: full name of the class or function.
        arguments: what it would be called with.
        state: its attributes, or whatever else stands there; None without.
        entries: key and value of what was put into it as into a dictionary.
        elements: what was put into it as into a list or set.
    """

    def __init__(self, kind: str, arguments: tuple[Any, ...] = ()) -> None:
        self.kind = kind
        self.arguments = arguments
        self.state: Any = None
        self.entries: list[tuple[Any, Any]] = []
        self.elements: list[Any] = []

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes by name; none where the state is something else."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2:  # attributes and slots
            merged: dict[str, Any] = {}
            for part in state:
                merged.update(part if isinstance(part, dict) else {})
            return merged
        return dict(state) if isinstance(state, dict) else {}

    def __repr__(self) -> str:
        return f"<record of {self.kind}>"


Builder = Callable[..., Any]
_MARK = object()
_MOST_OPERATIONS = 50_000_000  # minutes of reading; a checkpoint has thousands

_VALUES = """
NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING
UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
"""
_PLAIN = frozenset(_VALUES.split())
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(
    stream: IO[bytes],
    builders: Mapping[str, Builder],
    inert: Callable[[str], bool],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The next pickle in a stream, which is left behind its end.

    Args:
        stream: an open binary file.
        builders: functions, by full name, that may be called with the arguments that the file gives.
        inert: says of a full name whether a call of it may become a :class:`Record`; all others are refused.
        persistent: called with persistent ids (torch's storages).

    Raises:
        UnsafeFileError: for a call of anything else.
        DamagedFileError: for bytes that are no pickle.
    """
    machine = _Machine(builders, inert, persistent)
    try:
        for number, (operation, argument, _) in enumerate(pickletools.genops(stream)):
            if number > _MOST_OPERATIONS:
                raise DamagedFileError("it has more operations than any checkpoint")
            machine.step(operation.name, argument)
        return machine.stack[-1]
    except FairError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DamagedFileError(f"it cannot be read ({reason})") from error


class _Machine:
    """Stack and memory of one pickle."""

    def __init__(
        self,
        builders: Mapping[str, Builder],
        inert: Callable[[str], bool],
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        self.stack: list[Any] = []
        self._memory: dict[int, Any] = {}
        self._builders = builders
        self._inert = inert
        self._persistent = persistent

    def step(self, name: str, argument: object) -> None:
        """Carry out one operation."""
        if name in ("PROTO", "FRAME", "STOP"):
            return
        if name in _PLAIN:
            self.stack.append(_CONSTANTS.get(name, argument))
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif not (self._structure(name, argument) or self._object(name, argument)):
            # Registered extensions and buffers outside the file: torch.save writes neither.
            raise UnsafeFileError(f"it uses {name}, which no checkpoint needs")

    def _pop_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _structure(self, name: str, argument: object) -> bool:
        """Containers, marks and memory; whether the operation was one of these."""
        stack = self.stack
        if name == "MARK":
            stack.append(_MARK)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memory[int(str(argument))] = stack[-1]
        elif name == "MEMOIZE":
            self._memory[len(self._memory)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memory[int(str(argument))])
        elif name in _TUPLES:
            items = tuple(stack[-_TUPLES[name] :])
            del stack[-_TUPLES[name] :]
            stack.append(items)
        elif name == "TUPLE":
            stack.append(tuple(self._pop_mark()))
        elif name == "LIST":
            stack.append(self._pop_mark())
        elif name == "DICT":
            pairs = self._pop_mark()
            stack.append(dict(zip(pairs[::2], pairs[1::2], strict=True)))
        elif name == "FROZENSET":
            stack.append(frozenset(self._pop_mark()))
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items_ = [stack.pop()] if name == "APPEND" else self._pop_mark()
            _extend(stack[-1], items_)
        elif name in ("SETITEM", "SETITEMS"):
            pairs = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._pop_mark()
            _put(stack[-1], list(zip(pairs[::2], pairs[1::2], strict=True)))
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._pop_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            return False
        return True

    def _object(self, name: str, argument: object) -> bool:
        """Names, calls and objects; whether the operation was one of these."""
        stack = self.stack
        if name == "GLOBAL":
            module, _, attribute = str(argument).partition(" ")
            stack.append(Name(module, attribute))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(Name(_text(module), _text(attribute)))
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            stack.append(self._call(called, arguments))
        elif name == "INST":
            module, _, attribute = str(argument).partition(" ")
            stack.append(self._call(Name(module, attribute), tuple(self._pop_mark())))
        elif name == "OBJ":
            called, *rest = self._pop_mark()
            stack.append(self._call(called, tuple(rest)))
        elif name in ("NEWOBJ", "NEWOBJ_EX"):
            if name == "NEWOBJ_EX":
                stack.pop()  # arguments by name
            arguments, called = stack.pop(), stack.pop()
            stack.append(self._new(called, arguments))
        elif name == "BUILD":
            state = stack.pop()
            _set_state(stack[-1], state)
        elif name in ("BINPERSID", "PERSID"):
            if self._persistent is None:
                raise DamagedFileError("it points outside itself")
            stack.append(self._persistent(stack.pop() if name == "BINPERSID" else argument))
        else:
            return False
        return True

    def _call(self, called: object, arguments: object) -> Any:
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise UnsafeFileError(f"it calls {called!r}")
        build = self._builders.get(called.full)
        if build is not None:
            return build(*arguments)
        if not self._inert(called.full):
            raise UnsafeFileError(f"it calls {called.full}")
        return Record(called.full, arguments)

    def _new(self, called: object, arguments: object) -> Any:
        """``cls.__new__(cls, *arguments)``: an empty object, a dictionary for those of its kind."""
        if not isinstance(called, Name):
            raise UnsafeFileError(f"it makes an object of {called!r}")
        if not isinstance(arguments, tuple):
            raise DamagedFileError("an object without arguments")
        build = self._builders.get(called.full)
        return build() if build is not None and not arguments else Record(called.full, arguments)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise DamagedFileError("a name is no text")
    return value


def _extend(target: object, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, set):
        target.update(items)
    elif isinstance(target, Record):
        target.elements.extend(items)
    else:
        raise DamagedFileError(f"something is appended to a {type(target).__name__}")


def _put(target: object, pairs: list[tuple[Any, Any]]) -> None:
    if isinstance(target, dict):
        target.update(pairs)
    elif isinstance(target, Record):
        target.entries.extend(pairs)
    else:
        raise DamagedFileError(f"an entry is put into a {type(target).__name__}")


class Stateful:
    """A value under construction that takes its state from the file; a builder may return one."""

    def take(self, state: object) -> None:
        """Take the state."""
        raise NotImplementedError


def _set_state(target: object, state: object) -> None:
    """Give an object its attributes. What is no object of the file (a dictionary, a tensor) keeps none."""
    if isinstance(target, Record):
        target.state = state
    elif isinstance(target, Stateful):
        target.take(state)
