"""The cases; a module for each kind of fault."""

from __future__ import annotations

from importlib import import_module

_MODULES = ("kills", "freezes", "zombies", "away", "network", "membership", "disks", "again", "sabotage")


def load_all() -> None:
    """Import all modules, so that :data:`tests.chaos.case.CASES` has every case, in this order."""
    for name in _MODULES:
        import_module(f"{__name__}.{name}")
