import orjson
import pytest

from bench.mix import batches
from midstream.events.judge import Accepted, Judge
from midstream.events.schemas import load_schemas


def test_the_same_arguments_give_the_same_bytes() -> None:
    assert [b.body for b in batches(7, 200, 20, 5)] == [b.body for b in batches(7, 200, 20, 5)]


@pytest.mark.parametrize("size", [20, 200])
def test_what_a_batch_says_of_itself_is_what_the_judge_and_its_mids_say(size: int) -> None:
    judge = Judge(load_schemas(None), 1 << 19, 64)
    seen: set[str] = set()
    for batch in batches(1, 4_000, size, 1_790_000_000_000):
        events = orjson.loads(batch.body)["events"]
        fresh = resent = invalid = 0
        for event in events:
            if not isinstance(judge.judge(orjson.dumps(event)), Accepted):
                invalid += 1
            elif event["mid"] in seen:
                resent += 1
            else:
                seen.add(event["mid"])
                fresh += 1
        assert (len(events), fresh, resent, invalid) == (batch.events, batch.fresh, batch.resent, batch.invalid)


def test_the_mix_is_the_one_that_is_stated() -> None:
    texts = [e for b in batches(2, 20_000, 20, 1_790_000_000_000) for e in orjson.loads(b.body)["events"]]
    share = {eid: sum(e["eid"] == eid for e in texts) / len(texts) for eid in ("INTERACT", "IMPRESSION", "LOG")}
    assert share["INTERACT"] == pytest.approx(0.45, abs=0.02)
    assert share["IMPRESSION"] == pytest.approx(0.25, abs=0.02)
    assert share["LOG"] == pytest.approx(0.10, abs=0.02)
    sizes = [len(orjson.dumps(e)) for e in texts]
    assert sum(sizes) / len(sizes) == pytest.approx(750, abs=80)
