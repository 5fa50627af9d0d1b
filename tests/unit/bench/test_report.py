import json
from pathlib import Path

from bench.__main__ import markdown
from bench.machine import describe
from bench.profile import top_functions
from bench.report import Table, spread, times, write_json


def test_a_spread_is_minimum_median_and_maximum() -> None:
    assert spread([3.0, 1.0, 2.0]) == "1.0 / 2.0 / 3.0"
    assert spread([1234.5, 1234.5], 0) == "1,234 / 1,234 / 1,234"


def test_times_of_nothing_is_nothing() -> None:
    assert times(3.0, 2.0) == "1.50"
    assert times(3.0, 0.0) == ""


def test_a_report_is_markdown_with_every_table(tmp_path: Path) -> None:
    table = {"title": "T", "columns": ["a", "b"], "rows": [["1", "2"]], "note": "n"}
    part = {"took_s": 1.5, "control_us": [3.0, 3.1], "tables": [table], "troubles": [], "data": {}}
    report = {"command": "python -m bench", "began": "now", "machine": {"cores": "2"}, "parts": {"cpu": part}}
    write_json(tmp_path / "r.json", report)
    text = markdown(json.loads((tmp_path / "r.json").read_text()))
    assert "- cores: 2" in text
    assert "before 3.00, after 3.10" in text
    assert Table(**table).markdown() in text  # type: ignore[arg-type]
    assert "| a | b |\n|---|---|\n| 1 | 2 |" in text


def test_the_machine_is_described(tmp_path: Path) -> None:
    found = describe(tmp_path)
    assert found["Kafka"][0].isdigit()
    assert found["Java"] != "not known"
    assert all(found.values())


def test_functions_are_ranked_by_their_own_samples() -> None:
    stacks = "main (a.py:1);work (a.py:5) 3\nmain (a.py:2);work (a.py:6) 4\nmain (a.py:9) 3\n"
    lines = top_functions(stacks, 5).splitlines()
    assert lines[0] == "10 samples"
    assert lines[2].split() == ["70.0%", "70.0%", "work", "(a.py)"]
    assert lines[3].split() == ["30.0%", "100.0%", "main", "(a.py)"]
    assert top_functions("", 5) == "no samples: the stage was idle"
