"""What was read of a source, staged; and what the source has no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from midstream.dimensions import MAX_VERSION, Dimension, DimensionType, now_ms
from midstream.settings import Settings
from midstream.sources import gone as gone_module
from midstream.sources.errors import SourceCode, SourceError
from midstream.sources.gone import Gone, Known, Seen, tombstone
from midstream.sources.reading import Block, Reading, Refused
from midstream.sources.staging import MAX_REFUSALS, Staged, stage

USER = DimensionType.USER


def row(id_: str, version: int = 1, attributes: str = '{"a":1}', deleted: bool = False) -> Dimension:
    return Dimension(USER, id_, attributes, version, deleted, 5)


def refused(id_: str | None) -> Refused:
    return Refused("line 1", "INVALID_ROW", "why", id_)


def live(*known: tuple[str, int]) -> list[Known]:
    return [Known(id_, version, False) for id_, version in known]


class Given:
    """A source that gives these blocks, and then perhaps an error."""

    type = USER
    incremental = True

    def __init__(self, blocks: Sequence[Block], error: Exception | None = None) -> None:
        self.blocks = blocks
        self.error = error
        self.closed = 0

    def read(self, ids: Sequence[str] | None = None, since: str | None = None) -> Reading:
        return Reading(self._read(), since is None, lambda: "version:9")

    def _read(self) -> Iterator[Block]:
        try:
            yield from self.blocks
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def held(path: Path) -> int:
    """Return how many files of a folder this process has open."""
    links = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
    return sum(os.readlink(link).startswith(str(path)) for link in links if link.is_symlink())


def all_rows(staged: Staged) -> list[Dimension]:
    return [one for block in staged.blocks() for one in block]


def test_rows_come_back_as_they_came_any_number_of_times(settings: Settings) -> None:
    rows = [row("é" * 512, MAX_VERSION), row("b", 0, '{"x":"' + "y" * 1_000_000 + '"}'), row("c", 3, "{}", True)]
    with stage(Given([[rows[0], refused("r")], [], rows[1:]]), settings) as staged:
        assert all_rows(staged) == rows
        assert all_rows(staged) == rows
        assert (staged.rows, staged.refused, staged.refusals) == (3, 1, [refused("r")])
        assert (staged.whole, staged.watermark) == (True, "version:9")


def test_rows_come_back_in_blocks(settings: Settings) -> None:
    rows = [row(f"u-{number}") for number in range(2500)]
    with stage(Given([rows]), settings) as staged:
        assert [len(block) for block in staged.blocks()] == [1000, 1000, 500]
    large = [row(f"u-{number}", attributes=json.dumps({"x": "y" * 600_000})) for number in range(5)]
    with stage(Given([large]), settings) as staged:
        assert [len(block) for block in staged.blocks()] == [2, 2, 1]


def test_only_the_first_refusals_are_kept(settings: Settings) -> None:
    with stage(Given([[refused(str(number)) for number in range(MAX_REFUSALS + 5)]]), settings) as staged:
        assert (staged.refused, len(staged.refusals), staged.refusals[0].id) == (MAX_REFUSALS + 5, MAX_REFUSALS, "0")


def test_nothing_is_left_on_the_disk(settings: Settings) -> None:
    with stage(Given([[row("a")]]), settings):
        assert held(settings.home) == 1
        assert list(settings.home.iterdir()) == []
    assert held(settings.home) == 0


def test_a_source_that_fails_half_way_leaves_nothing(settings: Settings) -> None:
    source = Given([[row("a")]], SourceError(SourceCode.SOURCE_CUT, "half"))
    with pytest.raises(SourceError, match="half"):
        stage(source, settings)
    assert (held(settings.home), source.closed) == (0, 1)


def test_whoever_watches_can_end_it(settings: Settings) -> None:
    source = Given([[row("a"), refused("r")], [row("b")]])
    seen: list[int] = []

    def watch(rows: int) -> None:
        seen.append(rows)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(source, settings, progress=watch)
    assert (seen, held(settings.home), source.closed) == ([2], 0, 1)


def test_a_process_that_is_killed_leaves_nothing(settings: Settings) -> None:
    code = """if True:
        import os, sys
        from pathlib import Path
        from midstream.settings import Settings
        from tests.unit.sources.test_staging import Given, row, stage
        staged = stage(Given([[row("a" * 1000)] * 1000]), Settings(home=Path(sys.argv[1])))
        print(os.fstat(staged._file.fileno()).st_size, flush=True)
        os.kill(os.getpid(), 9)
    """
    result = subprocess.run([sys.executable, "-c", code, str(settings.home)], capture_output=True, text=True)
    assert result.returncode == -9, result.stderr
    assert int(result.stdout) > 1_000_000
    assert list(settings.home.iterdir()) == []


@pytest.mark.parametrize(
    ("limits", "blocks", "words"),
    [
        ({"sync_staging_rows": 1000}, [[row("a")] * 600, [refused("b")] * 401], "more rows than MIDSTREAM_SYNC"),
        ({"sync_staging_bytes": 1024**2}, [[row("a" * 1000)] * 1100], "more bytes than MIDSTREAM_SYNC"),
    ],
)  # fmt: skip
def test_what_is_too_large_is_refused(tmp_path: Path, limits: dict[str, int], blocks: list[Block], words: str) -> None:
    with pytest.raises(SourceError, match=words) as raised:
        stage(Given(blocks), Settings(home=tmp_path, **limits))
    assert raised.value.code == "SOURCE_TOO_LARGE"
    assert held(tmp_path) == 0


def test_a_disk_that_is_full(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: full.open("w+b", buffering=1024 * 1024))
    with pytest.raises(SourceError, match="No space left on device") as raised:
        stage(Given([[row("a")]]), settings)
    assert raised.value.code == "STAGING_FAILED"


def test_a_home_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(SourceError) as raised:
        stage(Given([]), Settings(home=tmp_path / "home"))
    assert raised.value.code == "STAGING_FAILED"


def test_rows_are_counted(settings: Settings) -> None:
    def counted(outcome: str) -> float:
        return REGISTRY.get_sample_value("midstream_source_rows_total", {"type": "user", "outcome": outcome}) or 0

    before = (counted("taken"), counted("refused"))
    stage(Given([[row("a"), refused("b"), row("c")]]), settings).close()
    assert (counted("taken"), counted("refused")) == (before[0] + 2, before[1] + 1)


class TestGone:
    def test_what_did_not_come_is_gone(self, settings: Settings) -> None:
        future = now_ms() + 10**9
        past = 1_600_000_000_000
        known = [*live(("a", past), ("b", past), ("c", future), ("r", past), ("d", past + 9)), Known("e", 1, True)]
        with stage(Given([[row("a", past + 5), row("d", past + 8), refused("r")]]), settings) as staged:
            before = now_ms()
            compared = staged.compare(iter(known), 0.5)
            assert (compared.known, compared.tombstones, compared.withheld, compared.older) == (5, 2, 0, 1)
            b, c = all_rows(staged)[2:]
        assert (b.id, b.deleted, b.attributes) == ("b", True, "{}")
        assert before <= b.version <= now_ms()
        assert (c.id, c.deleted, c.version) == ("c", True, future + 1)

    def test_by_ids_those_that_did_not_come_are_gone_however_many(self, settings: Settings) -> None:
        source = Given([[row("a"), refused("r")]])
        with stage(source, settings, ["a", "b", "r", "never"]) as staged:
            assert staged.answers() == {"a": True, "b": False, "r": False, "never": False}
            compared = staged.compare(live(("a", 1), ("b", 2), ("r", 3)), 1.0)
            assert (compared.known, compared.tombstones) == (3, 1)
            assert [one.id for one in all_rows(staged) if one.deleted] == ["b"]

    def test_the_highest_version_says_whether_the_source_has_it(self, settings: Settings) -> None:
        rows = [
            row("a", 2),
            row("a", 1, deleted=True),
            row("b", 2, deleted=True),
            row("b", 1),
            row("c", 1, deleted=True),
        ]
        with stage(Given([rows]), settings, ["a", "b", "c"]) as staged:
            assert staged.answers() == {"a": True, "b": False, "c": False}
            assert staged.compare(live(("a", 1), ("c", 7)), 0).tombstones == 1
            assert [one.version > 7 for one in all_rows(staged)[5:]] == [True]

    @pytest.mark.parametrize(
        ("came", "share", "shrunk"), [(0, 0.0, True), (1, 0.5, True), (2, 0.5, False), (4, 1, False)]
    )
    def test_a_source_that_shrank_is_refused_unless_forced(
        self, settings: Settings, came: int, share: float, shrunk: bool
    ) -> None:
        known = [Known(name, 1, False) for name in "abcd"]
        with stage(Given([[row(name) for name, _, _ in known[:came]]]), settings) as staged:
            if shrunk:
                with pytest.raises(
                    SourceError, match=f"of 4 known objects of type user the source has {came}"
                ) as raised:
                    staged.compare(known, share)
                assert raised.value.code == "SOURCE_SHRUNK"
                assert len(all_rows(staged)) == came
            assert staged.compare(known, share, force=shrunk).tombstones == 4 - came
            assert len(all_rows(staged)) == 4

    def test_other_ids_are_no_part_of_what_is_known(self, settings: Settings) -> None:
        source = Given([[row(f"new-{number}") for number in range(9)]])
        with stage(source, settings) as staged, pytest.raises(SourceError, match="of 2 known"):
            staged.compare(live(("a", 1), ("b", 1)), 0.1)

    def test_nothing_is_known_and_nothing_came(self, settings: Settings) -> None:
        with stage(Given([]), settings) as staged:
            assert staged.compare([], 0.5).known == 0

    def test_a_row_that_could_be_anybodys_withholds_tombstones(self, settings: Settings) -> None:
        with stage(Given([[row("a"), refused(None)]]), settings) as staged:
            compared = staged.compare(live(("a", 1), ("b", 1)), 0.5)
            assert (compared.tombstones, compared.withheld, len(all_rows(staged))) == (0, 1, 1)
            assert staged.compare(live(("a", 1), ("b", 1)), 0.5, force=True).tombstones == 1

    def test_after_a_read_of_changes_nothing_is_gone(self, settings: Settings) -> None:
        with stage(Given([[row("a", 3)]]), settings, since="version:1") as staged:
            assert not staged.whole
            compared = staged.compare([*live(("b", 1), ("c", 1)), Known("a", 3, True)], 0.5)
            assert (compared.tombstones, compared.withheld, compared.restored) == (0, 0, 1)
            assert [(one.id, one.version) for one in all_rows(staged)] == [("a", 4)]

    def test_a_deleted_object_that_comes_again_counts_again(self, settings: Settings) -> None:
        rows = [row("a", 4), row("a", 5), row("b", 9), row("c", 1), row("d", 1, deleted=True), refused("r")]
        known = [
            Known("a", 5, True),
            Known("b", 8, True),
            Known("d", 7, True),
            Known("r", 7, True),
            Known("c", 1, False),
        ]
        with stage(Given([rows]), settings) as staged:
            compared = staged.compare(known, 0.5)
            assert (compared.known, compared.tombstones, compared.restored, compared.older) == (1, 0, 1, 0)
            assert [(one.id, one.version) for one in all_rows(staged)] == [
                ("a", 4),
                ("a", 6),
                ("b", 9),
                ("c", 1),
                ("d", 1),
            ]

    @pytest.mark.parametrize(
        ("known", "expected"),
        [(7, 8), (10**11 - 1, 10**11), (10**11, 2 * 10**12), (2 * 10**12, 2 * 10**12 + 1), (MAX_VERSION, MAX_VERSION)],
    )
    def test_a_tombstone_is_newer_and_a_count_goes_on(self, known: int, expected: int) -> None:
        assert tombstone(USER, "a", known, 2 * 10**12).version == expected

    def test_a_collision_of_hashes_makes_no_wrong_tombstone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Alike:
            @staticmethod
            def xxh3_64_intdigest(data: bytes, _seed: int) -> int:
                return data[0]

        monkeypatch.setattr(gone_module, "xxhash", Alike)
        seen = Seen(0)
        seen.add("ax", 1)
        compared = Gone(USER, seen, 5)
        assert [one.id for one in compared.compare(live(("ax", 1), ("ay", 1), ("b", 1)))] == ["b"]

    @given(
        came=st.lists(st.tuples(st.text(min_size=1, max_size=3), st.integers(0, MAX_VERSION)), max_size=50),
        rows=st.dictionaries(
            st.text(min_size=1, max_size=3), st.tuples(st.integers(0, MAX_VERSION - 1), st.booleans()), max_size=50
        ),
        now=st.integers(0, 2**41),
    )
    def test_it_is_what_sets_say(
        self, came: list[tuple[str, int]], rows: dict[str, tuple[int, bool]], now: int
    ) -> None:
        seen = Seen(7)
        highest: dict[str, int] = {}
        for id_, version in came:
            seen.add(id_, version)
            highest[id_] = max(version, highest.get(id_, 0))
        known = {id_: version for id_, (version, deleted) in rows.items() if not deleted}
        buried = {id_: version for id_, (version, deleted) in rows.items() if deleted}
        gone = Gone(USER, seen, now)
        tombstones = gone.compare([Known(id_, *row) for id_, row in rows.items()])
        assert seen.count == len(highest)
        assert {one.id for one in tombstones} == set(known) - set(highest)
        assert all(one.version > known[one.id] and one.deleted for one in tombstones)
        assert (gone.known, gone.gone) == (len(known), len(tombstones))
        assert gone.older == sum(version > highest[id_] for id_, version in known.items() if id_ in highest)
        assert gone.restored == {
            id_: (highest[id_], version + 1)
            for id_, version in buried.items()
            if id_ in highest and highest[id_] <= version
        }


def test_a_million_ids_take_little_memory() -> None:
    import tracemalloc

    tracemalloc.start()
    seen = Seen(1)
    for number in range(1_000_000):
        seen.add(f"user-{number}", number)
    assert seen.count == 1_000_000
    held_bytes, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < 40 * 1024**2
    assert peak_bytes < 120 * 1024**2
