"""Whether docs/analysts.md shows the queries that are there, and explains every column."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from midstream.clickhouse.migrate import load_migrations, render_statements

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "analysts.md").read_text("utf-8")
QUERIES = sorted((DOCS / "queries").glob("*.sql"))
PROSE = re.sub(r"^```.*?^```$", "", PAGE, flags=re.DOTALL | re.MULTILINE)
EXPLAINED = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]+)`", PROSE))))

# Tables under the views; what analysts read is the view.
NAMES = {
    "learning_events": "events",
    "duplicate_rows": "duplicates",
    "reject_rows": "rejects",
    "batch_rows": "batches",
    "dimension_rows": "dimensions",
    "progress_rows": "progress",
    "collector_rows": "collectors",
}


def columns() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for migration in load_migrations():
        for statement in render_statements(migration.text, ""):
            match = re.match(r"CREATE TABLE IF NOT EXISTS (\w+)\n\((.*?)\n\)\n", statement, re.DOTALL)
            if match:
                lines = (line.split()[0] for line in match[2].splitlines() if line.strip())
                found[match[1]] = {name for name in lines if re.fullmatch(r"[a-z_]+", name)}
            elif match := re.match(r"ALTER TABLE (\w+) ADD COLUMN IF NOT EXISTS (\w+) (?!.* MATERIALIZED )", statement):
                found.setdefault(match[1], set()).add(
                    match[2]
                )  # of a materialized one, which SELECT * does not show, nobody asks
    return found


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
def test_the_page_shows_each_query_as_it_is_with_an_output(path: Path) -> None:
    shown = f"[queries/{path.name}](queries/{path.name})\n\n```sql\n{path.read_text('utf-8').strip()}\n```\n```\n┌"
    assert PAGE.count(shown) == 1


def test_there_are_at_least_ten_queries_in_the_order_of_the_page() -> None:
    assert len(QUERIES) >= 10
    places = [PAGE.index(f"](queries/{path.name})") for path in QUERIES]
    assert places == sorted(places)


def test_every_column_of_every_table_is_explained() -> None:
    found = columns()
    assert set(NAMES) <= set(found)
    for table, view in NAMES.items():
        assert found[table], table
        assert view in EXPLAINED
        assert found[table] - EXPLAINED == set(), f"docs/analysts.md does not explain these of {view}"


def test_every_view_is_named() -> None:
    views = {
        match[1]
        for migration in load_migrations()
        for statement in render_statements(migration.text, "")
        if (match := re.match(r"CREATE (?:OR REPLACE VIEW|VIEW IF NOT EXISTS) (\w+)", statement))
    }
    assert {"events", "duplicates", "rejects", "batches", "dimensions", "accounting", "progress"} <= views
    assert views - EXPLAINED == set()
