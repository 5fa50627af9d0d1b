"""What partners download from a running pipeline is what apps sent, event by event."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path

import httpx
import pytest

from tests.contract.exhaust.archive import Archive
from tests.integration.closed_days import CHANNELS, EAST, NOBODY, WEST, ClosedDays, Sent
from tests.integration.outside import make_event, run_cli, unique
from tests.integration.partners import Partner, error_of, exhaust_folder, worker_of
from tests.support.faketime import why_no_faketime
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(why_no_faketime()), reason=why_no_faketime()),
]

LOGGED_S = 10.0
"""Longest that a row of the log of downloads may take."""


@pytest.fixture(scope="module")
def partner(closed_days: ClosedDays) -> Partner:
    """A partner who may see all three resources."""
    return Partner(closed_days.outside, ("D001", EAST), ("D001", WEST), ("D001", NOBODY))


def line_of(sent: Sent) -> str:
    """Return an event as a line of a download must be, to the byte."""
    at = sent.received_at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{sent.received_at.microsecond // 1000:03}Z"
    assert sent.text.endswith("}")
    receipt = f'{{"received_at":"{at}","batch_id":"{sent.batch_id}","event_index":{sent.event_index}}}'
    return f'{sent.text[:-1]},"receipt":{receipt}}}'.replace("\n", " ") + "\n"


def files_of(closed_days: ClosedDays, resource: str, day: date) -> dict[str, str]:
    """Return what a day's files must hold, by name, in order."""
    files = {}
    for hour, group in groupby(closed_days.of(resource, day), key=lambda one: one.hour):
        events = list(group)
        epoch_ms = round(events[0].received_at.timestamp() * 1000)
        files[f"data-exhaust-{hour:02}.log-{day}-{epoch_ms}.gz"] = "".join(map(line_of, events))
    return files


def days_of(archive: Archive, days: tuple[date, ...]) -> dict[date, dict[str, str]]:
    return {
        day: {name: gzip.decompress(packed).decode() for name, packed in archive.files(day).items()} for day in days
    }


@pytest.mark.parametrize("resource", [EAST, WEST, NOBODY], ids=["east", "west", "nobody"])
def test_a_download_is_what_was_sent(closed_days: ClosedDays, partner: Partner, resource: str) -> None:
    days = closed_days.days
    archive = partner.archive(days[0], days[2], resource=resource)
    assert archive.names == [f"aggregated-{day}.gz" for day in days]
    found = days_of(archive, days)
    wanted = {day: files_of(closed_days, resource, day) for day in days}
    assert found == wanted
    assert [list(files) for files in found.values()] == [list(files) for files in wanted.values()]
    # A mid that came again, on the same day or a later one, is there once; what was refused, never.
    mids = [line["mid"] for day in days for line in archive.lines(day)]
    assert mids == [one.mid for one in closed_days.of(resource)]
    assert len(set(mids)) == len(mids)
    if resource == NOBODY:
        assert mids == []
    else:
        assert {*mids} & {*closed_days.duplicates}, "some of what is here came more than once"


def test_the_same_bytes_from_each_worker_and_when_built_anew(closed_days: ClosedDays, partner: Partner) -> None:
    first, _, last = closed_days.days
    before = partner.archive(first, last, resource=WEST).content
    workers = set()
    for _ in range(100):
        with httpx.Client(timeout=60, trust_env=False) as client:
            url = partner.url(first, last, resource=WEST)
            with client.stream("POST", url, json=partner.body) as reply:
                workers.add(worker_of(closed_days.pipeline, reply))
                assert reply.read() == before
        if len(workers) == 2:
            break
    assert len(workers) == 2, "one worker has answered all"
    shutil.rmtree(exhaust_folder(closed_days.pipeline))
    assert not exhaust_folder(closed_days.pipeline).exists()
    assert partner.archive(first, last, resource=WEST).content == before


