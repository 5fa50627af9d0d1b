"""HTTP sources: paging, retries, limits, and everything that is no answer."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import logging
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from midstream.dimensions import DimensionType
from midstream.logs import configure_logs
from midstream.settings import Settings
from midstream.sources.http import chunks
from midstream.sources.reading import Source
from midstream.sources.staging import stage
from tests.support.waiting import wait_until

from .reads import configure, failure, read, taken
from .server import Answer, Request, Server, serving

USERS = [{"id": f"u-{number}", "name": f"User {number}"} for number in range(7)]
NAMED = {user["id"]: {"name": user["name"]} for user in USERS}

Open = Callable[..., tuple[Source, Server]]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens a source at a server that answers so; ``more`` is added to its table."""
    with ExitStack() as stack:

        def open_(answer: Answer, more: str = "", path: str = "/users") -> tuple[Source, Server]:
            server = stack.enter_context(serving(answer))
            table = f'[user]\nkind = "http"\nurl = "{server.url}{path}"\nretry_wait_ms = 20\n{more}'
            return configure(tmp_path, table)[DimensionType.USER], server

        yield open_


def test_a_list_as_the_body(opened: Open) -> None:
    source, server = opened(lambda request: request.give(USERS))
    assert read(source) == NAMED
    assert not source.incremental
    assert len(server.requests) == 1


def test_rows_deep_in_the_body_with_fields_of_other_names(opened: Open) -> None:
    rows = [
        {"uid": 17, "changed": "2024-05-01T12:00:00.5Z", "profile": {"a": 1.10}, "x": 1},
        {"uid": "b", "changed": "2024-05-01T14:00:00+02:00", "profile": {}, "x": 2},
    ]
    more = 'rows = "/result/a~1b/0"\nid_field = "uid"\nupdated_at_field = "changed"\nattributes_field = "profile"'
    source, _ = opened(lambda request: request.give({"result": {"a/b": [rows]}}), more)
    found, _ = taken(source.read())
    assert [(row.id, row.attributes, row.version) for row in found] == [
        ("17", '{"a":1.1}', 1714564800500),
        ("b", "{}", 1714564800000),
    ]


def test_numbers_keep_the_form_they_were_written_in(opened: Open) -> None:
    body = b'[{"id":"a","big":12345678901234567890123,"price":1.10,"nested":{"x": [1e3] }}]'
    source, _ = opened(lambda request: request.give(body))
    [row] = taken(source.read())[0]
    assert row.attributes == '{"big":12345678901234567890123,"price":1.10,"nested":{"x":[1e3]}}'


def test_rows_that_cannot_be_taken_cost_only_themselves(opened: Open) -> None:
    body = (
        b'{"rows":[{"id":"a"},{"name":"none"},{"id":null},{"id":true},{"id":""},"text",{"id":"g","version":-1},'
        b'{"id":"h","version":"x"},{"id":"i","a":1,"a":2},{"id":"k","version":9,"n":1.10}]}'
    )
    source, _ = opened(lambda request: request.give(body), 'rows = "/rows"\nversion_field = "version"')
    rows, refused = taken(source.read())
    assert [(row.id, row.attributes) for row in rows] == [("k", '{"n":1.10}')]
    assert [(one.place, one.code, one.id) for one in refused] == [
        ("page 1, row 1", "INVALID_VERSION", "a"),
        ("page 1, row 2", "INVALID_ROW", ""),
        ("page 1, row 3", "INVALID_ROW", ""),
        ("page 1, row 4", "INVALID_ID", ""),
        ("page 1, row 5", "INVALID_ID", ""),
        ("page 1, row 6", "INVALID_ROW", None),
        ("page 1, row 7", "INVALID_VERSION", "g"),
        ("page 1, row 8", "INVALID_VERSION", "h"),
        ("page 1, row 9", "INVALID_JSON", None),
    ]


