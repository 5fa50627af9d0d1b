"""The log of administrators' acts: one row an act, in its transaction, never changed. In SQLite and in PostgreSQL."""

from __future__ import annotations

import ast
import io
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DatabaseError
from structlog.testing import CapturingLogger

import midstream.registry
from midstream.exhaust.dataset import Dataset
from midstream.registry import admin_log
from midstream.registry.academies.academies import Academies
from midstream.registry.academies.bulk import USERS, import_rows
from midstream.registry.academies.grants import Grants
from midstream.registry.academies.users import Users
from midstream.registry.admin_log import KEPT, Act, Actor, act_as, note_alone, prune_acts, read_acts
from midstream.registry.credentials import Credentials
from midstream.registry.errors import RegistryError
from midstream.registry.exhaust.datasets import Datasets
from midstream.registry.exhaust.licences import Licences
from midstream.registry.exhaust.revisions import Revisions
from midstream.registry.fleet.commands import Commands
from midstream.registry.fleet.configs import Configs
from midstream.registry.fleet.devices import Devices
from midstream.registry.fleet.files import FileInfo, Files
from midstream.registry.fleet.licenses import Licenses
from midstream.registry.fleet.models import Models
from midstream.registry.sync.forget import forget_id
from midstream.registry.sync.jobs import Jobs, Order
from midstream.settings import Settings

_CANARY = "c4nary-7f31"
_NOW = datetime.now(UTC)

_NO_ACTS = {
    "academies/records.py": "learners' records",
    "academies/users.py erase_user": "a step of an erasure, which was asked for",
    "academies/writers.py": "what a process says of itself",
    "admin_log.py": "the log itself",
    "exhaust/requests.py": "what partners ask for",
    "exhaust/uses.py": "that a licence is in use",
    "fleet/changes.py": "upkeep",
    "fleet/commands.py report": "what a device says",
    "fleet/configs.py report": "what a device says",
    "fleet/devices.py change_info": "what a device says",
    "fleet/devices.py register": "what a device says",
    "fleet/devices.py touch": "when a device was heard of",
    "fleet/licenses.py report": "what a device says",
    "fleet/told.py": "what a device says",
    "sync/erased.py": "a step of an erasure, which was asked for",
    "sync/forget.py": "a step of an erasure, which was asked for",
    "sync/queue.py": "the work of the jobs process",
    "sync/repair.py": "the work of the jobs process",
    "sync/sources.py": "the work of the jobs process",
}
"""Who writes to the registry and is no administrator."""


@pytest.fixture
def acts(engine: Engine) -> Callable[[], list[tuple[str, str, dict[str, Any]]]]:
    """Return the acts since the last call, oldest first."""
    act_as(Actor("system_user", "someone", "machine"))
    seen = [0]

    def read() -> list[tuple[str, str, dict[str, Any]]]:
        found = [act for act in reversed(read_acts(engine, limit=100)) if act.number > seen[0]]
        seen[0] = max([seen[0], *(act.number for act in found)])
        assert all((act.actor_kind, act.actor, act.address) == ("system_user", "someone", "machine") for act in found)
        assert all(act.outcome == "done" and act.at >= _NOW - timedelta(minutes=5) for act in found)
        return [(act.action, act.object, act.details) for act in found]

    assert read_acts(engine, limit=100)[-1].action == "registry.migrate"
    seen[0] = read_acts(engine, limit=1)[0].number
    return read


def test_credentials(settings: Settings, acts: Callable[[], list[Any]]) -> None:
    credentials = Credentials(settings)
    try:
        credentials.create("app", channels=("b", "a"))
        credentials.register("partner", "p1")
        credentials.register("partner", "p1")
        credentials.rotate("app")
        credentials.revoke("app")
        credentials.revoke("app")
        credentials.revoke_name("partner")
        with pytest.raises(RegistryError):
            credentials.rotate("app")
    finally:
        credentials.close()
    assert acts() == [
        ("credential.create", "credential/app", {"role": "app", "channels": ["a", "b"], "expires": None}),
        ("credential.create", "credential/p1", {"role": "app", "channels": [], "expires": None}),
        ("credential.rotate", "credential/app", {}),
        ("credential.revoke", "credential/app", {}),
        ("credential.revoke", "credential/p1", {}),
    ]


