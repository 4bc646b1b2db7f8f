"""What a user sets of a method: its attributes, and arguments of its constructor, which change what it is built of."""

import inspect
from collections.abc import Mapping
from typing import Any

from ntire import UserError
from ntire.method.contract import Method
from ntire.text import nearest


def configured(method: type[Method], settings: Mapping[str, str]) -> type[Method]:
    """The method, built with those of the settings that its constructor takes; what its report claims is then not of it.

    Raises UserError for settings that it does not have, and for values of another kind than the usual ones.
    """
    unknown = [name for name in settings if name not in method.settable]
    if unknown:
        known = "; ".join(f"{name}: {what}" for name, what in method.settable.items())
        near = nearest(unknown, method.settable)
        raise UserError(f"{method.team} has no setting {', '.join(unknown)}.{near} It has {known or 'none'}.")
    taken = inspect.signature(method).parameters
    given = {name: _like(taken[name].default, name, value) for name, value in settings.items() if name in taken}
    if not given:
        return method

    def build(self: Method, **others: Any) -> None:
        method.__init__(self, **(given | others))

    title = f"{method.__qualname__}({', '.join(f'{name}={value}' for name, value in sorted(given.items()))})"
    facts: dict[str, Any] = {
        "__init__": build,
        "__module__": method.__module__,
        "__qualname__": title,
        "__doc__": method.__doc__,
    }
    facts["claimed"] = None
    return type(method.__name__, (method,), facts)


def set_attributes(method: Method, settings: Mapping[str, str]) -> None:
    """Set the settings of a method that is built and filled.

    Raises UserError for values of another kind than the usual ones.
    """
    for name, value in settings.items():
        setattr(method, name, _like(getattr(method, name, None), name, value))


def _like(usual: object, name: str, value: str) -> object:
    """The value as a number where the usual one is a number, as yes or no where it is that, else as it is."""
    if isinstance(usual, bool):
        words = {"yes": True, "no": False, "true": True, "false": False}
        if value.lower() not in words:
            raise UserError(f"{name}={value}: expected yes or no.")
        return words[value.lower()]
    if isinstance(usual, int | float):
        try:
            return type(usual)(value)
        except ValueError:
            kind = "a whole number" if isinstance(usual, int) else "a number"
            raise UserError(f"{name}={value}: expected {kind}.") from None
    return value