def test_rows_that_are_not_json_cost_only_themselves(opened: Open) -> None:
    body = (
        b'{"a/b":[[{"id":"a","v":NaN},{"id":2,"v":[{"x":"\\ud800"}]},{"id":"\xff"},{"id":"d","\xff":1},[-Infinity],'
        b'{"id":"e","n":1.10,"big":12345678901234567890123,"text":"\xc3\xa9"}]],"next":null}'
    )
    more = 'rows = "/a~1b/0"\npaging = {style = "next_url", pointer = "/next"}'
    rows, refused = taken(opened(lambda request: request.give(body), more)[0].read())
    assert [(row.id, row.attributes) for row in rows] == [("e", '{"n":1.10,"big":12345678901234567890123,"text":"é"}')]
    assert [(one.place, one.code, one.id) for one in refused] == [
        ("page 1, row 1", "INVALID_JSON", "a"),
        ("page 1, row 2", "INVALID_JSON", "2"),
        ("page 1, row 3", "INVALID_JSON", None),
        ("page 1, row 4", "INVALID_JSON", "d"),
        ("page 1, row 5", "INVALID_JSON", None),
    ]


def test_attributes_that_are_no_object_are_refused(opened: Open) -> None:
    source, _ = opened(
        lambda request: request.give([{"id": "a", "x": [1]}, {"id": "b"}, {"id": "c", "x": {"y": 1}}]),
        'attributes_field = "x"',
    )
    rows, refused = taken(source.read())
    assert [row.id for row in rows] == ["c"]
    assert [(one.code, one.id) for one in refused] == [("NOT_AN_OBJECT", "a"), ("NOT_AN_OBJECT", "b")]


def test_a_row_of_a_megabyte_is_taken_and_one_beyond_is_refused(opened: Open) -> None:
    rows = [{"id": "a", "x": "y" * (1024 * 1024 - 8)}, {"id": "b", "x": "y" * (1024 * 1024)}]
    found, refused = taken(opened(lambda request: request.give(rows))[0].read())
    assert [(row.id, len(row.attributes)) for row in found] == [("a", 1024 * 1024)]
    assert [(one.code, one.id) for one in refused] == [("TOO_LARGE", "b")]


def test_what_the_source_marks_as_deleted_is_a_tombstone(opened: Open) -> None:
    rows = [{"id": "a", "gone": 0}, {"id": "b", "gone": "2024-01-01"}, {"id": "c", "gone": True}, {"id": "d"}]
    found, _ = taken(opened(lambda request: request.give(rows), 'deleted_field = "gone"')[0].read())
    assert [(row.id, row.deleted) for row in found] == [("a", False), ("b", True), ("c", True), ("d", False)]


def pages_by_link(request: Request) -> None:
    at = int(request.query.get("at", ["0"])[0])
    link = (
        f'</users?at={at + 3}>; rel="next", </users>; rel="first"' if at + 3 < len(USERS) else '</users>; rel="first"'
    )
    request.give(USERS[at : at + 3], Link=link)


def pages_by_url(request: Request) -> None:
    at = int(request.query.get("at", ["0"])[0])
    following = f"?at={at + 3}" if at + 3 < len(USERS) else None
    request.give({"rows": USERS[at : at + 3], "meta": {"next": following}})


def pages_by_cursor(request: Request) -> None:
    assert request.query["size"] == ["3"]
    at = int(request.query.get("after", ["0"])[0])
    request.give({"rows": USERS[at : at + 3], "meta": {"next": at + 3 if at + 3 < len(USERS) else ""}})


def pages_by_number(request: Request) -> None:
    at = (int(request.query["page"][0]) - 1) * 3
    request.give({"rows": USERS[at : at + 3]})


