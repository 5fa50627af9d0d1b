import re
from types import SimpleNamespace
from typing import Any

import orjson
import pyarrow as pa
import pytest

from midstream.dimensions import Dimension, DimensionType, InternalType, decode_dimension, encode_dimension
from midstream.erased import ErasedKey, erased_row, pseudonym
from midstream.metrics import ERASED_DIGESTS_HELD, ERASED_IDS
from processors.store import erased as module
from processors.store.block import read_block
from processors.store.denormalise import denormalise
from processors.store.dimension_cache import Entry
from processors.store.dimensions import decode_rows, dimension_rows
from processors.store.erased import ErasedError, ErasedUsers, replace_erased, replace_in_reject
from tests.unit.store.rows import event, sealed

KEY = ErasedKey(b"k" * 32)
LONG = "user-00017-9f8e"


def erased_users(*ids: str, max_ids: int = 100) -> ErasedUsers:
    users = ErasedUsers(lambda: KEY, max_ids)
    users.add(KEY.digest("user", id_) for id_ in ids)
    return users


def name(id_: str) -> str:
    return pseudonym(KEY.digest("user", id_))


def block_of(*events: dict[str, Any]) -> pa.RecordBatch:
    return read_block(sealed([(value, "b", index) for index, value in enumerate(events)]))[0]


def test_rows_of_erased_users_do_not_come_back_from_kafka() -> None:
    users = erased_users("ann")
    rows = [Dimension(type_, id_, "{}", 1, False, 1) for type_ in DimensionType for id_ in ("ann", "bob")]
    records: list[Any] = [SimpleNamespace(value=encode_dimension(row)) for row in rows]
    records.append(SimpleNamespace(value=None))
    found = dimension_rows(decode_rows(records), users, lambda: 7).to_pylist()
    assert [(row["type"], row["id"]) for row in found] == [
        (row.type, row.id) for row in rows if (row.type, row.id) != ("user", "ann")
    ]


def test_a_digest_is_24_digits_that_depend_on_key_type_and_id() -> None:
    digests = {
        KEY.digest("user", "u1"),
        KEY.digest("device", "u1"),
        KEY.digest("user", "u2"),
        ErasedKey(b"other").digest("user", "u1"),
    }
    assert len(digests) == 4
    assert all(re.fullmatch(r"[0-9a-f]{24}", digest) for digest in digests)
    # echo -n with a NUL between, openssl dgst -sha256 -hmac
    assert ErasedKey(b"key").digest("user", "u1") == "71482902bfc288f8c02970f7"


def test_a_row_of_the_topic_tells_of_it_and_is_no_type_that_is_pushed() -> None:
    row = erased_row(KEY.digest("user", "u1"), 5)
    assert decode_dimension(encode_dimension(row)) == row
    assert row.type is InternalType.ERASED
    assert (row.attributes, row.deleted, row.updated_at_ms) == ("{}", False, 5)
    assert "erased" not in [*DimensionType]


def test_nothing_is_touched_where_nobody_was_erased() -> None:
    block = block_of(event("a"))
    assert replace_erased(block, ErasedUsers(lambda: None, 0)) is block
    assert replace_erased(block, erased_users("u2")) is block


def test_every_column_of_an_erased_users_event_is_without_the_id() -> None:
    value = event(
        "a",
        actor={"id": LONG, "type": "User"},
        context={
            "channel": "c1",
            "env": "home",
            "did": f"web-{LONG}",
            "sid": LONG,
            "cdata": [{"type": "User", "id": LONG}],
            "rollup": {"l1": LONG},
        },
        object={"id": LONG, "type": "user", "rollup": {"l1": LONG}},
        tags=[LONG, "t"],
        edata={"type": "t", "id": f"profile/{LONG}", "pageid": LONG, "duration": 1.0},
    )
    other = event("b")
    before = block_of(value, other)
    after = replace_erased(before, erased_users(LONG))
    assert after.schema == before.schema
    assert after.slice(1).equals(before.slice(1))
    (row,) = after.slice(0, 1).to_pylist()
    assert row["actor_id"] == row["object_id"] == row["sid"] == name(LONG)
    assert row["tags"] == [name(LONG), "t"]
    assert LONG not in str(row)
    raw = orjson.loads(row["raw"])
    assert raw == orjson.loads(orjson.dumps(value).replace(LONG.encode(), name(LONG).encode()))
    assert orjson.loads(row["cdata"]) == raw["context"]["cdata"]
    assert orjson.loads(row["edata"]) == raw["edata"]
    assert row["content_hash"] == before.column("content_hash")[0].as_py()
    assert (row["mid"], row["mid_hash"]) == ("a", before.column("mid_hash")[0].as_py())


def test_a_short_id_is_replaced_where_it_is_the_user_alone() -> None:
    value = event("a", actor={"id": "u1", "type": "User"}, edata={"type": "u1", "id": "u1"}, tags=["u1"])
    (row,) = replace_erased(block_of(value), erased_users("u1")).to_pylist()
    assert row["actor_id"] == name("u1")
    assert (row["edata_id"], row["tags"], row["did"]) == ("u1", ["u1"], "d1")
    assert orjson.loads(row["raw"])["actor"]["id"] == name("u1")


