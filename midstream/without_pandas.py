"""PyArrow imports pandas, if it is there, with the first array that it makes: 60 MB and half a second for nothing.

(It is there because chdb, the local engine, depends on it.)
"""

from __future__ import annotations

import importlib.abc
import sys
from typing import Any


class _WithoutPandas(importlib.abc.MetaPathFinder):
    """Answers an import of pandas as if it were not installed."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is not used here", name=fullname)


def do_without_pandas() -> None:
    """Keep this process from importing it."""
    sys.meta_path.insert(0, _WithoutPandas())