@pytest.mark.parametrize(
    ("answer", "more", "path"),
    [
        (pages_by_link, 'paging = {style = "link_header"}', "/users"),
        (pages_by_url, 'rows = "/rows"\npaging = {style = "next_url", pointer = "/meta/next"}', "/users"),
        (
            pages_by_cursor,
            'rows = "/rows"\npaging = {style = "cursor", pointer = "/meta/next", parameter = "after"}',
            "/users?size=3",
        ),
        (pages_by_number, 'rows = "/rows"\npaging = {style = "page", parameter = "page"}', "/users"),
    ],
)
def test_pages(opened: Open, answer: Answer, more: str, path: str) -> None:
    assert read(opened(answer, more, path)[0]) == NAMED


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_json_lines(opened: Open, pack: Callable[[bytes], bytes]) -> None:
    body = pack(b"\n".join(json.dumps(user).encode() for user in USERS))
    assert read(opened(lambda request: request.give(body), 'format = "jsonl"')[0]) == NAMED


def test_json_lines_in_numbered_pages(opened: Open) -> None:
    def answer(request: Request) -> None:
        at = int(request.query["page"][0]) * 3
        request.give(b"".join(json.dumps(user).encode() + b"\n" for user in USERS[at : at + 3]))

    more = 'format = "jsonl"\npaging = {style = "page", parameter = "page", first = 0}'
    assert read(opened(answer, more)[0]) == NAMED


def test_a_line_of_json_lines_that_is_none_is_refused(opened: Open) -> None:
    body = b'{"id":"a"}\n{"id":"b"\n\n{"id":"c"}\n'
    rows, refused = taken(opened(lambda request: request.give(body), 'format = "jsonl"')[0].read())
    assert [row.id for row in rows] == ["a", "c"]
    assert [(one.place, one.code, one.id) for one in refused] == [("page 1, line 2", "INVALID_JSON", None)]


@pytest.mark.parametrize("header", ["gzip", None])
def test_a_gzipped_body(opened: Open, header: str | None) -> None:
    more = {"Content_Encoding": header} if header else {}
    body = gzip.compress(json.dumps(USERS).encode())
    assert read(opened(lambda request: request.give(body, **more))[0]) == NAMED


class TestByIds:
    @staticmethod
    def answer(request: Request) -> None:
        asked = [one for value in request.query.get("ids", []) for one in value.split(",")]
        request.give([user for user in USERS if not asked or user["id"] in asked])

    def test_in_requests_of_some(self, opened: Open) -> None:
        source, server = opened(self.answer, 'ids_parameter = "ids"\nids_per_request = 2')
        assert set(read(source, ["u-1", "u-2", "u-5", "nobody"])) == {"u-1", "u-2", "u-5"}
        assert [request.query["ids"] for request in server.requests] == [["u-1,u-2"], ["u-5,nobody"]]

    def test_each_as_a_parameter_of_its_own(self, opened: Open) -> None:
        source, server = opened(self.answer, 'ids_parameter = "ids"\nids_separator = ""', "/users?tenant=1")
        assert set(read(source, ["u-1", "u-2"])) == {"u-1", "u-2"}
        assert server.requests[0].query == {"tenant": ["1"], "ids": ["u-1", "u-2"]}

    def test_an_id_with_the_separator_in_it_is_not_taken_for_two(self, opened: Open) -> None:
        source, server = opened(self.answer, 'ids_parameter = "ids"')
        assert set(read(source, ["u-1", "u-2,u-3"])) == {"u-1"}
        assert server.requests[0].query == {}

    def test_a_source_without_such_a_parameter_is_read_whole(self, opened: Open) -> None:
        assert set(read(opened(self.answer)[0], ["u-1"])) == {"u-1"}

    def test_ids_that_cannot_be_are_not_asked_for_and_no_id_twice(self, opened: Open) -> None:
        source, server = opened(self.answer, 'ids_parameter = "ids"')
        assert set(read(source, ["u-1", "", "\ud800", "a\0", "u-1", "x" * 1025])) == {"u-1"}
        assert [request.query for request in server.requests] == [{"ids": ["u-1"]}]

    def test_no_ids_ask_nothing(self, opened: Open) -> None:
        source, server = opened(self.answer, 'ids_parameter = "ids"')
        assert read(source, []) == {}
        assert server.requests == []

    def test_chunks_are_bounded_in_number_and_bytes(self) -> None:
        assert list(chunks(["aa", "bb", "cc", "d" * 9, "e"], 2, 5)) == [["aa", "bb"], ["cc"], ["d" * 9], ["e"]]


