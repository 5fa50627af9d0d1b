import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.store.references import REFERENCE_COLUMNS, REFERENCES, references


def refer(**columns: str) -> dict[str, str]:
    """Return the ids that one row with these columns refers to, without those that are none."""
    row = dict.fromkeys(REFERENCE_COLUMNS, "") | columns
    batch = pa.RecordBatch.from_pylist([row], schema=pa.schema([(name, pa.string()) for name in REFERENCE_COLUMNS]))
    ids = references(batch)
    assert tuple(ids) == REFERENCES
    return {name: column[0].as_py() for name, column in ids.items() if column[0].as_py()}


@pytest.mark.parametrize(
    "rollup",
    [
        "",
        "null",
        "[]",
        '"l1"',
        "1",
        "{}",
        '{"l1":1}',
        '{"l1":null}',
        '{"l1":["x"]}',
        '{"L1":"x"}',
        '{"l1":""}',
        "{",
        "\\",
    ],
)
def test_a_rollup_of_another_shape_names_nothing(rollup: str) -> None:
    assert refer(object_id="do_1", object_rollup=rollup, context_rollup=rollup) == {"content": "do_1"}


def test_the_first_level_counts() -> None:
    both = '{"l2":"b","l1":"a"}'
    assert refer(object_rollup=both, context_rollup=both) == {"collection": "a", "organisation": "a"}


def test_a_collection_is_not_the_object_itself() -> None:
    assert refer(object_id="a", object_rollup='{"l1":"a"}') == {"content": "a"}


@pytest.mark.parametrize(
    "type_", ["batch", "Batch", "BATCH", "CourseBatch", "coursebatch", "course-batch", "Course_Batch", "course batch"]
)
def test_a_batch_is_known_by_its_type_however_it_is_written(type_: str) -> None:
    cdata = [{"type": "Session", "id": "s"}, {"type": type_, "id": "b-1"}, {"type": "batch", "id": "b-2"}]
    assert refer(cdata=orjson.dumps(cdata).decode()) == {"batch": "b-1"}


@pytest.mark.parametrize(
    "cdata",
    [
        '[{"type":"batches","id":"b"}]',
        '[{"type":"minibatch","id":"b"}]',
        '[{"type":["batch"],"id":"b"}]',
        '[{"type":"batch","id":7}]',
        '[{"type":"batch"}]',
        '{"type":"batch","id":"b"}',
        '["batch"]',
        '"batch"',
        '[{"type":"batch","id":"b"}',
        '[{"type":"Session","id":"batch"}]',
    ],
)
def test_cdata_of_another_shape_names_none(cdata: str) -> None:
    assert refer(cdata=cdata) == {}


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 9)
    | st.text(max_size=8)
    | st.sampled_from(["batch", "l1", "CourseBatch"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["type", "id", "l1"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.lists(_JSON, max_size=12))
def test_any_json_names_an_id_or_none_in_its_own_row(values: list[object]) -> None:
    texts = [orjson.dumps(value).decode() for value in values]
    columns = {name: [""] * len(texts) for name in REFERENCE_COLUMNS}
    columns |= dict.fromkeys(("object_rollup", "context_rollup", "cdata"), texts)
    schema = pa.schema([(name, pa.string()) for name in REFERENCE_COLUMNS])
    ids = references(pa.RecordBatch.from_pydict(columns, schema=schema))
    alone = [refer(object_rollup=text, context_rollup=text, cdata=text) for text in texts]
    for name in REFERENCES:
        assert ids[name].to_pylist() == [one.get(name, "") for one in alone]


def test_a_user_is_one_by_type_alone() -> None:
    assert refer(actor_id="u", actor_type="System", did="d") == {"device": "d"}
    assert refer(actor_id="u", actor_type="User") == {"user": "u"}
