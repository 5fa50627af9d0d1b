from collections.abc import Sequence
from itertools import product

import orjson
import pyarrow as pa

from processors.store.block import read_block
from processors.store.denormalise import COLUMNS, denormalise
from processors.store.dimension_cache import Entry, derive_location
from tests.unit.store.rows import event, sealed

USER = '{"state":"Kerala","district":"Idukki"}'
DEVICE = '{"userDeclaredLocation":{"state":"Goa","district":"North Goa"}}'


class Rows:
    """Holds rows; those of ``stale`` have a newer version that is not there yet."""

    def __init__(self, rows: dict[tuple[str, str], str], stale: frozenset[tuple[str, str]] = frozenset()) -> None:
        self.rows = rows
        self.stale = stale
        self.asked: list[tuple[str, str]] = []
        self.times = 0

    def get(self, wanted: Sequence[tuple[str, Sequence[str]]]) -> list[list[Entry]]:
        self.times += 1
        self.asked += [(type_, id_) for type_, ids in wanted for id_ in ids]
        return [[self.entry(type_, id_) for id_ in ids] for type_, ids in wanted]

    def entry(self, type_: str, id_: str) -> Entry:
        text = self.rows.get((type_, id_), "")
        return Entry(text, 1, derive_location(type_, text), is_stale=(type_, id_) in self.stale)


def denormalised(
    events: list[dict], rows: dict[tuple[str, str], str], stale: frozenset[tuple[str, str]] = frozenset()
) -> tuple[list[dict], Rows]:
    lookup = Rows(rows, stale)
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
    assert lookup.times == 1


def test_rows_of_mixed_users_keep_their_own() -> None:
    rows, _ = denormalised(
        [event(f"m{n}", actor={"id": f"u{n % 3}", "type": "User"}) for n in range(10)],
        {("user", f"u{n}"): f'{{"n":{n}}}' for n in range(3)},
    )
    assert [orjson.loads(row["user"])["n"] for row in rows] == [n % 3 for n in range(10)]


COURSE = event(
    "a",
    object={"id": "do_1", "type": "Content", "rollup": {"l1": "do_course", "l2": "do_unit"}},
    context={
        "channel": "c1",
        "env": "home",
        "did": "d1",
        "rollup": {"l1": "org-1"},
        "cdata": [{"type": "Session", "id": "s"}, {"type": "CourseBatch", "id": "b-1"}],
    },
)
KEYS = (
    ("user", "u1"), ("device", "d1"), ("content", "do_1"), ("content", "do_course"), ("organisation", "org-1"),
    ("batch", "b-1"),
)  # fmt: skip


def test_collection_organisation_and_batch_stand_beside_it_with_their_ids() -> None:
    (row,), _ = denormalised([COURSE], {key: f'{{"of":"{key[1]}"}}' for key in KEYS})
    assert [orjson.loads(row[name])["of"] for name in COLUMNS[:6]] == [id_ for _, id_ in KEYS]
    assert (row["collection_id"], row["organisation_id"], row["course_batch_id"]) == ("do_course", "org-1", "b-1")
    assert orjson.loads(row["flags"]) == dict.fromkeys(COLUMNS[:6], "found")


def test_every_combination_of_flags_is_told_in_one_order() -> None:
    names = COLUMNS[:6]
    for states in product(("found", "missing", "stale"), repeat=len(KEYS)):
        rows = {key: "{}" for key, state in zip(KEYS, states, strict=True) if state != "missing"}
        stale = frozenset(key for key, state in zip(KEYS, states, strict=True) if state == "stale")
        (row,), _ = denormalised([COURSE], rows, stale)
        assert list(orjson.loads(row["flags"]).items()) == list(zip(names, states, strict=True))


def test_what_is_deleted_while_a_newer_row_is_on_its_way_is_missing() -> None:
    (row,), _ = denormalised([event("a")], {}, frozenset({("user", "u1")}))
    assert orjson.loads(row["flags"])["user"] == "missing"


def test_a_collection_that_is_the_content_of_another_event_has_its_row() -> None:
    inside = event("a", object={"id": "do_1", "rollup": {"l1": "do_2"}})
    rows, lookup = denormalised(
        [inside, event("b", object={"id": "do_2", "rollup": {"l1": "do_2"}}), event("c", object={"id": "do_3"})],
        {("content", f"do_{n}"): f'{{"n":{n}}}' for n in (1, 2, 3)},
    )
    assert [(row["content"], row["collection"]) for row in rows] == [
        ('{"n":1}', '{"n":2}'),
        ('{"n":2}', ""),
        ('{"n":3}', ""),
    ]
    assert [orjson.loads(row["flags"]).get("collection") for row in rows] == ["found", None, None]
    assert [row["collection_id"] for row in rows] == ["do_2", "", ""]
    assert lookup.times == 1


def test_columns_have_the_types_of_the_table() -> None:
    block = read_block(sealed([(COURSE, "b", 0)]))[0]
    types = {column.type for column in denormalise(block, Rows({}))}
    assert {one.value_type if pa.types.is_dictionary(one) else one for one in types} == {pa.string()}
    assert {len(column) for column in denormalise(block.slice(0, 0), Rows({}))} == {0}
