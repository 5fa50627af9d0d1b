"""Which tables of ClickHouse each process can name: read off the source, along its imports."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from midstream.clickhouse.migrate import load_migrations, table_names

_ROOT = Path(__file__).parents[3]
_ROOMS = ("midstream", "ingest", "processors", "serve")
_WORD = re.compile(r"\w+")
_FROM_A_NAME = re.compile(r"\b(?:FROM|JOIN)\s+$")  # what follows is put in
_SQL = re.compile(r"\b(SELECT|FROM|JOIN|INSERT INTO|UPDATE|ALTER TABLE|DELETE|OPTIMIZE)\b")


def tables_and_views() -> tuple[frozenset[str], dict[str, frozenset[str]]]:
    """Return the tables, and of each view the tables and views that its text names."""
    text = "\n".join(migration.text for migration in load_migrations())
    text = re.sub(r"--.*", "", text)
    tables = table_names()
    dropped = set(re.findall(r"DROP TABLE IF EXISTS @(?:table|view)\((\w+)\)", text))
    views = set(re.findall(r"@view\((\w+)\)", text)) - tables - dropped
    named: dict[str, set[str]] = {view: set() for view in views}
    for statement in re.split(r";\s*(?:\n|$)", text):
        made = re.search(r"CREATE (?:OR REPLACE )?(?:MATERIALIZED )?VIEW (?:IF NOT EXISTS )?@view\((\w+)\)", statement)
        if made:
            named[made[1]] |= (tables | views) & set(_WORD.findall(statement)) - {made[1]}
    return tables, {view: frozenset(names) for view, names in named.items()}


@cache
def _path(name: str) -> Path | None:
    path = _ROOT.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def path_of(name: str) -> Path:
    """Return the file of one of our modules."""
    path = _path(name)
    assert path is not None, name
    return path


@cache
def _imports(name: str) -> frozenset[str]:
    found: set[str] = set()
    for node in _running(ast.parse(path_of(name).read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value.partition(":")[0]]  # a process that is started, as `python -m` names it
        found |= {one for one in names if one.split(".")[0] in _ROOMS and "." in one and _path(one) is not None}
        found |= {f"{one}.__main__" for one in found if _path(f"{one}.__main__") and isinstance(node, ast.Constant)}
    return frozenset(found)


def _running(tree: ast.AST) -> list[ast.AST]:
    """Return the nodes of a module but for those under ``if TYPE_CHECKING``."""
    found, left = [], [tree]
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        found.append(node)
        left += ast.iter_child_nodes(node)
    return found


def modules_of(*entries: str) -> set[str]:
    """Return all modules that a process imports at any time."""
    found: set[str] = set()
    left = list(entries)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += _imports(name)
    return found


@cache
def names_of(module: str, tables: frozenset[str], views: frozenset[str]) -> frozenset[str]:
    """Return the tables and views that a module's statements name, and the tables that a constant of it names.

    Where a name is put into a statement, a constant may be a view's too.
    """
    tree = ast.parse(path_of(module).read_text("utf-8"))
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    if any(_FROM_A_NAME.search(text) for text in texts):
        tables |= views
    found: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in documented:
            continue
        if node.value in tables:
            found.add(node.value)
        elif _SQL.search(node.value):
            found |= (tables | views) & set(re.findall(r"(?:FROM|JOIN|INTO|TABLE|UPDATE|IN)\s+\(?(\w+)", node.value))
    return frozenset(found)
