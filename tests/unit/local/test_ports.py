from __future__ import annotations

import os
import socket

import pytest

from deploy.local.errors import LocalError
from deploy.local.ports import check_ports, ports_of
from midstream.settings import Settings
from tests.support.ports import free_ports, port_settings


def settings(**changes: object) -> Settings:
    return Settings.model_validate({**port_settings(), **changes})


def test_free_ports_pass() -> None:
    check_ports(settings())


def test_a_port_in_use_is_named_with_its_holder_and_its_setting() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(LocalError) as caught:
            check_ports(settings(local_kafka_port=port))
    message = str(caught.value)
    assert f"port {port} (Kafka) is in use by pid {os.getpid()} (" in message
    assert "MIDSTREAM_LOCAL_KAFKA_PORT" in message


def test_all_taken_ports_are_named_at_once() -> None:
    with socket.socket() as one, socket.socket() as two:
        for listener in (one, two):
            listener.bind(("127.0.0.1", 0))
            listener.listen()
        with pytest.raises(LocalError) as caught:
            check_ports(settings(port=one.getsockname()[1], local_clickhouse_port=two.getsockname()[1]))
    assert "MIDSTREAM_PORT" in str(caught.value)
    assert "MIDSTREAM_LOCAL_CLICKHOUSE_PORT" in str(caught.value)


def test_two_settings_of_one_port_are_named() -> None:
    [port] = free_ports(1)
    with pytest.raises(LocalError, match="MIDSTREAM_LOCAL_KAFKA_PORT and MIDSTREAM_PORT are both"):
        check_ports(settings(port=port, local_kafka_port=port))


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(LocalError, match=r"on 192\.0\.2\.1 cannot be listened on"):
        check_ports(settings(host="192.0.2.1"))


def test_what_runs_elsewhere_needs_no_port_here() -> None:
    names = {use.setting for use in ports_of(settings(kafka="k:9092", clickhouse="http://c:8123/x"))}
    assert names == {
        f"MIDSTREAM_{name}PORT"
        for name in ("", "VALIDATE_METRICS_", "STORE_METRICS_", "DEVICES_METRICS_", "JOBS_METRICS_")
    }