def test_academies(engine: Engine, acts: Callable[[], list[Any]]) -> None:
    academies, users, grants = Academies(engine), Users(engine), Grants(engine)
    academies.create("Miami", 3)
    academies.set_status(3, "inactive")
    users.create("Ada", 7)
    token = users.create_token(7)
    grants.grant(7, 3, "read_telemetry")
    grants.grant(7, 3, "read_telemetry")
    grants.revoke(7, 3, "read_telemetry")
    users.revoke_tokens(7)
    users.revoke_tokens(7)
    list(import_rows(engine, USERS, io.BytesIO(b'{"id": 8, "name": "Bo"}\n{"id": 9, "name": "Cy"}\n'), print))
    found = acts()
    assert found == [
        ("academy.create", "academy/3", {}),
        ("academy.set_status", "academy/3", {"status": "inactive"}),
        ("user.create", "user/7", {}),
        ("user_token.create", "user/7", {"expires": None}),
        ("role.grant", "user/7", {"academy": 3, "capability": "read_telemetry"}),
        ("role.revoke", "user/7", {"academy": 3, "capability": "read_telemetry"}),
        ("user_token.revoke", "user/7", {"tokens": 1}),
        ("academies.import", "users", {"rows": 2}),
    ]
    assert token not in str(found)


def test_exhaust(engine: Engine, acts: Callable[[], list[Any]]) -> None:
    licences, dataset = Licences(engine), Dataset("D002", "channel")
    Datasets(engine).declare(dataset)
    Datasets(engine).declare(dataset)
    key = licences.create("partner", [("D002", "c")])
    licences.grant("partner", [("D002", "d"), ("D002", "c")])
    licences.grant("partner", [("D002", "d")])
    licences.withdraw("partner", [("D002", "d")])
    Revisions(engine).add(dataset, None, date(2026, 1, 1), date(2026, 1, 2), "late events")
    licences.revoke(key)
    found = acts()
    assert found == [
        ("dataset.declare", "dataset/D002", {"is_new": True}),
        ("licence.create", "licence/partner", {"rights": 1, "expires": None}),
        ("licence.grant", "licence/partner", {"rights": [["D002", "d"]]}),
        ("licence.withdraw", "licence/partner", {"rights": [["D002", "d"]]}),
        ("dataset.revise", "dataset/D002", {"days": ["2026-01-01", "2026-01-02"], "reason": "late events"}),
        ("licence.revoke", "licence/partner", {}),
    ]
    assert key not in str(found)


def test_fleet(engine: Engine, device: str, acts: Callable[[], list[Any]]) -> None:
    Models(engine).renew_key("hub-100")
    Devices(engine).claim(device, {"room": _CANARY})
    Configs(engine).set(device, "day", {"password": _CANARY})
    command = Commands(engine).give(device, "reboot", {"password": _CANARY})
    licence = Licenses(engine).give(device, _CANARY, _CANARY, "add")
    file = FileInfo("f1", "n", "", "firmware", "1.2.0", "c" * 64, "", 5, 10, _NOW)
    Files(engine).add("hub-100", file)
    Files(engine).set_rollout("hub-100", "f1", 50)
    Devices(engine).revoke(device)
    Devices(engine).revoke(device)
    found = acts()
    assert found == [
        ("model.renew_key", "model/hub-100", {}),
        ("device.claim", f"device/{device}", {"version": 1}),
        ("device_config.set", f"device/{device}", {"name": "day", "version": 1}),
        ("device_commands.give", f"device/{device}", {"id": command.id, "command": "reboot"}),
        ("device_licenses.give", f"device/{device}", {"id": licence.id, "action": "add"}),
        (
            "device_file.add",
            "model/hub-100",
            {"id": "f1", "type": "firmware", "version": "1.2.0", "checksum": "c" * 64, "rollout_percent": 10},
        ),
        ("device_file.roll_out", "model/hub-100", {"id": "f1", "rollout_percent": 50}),
        ("device.revoke", f"device/{device}", {}),
    ]
    assert _CANARY not in str(found)


def test_jobs(engine: Engine, acts: Callable[[], list[Any]]) -> None:
    jobs = Jobs(engine)
    job, _ = jobs.create(Order("erase", "user", ("person-1",)), "ops", "r1")
    jobs.create(Order("erase", "user", ("person-1",)), "ops", "r1")
    jobs.cancel(job.id)
    found = acts()
    assert found == [
        ("erase.ask", f"job/{job.id}", {"type": "user", "ids": 1}),
        ("job.cancel", f"job/{job.id}", {"kind": "erase"}),
    ]


