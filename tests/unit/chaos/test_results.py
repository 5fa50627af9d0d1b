"""Results are kept, and a run goes on where it was interrupted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import results
from tests.chaos.case import CASES
from tests.chaos.cases import load_all
from tests.chaos.results import Result, Results, header, row

PASSED = Result("kill_store", 2, 1_000, "passed", 4.5, 60.0, {"sent": 1_000, "lost": 0})


def test_what_has_passed_is_not_run_again(tmp_path: Path) -> None:
    kept = Results(tmp_path / "results")
    assert kept.passed("kill_store", 2, 1_000) is None
    kept.write(PASSED)
    assert kept.passed("kill_store", 2, 1_000) == PASSED
    assert kept.passed("kill_store", 2, 500) == PASSED
    assert kept.passed("kill_store", 3, 1_000) is None
    assert kept.passed("kill_engine", 2, 1_000) is None


@pytest.mark.parametrize("change", [{"verdict": "failed"}, {"verdict": "skipped"}, {"revision": "x"}, {"events": 999}])
def test_anything_else_is(tmp_path: Path, change: dict[str, object]) -> None:
    kept = Results(tmp_path)
    kept.write(replace(PASSED, **change))  # type: ignore[arg-type]
    assert kept.passed("kill_store", 2, 1_000) is None


@pytest.mark.parametrize("text", ["", "[]", '{"case": 1}', "{"])
def test_a_file_that_cannot_be_read_is_no_result(tmp_path: Path, text: str) -> None:
    kept = Results(tmp_path)
    kept.write(PASSED)
    [path] = tmp_path.glob("*.json")
    path.write_text(text)
    assert kept.passed("kill_store", 2, 1_000) is None


def test_the_revision_is_that_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results.code_revision.cache_clear()
    monkeypatch.setattr(results, "ROOT", tmp_path)
    try:
        revisions = set()
        for content in ("a = 1\n", "a = 2\n", "a = 1\n"):
            (tmp_path / "midstream").mkdir(exist_ok=True)
            (tmp_path / "midstream" / "one.py").write_text(content)
            results.code_revision.cache_clear()
            revisions.add(results.code_revision())
        assert len(revisions) == 2
    finally:
        results.code_revision.cache_clear()


def test_the_table() -> None:
    names = header().split()
    assert names[:2] == ["case", "seed"]
    values = dict(zip(names, row(PASSED).split(), strict=True))
    assert values["case"] == "kill_store"
    assert (values["sent"], values["lost"], values["double"], values["verdict"]) == ("1000", "0", "-", "passed")
    failed = row(replace(PASSED, verdict="failed", faults=["one thing", "another"]))
    assert failed.splitlines()[1:] == ["    one thing", "    another"]


def test_every_case_is_described_and_fits_the_table() -> None:
    load_all()
    assert len(CASES) >= 30
    page = (Path(results.__file__).parents[2] / "docs" / "chaos.md").read_text("utf-8")
    for case in CASES.values():
        assert case.title.endswith((".", ":")) or case.title
        assert len(case.name) <= 44
        assert f"`{case.name}`" in page, f"docs/chaos.md does not name {case.name}"
