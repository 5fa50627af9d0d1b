"""``midstream audit`` and the accounting of a real pipeline: proven, sabotaged, and with a topic made anew."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from midstream import topics
from midstream.kafka.admin import ensure_topics
from midstream.settings import Settings
from tests.integration.outside import Outside, Row, make_event, run_apart, run_cli, unique
from tests.support.pipeline import Pipeline
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """Clients of a pipeline of these tests' own: they delete what is stored, and a topic."""
    with Pipeline(tmp_path_factory.mktemp("audited") / "home") as running:
        found = Outside(running)
        yield found
        found.close()


def send_some(clients: Outside) -> list[str]:
    """Send stored, duplicate and refused events; return the batches."""
    first = [make_event(eid, did=unique("d")) for eid in ("START", "INTERACT", "LOG", "END") * 3]
    ids = [clients.send([*first, make_event(), {"eid": "NOBODY", "mid": unique("n")}]) for _ in range(4)]
    clients.settle(ids, 60)
    return ids


def wait_complete(clients: Outside, batch_ids: list[str]) -> None:
    """Wait until the watermark has passed these batches."""
    sql = (
        "SELECT (SELECT complete_until FROM complete_until) > max(received_at) FROM batches "
        "WHERE batch_id IN {ids:Array(String)}"
    )
    wait_until("they are complete", lambda: clients.value(sql, ids=batch_ids), 40, 0.25)


def run_audit(clients: Outside, *arguments: str, **env: str) -> tuple[int, Row]:
    """Run `midstream audit --json`; return its exit code and what it says."""
    done = run_cli(clients.pipeline, "audit", "--json", *arguments, **env)
    assert done.stdout, done.stderr
    answer: Row = json.loads(done.stdout)
    assert answer["proven"] == (done.returncode == 0)
    return done.returncode, answer


def metric(clients: Outside, name: str) -> float:
    page = clients.http.get(f"http://127.0.0.1:{clients.pipeline.settings['store_metrics_port']}/metrics").text
    return float(next(line for line in page.splitlines() if line.startswith(f"{name} ")).split()[1])


def test_what_came_through_is_proven(clients: Outside) -> None:
    ids = send_some(clients)
    wait_complete(clients, ids)
    code, found = run_audit(clients)
    assert code == 0, found
    assert (found["batches"], found["received"]) == (4, 56)
    assert (found["stored"], found["duplicate"], found["rejected"]) == (16, 36, 4)
    assert found["unchecked"] == []
    shown = run_cli(clients.pipeline, "audit")
    assert shown.returncode == 0, shown.stderr
    assert "batches" in shown.stdout
    assert "Proven" in shown.stderr


def test_wrong_times_are_wrong_usage(clients: Outside) -> None:
    assert run_cli(clients.pipeline, "audit", "--from", "yesterday").returncode == 2
    assert run_cli(clients.pipeline, "audit", "--from", "2026-02-01", "--to", "2026-01-01").returncode == 2


def test_without_kafka_what_needs_no_kafka_is_proven(clients: Outside) -> None:
    code, found = run_audit(clients, MIDSTREAM_KAFKA="127.0.0.1:9", MIDSTREAM_KAFKA_TIMEOUT_MS="500")
    assert code == 0, found


async def copy_raw(servers: str, places: list[Row]) -> None:
    """Append records of ``telemetry.raw`` to their partitions again."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=None)
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all")
    await consumer.start()
    await producer.start()
    try:
        for place in places:
            tp = TopicPartition(topics.RAW.name, place["partition"])
            consumer.assign([tp])
            consumer.seek(tp, place["offset"])
            record = await consumer.getone(tp)
            await producer.send_and_wait(tp.topic, record.value, record.key, tp.partition, headers=list(record.headers))
    finally:
        await producer.stop()
        await consumer.stop()


def test_batches_that_lie_in_kafka_twice_are_proven(clients: Outside) -> None:
    """Only one place of each is kept: the others' offsets have no batch, and Kafka tells why."""
    places = clients.clickhouse.named_rows("SELECT partition, offset FROM batches ORDER BY partition, offset")
    for _ in range(3):
        run_apart(copy_raw(clients.pipeline.kafka_servers, places))
    wait_complete(clients, send_some(clients))
    clients.clickhouse.command("OPTIMIZE TABLE batch_rows FINAL")
    assert clients.value("SELECT max(offset) + 1 - uniqExact(offset) FROM batch_rows GROUP BY partition LIMIT 1") > 0
    code, found = run_audit(clients)
    assert code == 0, found
    assert found["batches"] == 8
    assert found["notes"] == []


async def remake(settings: Settings, name: str) -> None:
    """Delete a topic and make it anew."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_servers)
    await admin.start()
    try:
        await admin.delete_topics([name])
    finally:
        await admin.close()
    await ensure_topics(settings, timeout_s=30)


@pytest.mark.timeout(240)  # Kafka forgets the workers' former membership when their session is over
@pytest.mark.parametrize("name", [topics.VALID.name, topics.RAW.name])
def test_a_topic_that_was_made_anew_costs_nothing_and_doubles_nothing(clients: Outside, name: str) -> None:
    before = send_some(clients)
    wait_complete(clients, before)
    settings = Settings.model_validate({"kafka": clients.pipeline.kafka_servers})
    run_apart(remake(settings, name))
    clients.pipeline.wait_ready()
    after = [batch_id for _ in range(3) for batch_id in send_some(clients)]
    clients.wait_accounted()
    wait_complete(clients, after)
    sql = "SELECT count(), uniqExact(mid) FROM events"
    rows, mids = clients.row(sql).values()
    assert rows == mids
    code, found = run_audit(clients)
    assert code == 0, found
    assert found["stored"] == rows


def test_an_event_that_was_dropped_is_named_with_its_mid(clients: Outside) -> None:
    """Sabotage: a row is deleted behind the pipeline's back."""
    ids = send_some(clients)
    wait_complete(clients, ids)
    victim = clients.row(
        "SELECT mid, eid, batch_id, event_index FROM learning_events WHERE batch_id = {id:String} LIMIT 1", id=ids[-1]
    )
    clients.clickhouse.command(
        f"ALTER TABLE learning_events DELETE WHERE mid = '{victim['mid']}'", {"mutations_sync": 2}
    )
    code, found = run_audit(clients)
    assert code == 1
    assert found["missing"] == 1
    (missing,) = found["findings"]
    assert {name: missing[name] for name in victim} == victim
    place: Row = clients.row("SELECT partition, offset FROM batches WHERE batch_id = {id:String}", id=ids[-1])
    assert {name: missing[name] for name in place} == place
    assert clients.value("SELECT sum(unaccounted) FROM accounting") == 1
    shown: subprocess.CompletedProcess[str] = run_cli(clients.pipeline, "audit")
    assert shown.returncode == 1
    assert victim["mid"] in shown.stdout
    assert "NOT PROVEN" in shown.stderr


def test_a_loss_is_in_the_metric_and_a_restart_does_not_forget_it(clients: Outside) -> None:
    """After the test before."""

    def lost() -> bool:
        try:
            return metric(clients, "midstream_unaccounted_events") == 1
        except httpx.TransportError:  # it is starting
            return False

    wait_until("the metric says so", lost, 60, 0.5)
    clients.pipeline.kill("store")
    clients.pipeline.wait_ready()
    wait_until("it still does", lost, 60, 0.5)