class TestIncremental:
    MORE = 'updated_at_field = "at"\nsince_parameter = "since"\noverlap_ms = 1000\n'

    def test_what_changed_since(self, opened: Open) -> None:
        source, server = opened(
            lambda request: request.give([{"id": "a", "at": "2024-01-01T00:00:10Z"}, {"id": "b", "at": "2023-01-01"}]),
            self.MORE,
        )
        reading = source.read()
        taken(reading)
        assert (reading.whole, reading.watermark) == (True, "ms:1704067210000")
        again = source.read(since=reading.watermark)
        taken(again)
        assert (again.whole, again.watermark) == (False, "ms:1704067210000")
        assert [request.query for request in server.requests] == [{}, {"since": ["2024-01-01T00:00:09.000Z"]}]

    def test_a_time_in_the_future_does_not_hide_what_comes_before_it(self, opened: Open) -> None:
        source, _ = opened(lambda request: request.give([{"id": "a", "at": "2999-01-01"}]), self.MORE)
        reading = source.read()
        before_ms = time.time_ns() // 1_000_000
        taken(reading)
        assert reading.watermark is not None
        assert int(reading.watermark.removeprefix("ms:")) <= before_ms + 1

    def test_nothing_new_keeps_the_watermark(self, opened: Open) -> None:
        source, _ = opened(lambda request: request.give([]), self.MORE)
        reading = source.read(since="ms:5")
        taken(reading)
        assert reading.watermark == "ms:5"

    def test_a_watermark_of_another_kind_means_all(self, opened: Open) -> None:
        source, server = opened(lambda request: request.give([]), self.MORE)
        assert source.read(since="version:5").whole
        taken(source.read(since="version:5"))
        assert server.requests[0].query == {}

    def test_versions(self, opened: Open) -> None:
        more = 'version_field = "v"\nsince_parameter = "after"'
        source, server = opened(lambda request: request.give([{"id": "a", "v": 12}]), more)
        reading = source.read(since="version:7")
        taken(reading)
        assert (reading.watermark, server.requests[0].query) == ("version:12", {"after": ["7"]})

    def test_by_ids_all_of_an_object_is_read(self, opened: Open) -> None:
        source, server = opened(lambda request: request.give([]), self.MORE + 'ids_parameter = "ids"')
        assert source.read(["a"], "ms:5").whole
        taken(source.read(["a"], "ms:5"))
        assert server.requests[0].query == {"ids": ["a"]}


