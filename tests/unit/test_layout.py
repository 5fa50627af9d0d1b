"""The rules of docs/contributing.md about who may import what."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("midstream", "ingest", "processors", "serve", "deploy", "schemas")


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def importers(*modules: str) -> set[str]:
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if any(name == module or name.startswith(f"{module}.") for name in imports(path) for module in modules):
                found.add(path.relative_to(ROOT).as_posix())
    return found


def test_only_the_workers_module_imports_faust() -> None:
    assert importers("faust") == {"processors/worker.py"}


def test_only_the_adapter_imports_the_clickhouse_client() -> None:
    assert importers("clickhouse_connect") == {"midstream/clickhouse/client.py"}


def test_only_the_engine_imports_chdb() -> None:
    assert all(path.startswith("deploy/local/engine/") for path in importers("chdb"))


def test_metrics_are_declared_in_one_place() -> None:
    kinds = {"Counter", "Gauge", "Histogram", "Summary", "Info"}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            declares = any(name.startswith("prometheus_client") for name in imports(path)) and any(
                isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds
                for node in ast.walk(ast.parse(path.read_text("utf-8")))
            )
            assert declares == (path.relative_to(ROOT).as_posix() == "midstream/metrics.py"), path


PURE = (
    "ingest/spool/format.py",
    "midstream/assignments/duration.py",
    "midstream/assignments/fields.py",
    "midstream/assignments/indicators.py",
    "midstream/assignments/record.py",
    "midstream/assignments/runner.py",
    "midstream/assignments/text.py",
    "midstream/audit/findings.py",
    "midstream/check/clocks.py",
    "midstream/check/grants.py",
    "midstream/check/result.py",
    "midstream/check/topics.py",
    "midstream/envelope.py",
    "midstream/erased.py",
    "midstream/exhaust/dataset.py",
    "midstream/exhaust/findings.py",
    "midstream/exhaust/manifest.py",
    "midstream/exhaust/names.py",
    "midstream/exhaust/outer.py",
    "midstream/exhaust/period.py",
    "midstream/exhaust/queries.py",
    "midstream/exhaust/variant.py",
    "midstream/kafka/marks.py",
    "midstream/pseudonymise.py",
    "midstream/receipt.py",
    "midstream/records.py",
    "midstream/sources/gone.py",
    "midstream/sources/lenient.py",
    "midstream/sources/pages.py",
    "midstream/sources/watermark.py",
    "processors/validate/rows.py",
    "processors/validate/seal.py",
    "processors/validate/split.py",
    "processors/validate/round.py",
    "processors/store/accounting/generations.py",
    "processors/store/accounting/progress.py",
    "processors/store/accounting/settled.py",
    "processors/store/accounting/watermark.py",
    "processors/store/block.py",
    "processors/store/denormalise.py",
    "processors/store/erased.py",
    "processors/store/references.py",
    "processors/store/route.py",
    "processors/store/units.py",
    "processors/store/verdicts.py",
    "processors/store/dedupe/decide.py",
    "processors/store/dedupe/history.py",
    "processors/store/dedupe/recent.py",
    "serve/exhaust/days/builder/lines.py",
    "serve/exhaust/days/builder/plan.py",
    "serve/exhaust/download/ranges.py",
    "serve/register/attributes.py",
    "serve/register/body.py",
)


def test_pure_steps_do_no_io_and_read_no_clock() -> None:
    forbidden = {"time", "asyncio", "socket", "aiokafka", "midstream.clickhouse.client.open_client", "os"}
    for path in PURE:
        assert imports(ROOT / path) & forbidden == set(), path


def test_the_collector_knows_nothing_of_what_comes_after_kafka() -> None:
    for path in (ROOT / "ingest").rglob("*.py"):
        assert not any(name.split(".")[0] in ("processors", "serve", "deploy") for name in imports(path)), path
        assert not any(name.startswith("midstream.clickhouse") for name in imports(path)), path