def test_an_erased_user_who_is_the_object_is_replaced_and_one_who_only_has_the_name_of_a_content_is_not() -> None:
    seen = event("a", object={"id": "u9", "type": "User"})
    content = event("b", object={"id": "u9", "type": "Content"})
    rows = replace_erased(block_of(seen, content), erased_users("u9")).to_pylist()
    assert [row["object_id"] for row in rows] == [name("u9"), "u9"]
    assert orjson.loads(rows[0]["raw"])["object"]["id"] == name("u9")
    assert [row["actor_id"] for row in rows] == ["u1", "u1"]


def test_two_erased_users_of_one_event_are_both_replaced() -> None:
    value = event("a", actor={"id": LONG, "type": "System"}, object={"id": "someone-else", "type": "User"})
    (row,) = replace_erased(block_of(value), erased_users(LONG, "someone-else")).to_pylist()
    assert (row["actor_id"], row["object_id"]) == (name(LONG), name("someone-else"))
    assert LONG not in row["raw"]
    assert "someone-else" not in row["raw"]


def test_many_rows_keep_their_order() -> None:
    events = [event(f"m{n}", actor={"id": f"u{n % 7}", "type": "User"}) for n in range(50)]
    rows = replace_erased(block_of(*events), erased_users("u3", "u5")).to_pylist()
    expected = [f"u{n % 7}" if n % 7 not in (3, 5) else name(f"u{n % 7}") for n in range(50)]
    assert [row["actor_id"] for row in rows] == expected
    assert [orjson.loads(row["raw"])["actor"]["id"] for row in rows] == expected
    assert [row["mid"] for row in rows] == [f"m{n}" for n in range(50)]


def test_a_user_who_was_erased_is_missing_beside_the_event() -> None:
    class Rows:
        def get(self, wanted: Any) -> list[list[Entry]]:
            return [[Entry("" if id_ == name("u1") else "{}", 1) for id_ in ids] for _, ids in wanted]

    columns = denormalise(replace_erased(block_of(event("a")), erased_users("u1")), Rows())
    assert columns[0].to_pylist() == [""]
    assert orjson.loads(columns[7][0].as_py()) == {"user": "missing", "device": "found"}


def test_digests_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_DIGESTS", 10)
    users = erased_users("u3")
    for _ in range(2):
        assert users.find(f"u{n}" for n in range(100)) == {"u3": name("u3")}
        assert len(users._digests) == 10
    assert ERASED_DIGESTS_HELD._value.get() == 10
    users.add([KEY.digest("user", "u99")])  # remembered as one who was not
    assert users.find(["u99"]) == {"u99": name("u99")}
    assert ERASED_IDS._value.get() == 2


def test_without_a_key_nothing_may_be_stored_once_somebody_was_erased() -> None:
    users = ErasedUsers(lambda: None, 10)
    users.add([])
    assert not users.is_anybody
    with pytest.raises(ErasedError, match=r"registry\.key"):
        users.add(["0" * 24])


def test_more_than_a_worker_holds_ends_it_with_the_setting_to_raise() -> None:
    with pytest.raises(ErasedError, match="MIDSTREAM_MAX_ERASED_IDS"):
        erased_users("a", "b", "c", max_ids=2)


def reject(raw: bytes, **fields: str) -> dict[str, Any]:
    return {"raw": raw, "did": "", "channel": "", "pointer": "", "message": "", "mid": "m", "eid": "X", **fields}


@pytest.mark.parametrize(
    "raw",
    [
        orjson.dumps(event("a", actor={"id": LONG, "type": "User"})),
        orjson.dumps({"events": [event("a"), event("b", actor={"type": "User", "id": LONG}, edata={"of": LONG})]}),
        b'{"actor": {"type":"User", "id" : "user-00017-9f8e"}, "edata": NaN, "of": user-00017-9f8e',
        b'{"actor":{"id":"user-00017-9f8\\u0065"},"x":"user-00017-9f8e"}',
    ],
)
def test_a_refused_text_is_kept_without_the_id(raw: bytes) -> None:
    row = replace_in_reject(reject(raw, message=f"'{LONG}' is wrong", did=f"d-{LONG}"), erased_users(LONG))
    assert LONG.encode() not in row["raw"]
    assert name(LONG).encode() in row["raw"]
    assert (row["message"], row["did"]) == (f"'{name(LONG)}' is wrong", f"d-{name(LONG)}")


def test_a_short_id_in_the_message_of_a_refusal_is_replaced_where_it_is_quoted() -> None:
    raw = orjson.dumps(event("a"))
    row = replace_in_reject(reject(raw, message="'u1' is not of type 'integer', u1"), erased_users("u1"))
    assert row["message"] == f"'{name('u1')}' is not of type 'integer', u1"
    assert orjson.loads(row["raw"])["actor"]["id"] == name("u1")


@pytest.mark.parametrize("raw", [b"", b"\xff\x00", b'{"actor":{"id":', b'{"actor":{"id":"\\q"}}', b'{"actor":"u1"}'])
def test_a_refused_text_that_names_nobody_stays(raw: bytes) -> None:
    row = reject(raw)
    assert replace_in_reject(row, erased_users("u1")) == row