def test_what_comes_today_changes_nothing(closed_days: ClosedDays, partner: Partner) -> None:
    first, _, last = closed_days.days
    before = partner.archive(first, last, resource=EAST).content
    shutil.rmtree(exhaust_folder(closed_days.pipeline))
    outside = closed_days.outside
    with httpx.Client(timeout=60, trust_env=False) as client:
        url = partner.url(first, last, resource=EAST)
        with client.stream("POST", url, json=partner.body) as reply:
            chunks = reply.iter_bytes()
            content = next(chunks)
            batch_id = outside.send([make_event() | {"tags": [EAST]} for _ in range(20)])
            assert outside.settle([batch_id]).stored == 20
            content += b"".join(chunks)
    assert content == before
    assert partner.archive(first, last, resource=EAST).content == before
    shutil.rmtree(exhaust_folder(closed_days.pipeline))
    assert partner.archive(first, last, resource=EAST).content == before


def test_the_resources_of_a_dataset_of_everything_add_up_to_what_is_stored(closed_days: ClosedDays) -> None:
    outside, days = closed_days.outside, closed_days.days
    name = unique("all")
    outside.cli("dataset", "declare", "--name", name, "--resource", "channel")
    partner = Partner(outside, *((name, channel) for channel in CHANNELS))
    told = [partner.manifest(days[0], days[2], resource=channel) for channel in CHANNELS]
    archives = [partner.archive(days[0], days[2], resource=channel) for channel in CHANNELS]
    for number, day in enumerate(days):
        stored = outside.value("SELECT sum(stored) FROM accounting WHERE toDate(minute) = {day:Date}", day=day)
        assert sum(manifest[number]["events"] for manifest in told) == stored
        assert stored == sum(one.day == day for one in closed_days.sent) > 0
        mids = [line["mid"] for archive in archives for line in archive.lines(day)]
        assert sorted(mids) == sorted(one.mid for one in closed_days.sent if one.day == day)


def test_the_command_proves_a_download(closed_days: ClosedDays, partner: Partner, tmp_path: Path) -> None:
    first, _, last = closed_days.days
    archive = partner.archive(first, last, resource=WEST)
    file = tmp_path / "download.zip"
    arguments = ("exhaust", "verify", str(file), "--json", "--manifest")
    url = partner.url(first, last, "manifest", resource=WEST)

    def verify() -> tuple[int, dict[str, object]]:
        done = run_cli(closed_days.pipeline, *arguments, url, MIDSTREAM_LICENCE_KEY=partner.key)
        return done.returncode, json.loads(done.stdout)

    file.write_bytes(archive.content)
    code, said = verify()
    assert (code, said["proven"], said["findings"]) == (0, True, [])
    assert (said["days"], said["events"]) == (3, len(closed_days.of(WEST)))
    # One bit in the middle of a line of the second day.
    altered = bytearray(archive.content)
    altered[archive.content.index(b"data-exhaust-09") + 200] ^= 1
    file.write_bytes(altered)
    code, said = verify()
    assert (code, said["proven"]) == (1, False)
    file.write_bytes(archive.content[:-100])
    assert verify()[0] == 1


def test_what_is_refused_says_so_in_its_envelope(closed_days: ClosedDays, partner: Partner) -> None:
    first, _, last = closed_days.days
    today = datetime.now(UTC).date()
    stranger = partner.body | {"request": {"licensekey": "00000000-0000-4000-8000-000000000000"}}
    url = partner.url(first, last)
    assert error_of(partner.post(url, stranger)) == (401, "LOGIN_FAILED")
    assert error_of(partner.post(partner.url(first, last, resource="f" * 40))) == (403, "AUTHORIZATION_FAILED")
    assert error_of(partner.post(partner.url(first, last, dataset="D999"))) == (403, "AUTHORIZATION_FAILED")
    assert error_of(httpx.post(url, content=b"{", timeout=60, trust_env=False)) == (400, "INVALID_DATA_ERROR")
    assert error_of(partner.post(partner.url(first, today))) == (400, "INVALID_DATE")
    assert error_of(partner.post(partner.url(today, today))) == (400, "INVALID_DATE")
    long_ago = today - timedelta(days=40)
    assert error_of(partner.post(partner.url(long_ago, last))) == (400, "DATE_RANGE_TOO_LARGE")
    assert partner.post(url, stranger).json()["params"]["msgid"] == "m-1"


