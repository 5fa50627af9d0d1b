import orjson
import pyarrow as pa

from processors.store.block import read_block
from processors.store.denormalise import COLUMNS, denormalise
from processors.store.dimension_cache import Entry, derive_location
from tests.unit.store.rows import event, sealed

USER = '{"state":"Kerala","district":"Idukki"}'
DEVICE = '{"userDeclaredLocation":{"state":"Goa","district":"North Goa"}}'


class Rows:
    def __init__(self, rows: dict[tuple[str, str], str]) -> None:
        self.rows = rows
        self.asked: list[tuple[str, str]] = []

    def get(self, type_: str, ids: list[str]) -> list[Entry]:
        self.asked += [(type_, id_) for id_ in ids]
        texts = [self.rows.get((type_, id_), "") for id_ in ids]
        return [Entry(text, 1, derive_location(type_, text)) for text in texts]


def denormalised(events: list[dict], rows: dict[tuple[str, str], str]) -> tuple[list[dict], Rows]:
    lookup = Rows(rows)
    block = read_block(sealed([(value, "b", index) for index, value in enumerate(events)]))[0]
    columns = denormalise(block, lookup)
    return pa.RecordBatch.from_arrays(columns, names=list(COLUMNS)).to_pylist(), lookup


def test_user_device_and_content_stand_beside_the_event() -> None:
    (row,), _ = denormalised(
        [event("a", object={"id": "do_1"})],
        {("user", "u1"): USER, ("device", "d1"): DEVICE, ("content", "do_1"): '{"name":"Fractions"}'},
    )
    assert (row["user"], row["device"], row["content"]) == (USER, DEVICE, '{"name":"Fractions"}')
    assert orjson.loads(row["location"]) == {"state": "Kerala", "district": "Idukki", "from": "user-profile"}
    assert orjson.loads(row["flags"]) == {"user": "found", "device": "found", "content": "found"}


def test_a_miss_passes_and_is_flagged() -> None:
    (row,), _ = denormalised([event("a")], {})
    assert (row["user"], row["device"], row["content"], row["location"]) == ("", "", "", "")
    assert orjson.loads(row["flags"]) == {"user": "missing", "device": "missing"}


def test_an_actor_who_is_no_user_is_not_looked_up() -> None:
    (row,), lookup = denormalised([event("a", actor={"id": "u1", "type": "System"})], {("user", "u1"): USER})
    assert row["user"] == ""
    assert orjson.loads(row["flags"]) == {"device": "missing"}
    assert ("user", "u1") not in lookup.asked


def test_the_device_of_the_batch_counts_when_the_event_has_none() -> None:
    value = event("a")
    del value["context"]["did"]
    (row,), _ = denormalised([value], {("device", "bd"): DEVICE})
    assert row["device"] == DEVICE


def test_the_location_is_the_users_then_the_declared_then_the_address() -> None:
    by_ip = '{"ipLocation":{"state":"Delhi","district":""}}'
    rows, _ = denormalised(
        [
            event("a"),
            event("b", actor={"id": "u2", "type": "User"}),
            event("c", actor={"id": "", "type": "User"}, context={"channel": "c", "env": "", "did": "d2"}),
        ],
        {("user", "u1"): USER, ("user", "u2"): '{"name":"x"}', ("device", "d1"): DEVICE, ("device", "d2"): by_ip},
    )
    assert [orjson.loads(row["location"])["from"] for row in rows] == ["user-profile", "user-declared", "ip-resolved"]
    assert orjson.loads(rows[2]["location"]) == {"state": "Delhi", "district": "", "from": "ip-resolved"}


def test_each_object_is_looked_up_once_a_block() -> None:
    _, lookup = denormalised([event(f"m{n}") for n in range(100)], {})
    assert sorted(lookup.asked) == [("device", "d1"), ("user", "u1")]


def test_rows_of_mixed_users_keep_their_own() -> None:
    rows, _ = denormalised(
        [event(f"m{n}", actor={"id": f"u{n % 3}", "type": "User"}) for n in range(10)],
        {("user", f"u{n}"): f'{{"n":{n}}}' for n in range(3)},
    )
    assert [orjson.loads(row["user"])["n"] for row in rows] == [n % 3 for n in range(10)]