class TestSecrets:
    def test_the_token_and_headers_are_sent_and_never_shown(
        self, opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("TENANT_KEY", "key-s3cret")
        (tmp_path / "token").write_text("t0ken-s3cret\n")
        more = 'bearer_token_file = "token"\n[user.headers]\nX-Key = "k ${TENANT_KEY}"'
        source, server = opened(lambda request: request.give(b"", 401), more, "/users?key=${TENANT_KEY}")
        code, message = failure(source)
        assert code == "SOURCE_REFUSED"
        assert message == f"page 1: {server.url} answers 401"
        [request] = server.requests
        assert request.headers["Authorization"] == "Bearer t0ken-s3cret"
        assert request.headers["X-Key"] == "k key-s3cret"
        assert request.query == {"key": ["key-s3cret"]}
        assert "s3cret" not in repr(vars(source))

    def test_no_log_shows_them(
        self, opened: Open, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("TENANT_KEY", "key-s3cret")
        handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
        try:
            configure_logs(Settings(log_level="debug"), "test")
            more = 'bearer_token = "t-s3cret"\ntries = 2'
            source, server = opened(
                lambda request: request.give(b"", 503, Link="</s3cret>"), more, "/${TENANT_KEY}?key=${TENANT_KEY}"
            )
            failure(source)
        finally:
            logging.getLogger().handlers[:] = handlers
            logging.getLogger().setLevel(level)
        said = capsys.readouterr().err
        assert 'HTTP Request: GET http://127.0.0.1 "HTTP/1.1 503' in said
        assert f"{server.url} answers 503" in said
        assert "s3cret" not in said


class TestRetries:
    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    def test_what_may_pass_is_tried_again(self, opened: Open, status: int) -> None:
        def answer(request: Request) -> None:
            request.give(USERS, 200 if len(request.server.requests) == 3 else status)

        source, server = opened(answer)
        assert read(source) == NAMED
        assert len(server.requests) == 3

    def test_so_often(self, opened: Open) -> None:
        source, server = opened(lambda request: request.give(b"", 503), "tries = 3")
        assert failure(source) == ("SOURCE_UNAVAILABLE", f"page 1: {server.url} answers 503, 3 times")
        assert len(server.requests) == 3

    @pytest.mark.parametrize(
        ("status", "code"),
        [(500, "SOURCE_UNAVAILABLE"), (501, "SOURCE_UNAVAILABLE"), (404, "SOURCE_REFUSED"), (204, "SOURCE_REFUSED")],
    )
    def test_other_statuses_are_not(self, opened: Open, status: int, code: str) -> None:
        source, server = opened(lambda request: request.give(b"", status))
        assert failure(source) == (code, f"page 1: {server.url} answers {status}")
        assert len(server.requests) == 1

    def test_retry_after_is_waited_for(self, opened: Open) -> None:
        def answer(request: Request) -> None:
            if len(request.server.requests) == 1:
                request.give(b"", 429, Retry_After="1")
            else:
                request.give(USERS)

        source, _ = opened(answer)
        began = time.monotonic()
        assert read(source) == NAMED
        assert time.monotonic() - began >= 1

    def test_a_retry_after_beyond_the_reads_time_is_not(self, opened: Open) -> None:
        source, _ = opened(lambda request: request.give(b"", 429, Retry_After="500"), "read_timeout_ms = 60000")
        began = time.monotonic()
        code, message = failure(source)
        assert (code, "500 s" in message) == ("SOURCE_UNAVAILABLE", True)
        assert time.monotonic() - began < 10

    def test_half_a_body_is_tried_again(self, opened: Open) -> None:
        def answer(request: Request) -> None:
            if len(request.server.requests) == 1:
                request.begin(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + json.dumps(USERS).encode()[:40])
            else:
                request.give(USERS)

        assert read(opened(answer)[0]) == NAMED

    def test_nobody_there(self, tmp_path: Path) -> None:
        with socket.socket() as taken_port:
            taken_port.bind(("127.0.0.1", 0))  # bound and not listening: refused
            url = f"http://127.0.0.1:{taken_port.getsockname()[1]}"
            table = f'[user]\nkind = "http"\nurl = "{url}"\nretry_wait_ms = 1\ntries = 2'
            code, message = failure(configure(tmp_path, table)[DimensionType.USER])
        assert code == "SOURCE_UNAVAILABLE"
        assert f"{url} cannot be reached" in message
        assert "2 times" in message


@pytest.mark.parametrize(
    ("name", "value"), [("HTTPS_PROXY", "nonsense://x"), ("SSL_CERT_FILE", "/no/such/file"), ("NO_PROXY", "*")]
)
def test_an_environment_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    table = f'[user]\nkind = "http"\nurl = "https://{"x" * 70}.invalid/"\ntries = 1'
    code, message = failure(configure(tmp_path, table)[DimensionType.USER])
    if name == "NO_PROXY":  # nothing is wrong with it, but with the host's name
        assert code == "SOURCE_UNAVAILABLE"
    else:
        assert (code, "the HTTP client cannot be made" in message) == ("SOURCE_CONFIG", True)


def raw(data: bytes) -> Answer:
    return lambda request: request.begin(data)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def endless(request: Request) -> None:
    request.begin(HEAD + b"\r\n[")
    while True:
        request.wfile.write(b'{"id":"a"},' * 1000)


def dripping(request: Request) -> None:
    request.begin(HEAD + b"\r\n[")
    for _ in range(200):
        request.wfile.write(b" ")
        time.sleep(0.05)


def dripping_head(request: Request) -> None:
    request.begin(HEAD)
    for _ in range(200):
        request.wfile.write(b"X")
        time.sleep(0.05)


def silent(request: Request) -> None:
    time.sleep(3)
    request.close_connection = True


@pytest.mark.parametrize(
    ("answer", "more", "code", "words"),
    [
        (lambda r: r.give(b"<html>hello</html>", Content_Type="text/html"), "", "SOURCE_UNREADABLE", "HTML or XML"),
        (lambda r: r.give(b"<html>\n</html>"), 'format = "jsonl"', "SOURCE_UNREADABLE", "HTML or XML"),
        (lambda r: r.give(b""), "", "SOURCE_UNREADABLE", "it is empty"),
        (lambda r: r.give(b'{"rows":[],"n":NaN}'), 'rows = "/rows"', "SOURCE_UNREADABLE", "is not JSON"),
        (lambda r: r.give(b"[1,2]x"), "", "SOURCE_UNREADABLE", "is not JSON"),
        (lambda r: r.give({"users": [], "b": 1}), "", "SOURCE_UNREADABLE", "as the body; the body has users, b"),
        (lambda r: r.give({"users": {}}), 'rows = "/users"', "SOURCE_UNREADABLE", "no list at /users"),
        (lambda r: r.give({"users": []}), 'rows = "/users/0/x"', "SOURCE_UNREADABLE", "no list at /users/0/x"),
        (lambda r: r.give(b'[{"id":"a"},{"id"'), "", "SOURCE_CUT", "half way"),
        (lambda r: r.give(gzip.compress(json.dumps(USERS).encode())[:-5]), "", "SOURCE_CUT", "cut short"),
        (lambda r: r.give(b'{"id":"a"}\n{"id"'), 'format = "jsonl"', "SOURCE_CUT", "line 2: the body ends in half"),
        (raw(HEAD + b"Content-Length: 99\r\n\r\n[{}"), "tries = 2", "SOURCE_CUT", "no whole answer"),
        (raw(HEAD + b'Content-Length: 99\r\n\r\n{"id":"a"}\n'), 'format = "jsonl"', "SOURCE_CUT", "no whole answer"),
        (raw(HEAD + b'Transfer-Encoding: chunked\r\n\r\n4\r\n[{}]\r\n'), "tries = 1", "SOURCE_CUT", "no whole answer"),
        (raw(HEAD + b'\r\n{"id":"a"}\n'), 'format = "jsonl"', "SOURCE_CUT", "nor where it ends"),
        (raw(b"SSH-2.0-nothing\r\n"), "tries = 1", "SOURCE_CUT", "no whole answer"),
        (lambda r: r.give(b"x", Content_Encoding="br"), "", "SOURCE_UNREADABLE", "encoded as 'br'"),
        (endless, "max_page_bytes = 100000", "SOURCE_TOO_LARGE", "max_page_bytes, which is 100000"),
        (endless, "max_bytes = 100000", "SOURCE_TOO_LARGE", "max_bytes, which is 100000"),
        (lambda r: r.give(gzip.compress(b" " * 9_000_000)), "max_bytes = 100000", "SOURCE_TOO_LARGE", "max_bytes"),
        (dripping, "request_timeout_ms = 300", "SOURCE_TIMEOUT", "request_timeout_ms, which is 300"),
        (dripping_head, "request_timeout_ms = 300", "SOURCE_TIMEOUT", "request_timeout_ms, which is 300"),
        (silent, "request_timeout_ms = 300", "SOURCE_TIMEOUT", "request_timeout_ms, which is 300"),
        (silent, "read_timeout_ms = 300", "SOURCE_TIMEOUT", "read_timeout_ms, which is 300"),
        (lambda r: r.give(b"", 503), "read_timeout_ms = 300\ntries = 20", "SOURCE_TIMEOUT", "read_timeout_ms"),
        (lambda r: r.give(b"", 302, Location="http://h:1/l?token=x"), "", "SOURCE_REDIRECTED", "redirect to http://h:1:"),
        (lambda r: r.give(b"", 301, Location="http://[::"), "", "SOURCE_CUT", "no whole answer"),
        (
            lambda r: r.give({"rows": USERS, "next": "http://elsewhere.example/x?y"}),
            'rows = "/rows"\npaging = {style = "next_url", pointer = "/next"}',
            "SOURCE_REDIRECTED",
            "elsewhere, at http://elsewhere.example",
        ),
        (
            lambda r: r.give({"rows": USERS, "next": "http://127.0.0.1:99999999/\n"}),
            'rows = "/rows"\npaging = {style = "next_url", pointer = "/next"}',
            "SOURCE_UNREADABLE",
            "address is none",
        ),
        (
            lambda r: r.give({"rows": USERS, "next": ["x"]}),
            'rows = "/rows"\npaging = {style = "next_url", pointer = "/next"}',
            "SOURCE_UNREADABLE",
            "/next is neither a text nor an integer",
        ),
        (
            lambda r: r.give(USERS, Link='</users>; rel="next"'),
            'paging = {style = "link_header"}',
            "SOURCE_LOOPS",
            "page 2: its address or cursor came before",
        ),
        (
            lambda r: r.give({"rows": [{"id": str(len(r.server.requests))}], "next": "c"}),
            'rows = "/rows"\npaging = {style = "cursor", pointer = "/next", parameter = "after"}',
            "SOURCE_LOOPS",
            "came before",
        ),
        (
            lambda r: r.give(USERS),
            'paging = {style = "page", parameter = "page"}',
            "SOURCE_LOOPS",
            "page 2: the same as the page before",
        ),
        (
            lambda r: r.give([{"id": "a", "n": len(r.server.requests)}]),
            'max_pages = 5\npaging = {style = "page", parameter = "page"}',
            "SOURCE_TOO_LARGE",
            "max_pages, which is 5",
        ),
    ],
)  # fmt: skip
def test_what_is_no_answer(opened: Open, answer: Any, more: str, code: str, words: str) -> None:
    source, _ = opened(answer, more)
    began = time.monotonic()
    found, message = failure(source)
    assert found == code
    assert words in message
    assert time.monotonic() - began < 3  # `silent` and those that drip go on for longer


@pytest.mark.parametrize("format_", ["json", "jsonl"])
@pytest.mark.filterwarnings("error")
def test_a_read_that_is_left_half_way_closes_its_connection(opened: Open, format_: str) -> None:
    def answer(request: Request) -> None:
        if format_ == "json":
            request.give([{"id": request.query["page"][0]}])
        else:
            request.begin(HEAD + b"Content-Length: 1000000000\r\n\r\n")
            with suppress(OSError):
                while True:
                    request.wfile.write(b'{"id":"a"}\n' * 1000)
        closed.append(True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()  # what other tests left open
    closed: list[bool] = []
    source, _ = opened(answer, f'format = "{format_}"\npaging = {{style = "page", parameter = "page"}}')
    reading = source.read()
    assert next(iter(reading))
    reading.close()
    gc.collect()  # what was left open would warn
    wait_until("the connection is closed", lambda: closed == [True], 10)


async def test_it_can_be_staged_beside_an_event_loop(opened: Open, tmp_path: Path) -> None:
    source, _ = opened(pages_by_link, 'paging = {style = "link_header"}')
    with await asyncio.to_thread(stage, source, Settings(home=tmp_path / "home")) as staged:
        assert staged.rows == len(USERS)


def test_a_source_that_fails_on_its_last_page_fails(opened: Open) -> None:
    def answer(request: Request) -> None:
        if "at" in request.query:
            request.give(b"", 500)
        else:
            pages_by_link(request)

    assert failure(opened(answer, 'paging = {style = "link_header"}')[0])[1].startswith("page 2:")