def test_metrics_tell_of_downloads(closed_days: ClosedDays, partner: Partner) -> None:
    first, _, last = closed_days.days

    def shown() -> dict[str, float]:
        page = httpx.get(f"{closed_days.pipeline.base_url}/metrics", timeout=60, trust_env=False).text
        samples = re.findall(r"^(midstream_exhaust_[^ ]+) ([^ ]+)$", page, re.MULTILINE)
        return {name: float(value) for name, value in samples}

    partner.archive(first, last, resource=WEST)
    before = shown()
    size = len(partner.archive(first, last, resource=WEST).content)
    after = shown()
    grown = {name: after[name] - before[name] for name in before if after[name] != before[name]}
    assert grown.pop("midstream_exhaust_first_byte_seconds_sum") > 0
    assert {value for name, value in grown.items() if "seconds_bucket" in name} == {1}
    assert {name: value for name, value in grown.items() if "seconds_bucket" not in name} == {
        'midstream_exhaust_downloads_total{end="complete"}': 1,
        "midstream_exhaust_sent_bytes_total": size,
        "midstream_exhaust_first_byte_seconds_count": 1,
    }
    assert after["midstream_exhaust_log_dropped_total"] == 0
    wait_until("three days are kept", lambda: shown()["midstream_exhaust_kept_days"] >= 3, 60, 1)
    assert shown()["midstream_exhaust_kept_bytes"] > 0


def test_the_log_says_what_was_downloaded(closed_days: ClosedDays) -> None:
    outside, (first, second, last) = closed_days.outside, closed_days.days
    partner = Partner(outside, ("D001", WEST))

    def last_used() -> str | None:
        (listed,) = [one for one in json.loads(outside.cli("licence", "list", "--json")) if one["name"] == partner.name]
        used: str | None = listed["last_used_at"]
        return used

    assert last_used() is None
    began = datetime.now(UTC)
    whole = partner.archive(first, last)
    part = httpx.get(
        partner.url(second, second) + "?eid=LOG&channel=north&format=csv",
        headers=partner.bearer | {"range": "bytes=7-50"},
        timeout=60,
        trust_env=False,
    )
    assert part.status_code == 206
    partner.manifest(first, first)
    assert error_of(partner.post(partner.url(first, last, resource=EAST)))[0] == 403
    sql = "SELECT * FROM exhaust_downloads WHERE licence = {name:String} ORDER BY at, what"
    wait_until("three rows", lambda: len(outside.rows(sql, name=partner.name)) == 3, LOGGED_S)
    rows = outside.rows(sql, name=partner.name)
    for row in rows:
        assert began - timedelta(seconds=1) < row.pop("at") < datetime.now(UTC)
        assert 0 <= row.pop("seconds") < 60
    common = {"licence": partner.name, "dataset": "D001", "resource": WEST, "client": "127.0.0.1", "complete": True}
    plain = common | {"format": "jsonl", "eids": [], "channels": [], "first_byte": 0, "status": 200, "first_day": first}
    assert rows[0] == plain | {
        "what": "archive",
        "method": "POST",
        "last_day": last,
        "sent_bytes": len(whole.content),
    }
    assert rows[1] == common | {
        "what": "archive",
        "method": "GET",
        "first_day": second,
        "last_day": second,
        "format": "csv",
        "eids": ["LOG"],
        "channels": ["north"],
        "status": 206,
        "first_byte": 7,
        "sent_bytes": 44,
    }
    assert rows[2].pop("sent_bytes") > 100
    assert rows[2] == plain | {"what": "manifest", "method": "GET", "last_day": first}
    used = wait_until("the last use is known", last_used, LOGGED_S, 0.5)
    assert began - timedelta(seconds=60) < datetime.fromisoformat(used) < datetime.now(UTC)