def test_who_is_erased_is_named_no_more(engine: Engine, acts: Callable[[], list[Any]]) -> None:
    Users(engine).create("Ada", 7)
    Users(engine).create("Bo", 77)
    Users(engine).create_token(7)
    forget_id(engine, "user", "7", "erased:x")
    assert [object_ for _, object_, _ in acts()] == ["erased:x", "user/77", "erased:x"]


def test_an_act_that_cannot_be_written_down_is_not_done(engine: Engine, settings: Settings) -> None:
    credentials = Credentials(settings)
    try:
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE admin_log RENAME TO gone"))
        for act in (
            lambda: credentials.create("app"),
            lambda: Academies(engine).create("Miami", 3),
            lambda: Models(engine).create("hub-200", 10),
            lambda: Licences(engine).create("partner", []),
        ):
            with pytest.raises(RegistryError):
                act()
        assert credentials.list_all() == []
        assert Academies(engine).page(limit=9) == []
        assert [model.name for model in Models(engine).list_all()] == []
        assert Licences(engine).list(limit=9) == []
    finally:
        credentials.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE admin_log SET actor = 'other'",
        "UPDATE admin_log SET at = '2000-01-01 00:00:00.000000'",
        "UPDATE admin_log SET details = '{}', object = 'x'",
        "DELETE FROM admin_log",
    ],
)
def test_rows_are_not_changed_and_not_deleted(statement: str, engine: Engine) -> None:
    before = read_acts(engine, limit=10)
    assert before
    with pytest.raises(DatabaseError, match="admin_log"), engine.begin() as connection:
        connection.execute(text(statement))
    assert read_acts(engine, limit=10) == before


def test_rows_past_their_time_are_pruned(engine: Engine) -> None:
    old = (datetime.now(UTC) - KEPT).replace(tzinfo=None)
    insert = text(
        "INSERT INTO admin_log (at, actor_kind, actor, address, action, object, details, outcome, request_id) "
        "VALUES (:at, 'process', 'm', '', 'a', :o, '{}', 'done', '')"
    )
    with engine.begin() as connection:
        for days in (-1, 1):
            at = (old + timedelta(days=days)).isoformat(" ", "microseconds")
            connection.execute(insert, {"at": at, "o": str(days)})
    assert prune_acts(engine) == 1
    assert [act.object for act in read_acts(engine, limit=10)] == ["1", "registry"]


def test_pages(engine: Engine) -> None:
    for number in range(25):
        note_alone(engine, "a", str(number))
    numbers: list[str] = []
    before = None
    while page := read_acts(engine, limit=10, before=before):
        numbers += [act.object for act in page]
        before = page[-1].number
    assert numbers == [*(str(number) for number in reversed(range(25))), "registry"]
    assert len(read_acts(engine, limit=100, since=_NOW - timedelta(hours=1))) == 26
    assert read_acts(engine, limit=100, since=datetime.now(UTC) + timedelta(hours=1)) == []


def test_a_log_line_tells_of_what_is_committed_only(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = CapturingLogger()
    monkeypatch.setattr(admin_log, "_log", logger)
    monkeypatch.setattr(admin_log.structlog, "is_configured", lambda: True)
    Academies(engine).create("Miami", 3)
    with pytest.raises(RegistryError):
        Academies(engine).create("Miami", 3)
    with engine.connect() as connection:
        admin_log.note(connection, "a", "b")
        connection.rollback()
    assert [(call.args, call.kwargs["action"], call.kwargs["object"]) for call in logger.calls] == [
        (("admin.act",), "academy.create", "academy/3")
    ]


def test_every_writer_of_the_registry_notes_its_act_or_is_no_administrator() -> None:
    root = Path(midstream.registry.__file__).parent
    unlisted, used = [], set()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name.startswith("migrations/"):
            continue
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
            writes = any(isinstance(call, ast.Attribute) and call.attr == "begin" for call in calls)
            if not writes or any(isinstance(call, ast.Name) and call.id == "note" for call in calls):
                continue
            known = next((one for one in (name, f"{name} {function.name}") if one in _NO_ACTS), None)
            used.add(known)
            if known is None:
                unlisted.append(f"{name} {function.name}")
    assert unlisted == [], "call note() in the transaction, or say in _NO_ACTS whose doing it is"
    assert used == set(_NO_ACTS)


def test_an_act_has_the_fields_of_its_row() -> None:
    assert set(Act._fields) == {column.name for column in admin_log.AdminLog.__table__.columns}
