import hashlib
import io
import shutil
import stat
import struct
import subprocess
import zipfile
import zlib
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midstream.exhaust.names import day_name
from midstream.exhaust.outer import (
    BLOCK_BYTES,
    Entry,
    Framer,
    Layout,
    Slice,
    descriptor,
    encoded_bytes,
    header,
    trailer,
)

FIRST = date(2026, 2, 27)
SIZES = (0, 1, 2, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES, 4 * BLOCK_BYTES + 17)
GIB = 1 << 30


def make_files(sizes: list[int] | tuple[int, ...]) -> list[bytes]:
    """Return files in which no two places look alike."""
    return [hashlib.shake_128(bytes([index])).digest(size) for index, size in enumerate(sizes)]


def make_entries(files: list[bytes]) -> list[Entry]:
    days = [FIRST + timedelta(days=index) for index in range(len(files))]
    return [Entry(day_name(day), day, len(file), zlib.crc32(file)) for day, file in zip(days, files, strict=True)]


def stream(files: list[bytes], comment: bytes, step: int = 10_000) -> bytes:
    """Return the archive as it is sent while its days are built, each file coming in pieces of ``step`` bytes."""
    entries = make_entries(files)
    sent = bytearray()
    for entry, file in zip(entries, files, strict=True):
        sent += header(entry.name, entry.day)
        framer = Framer()
        for start in range(0, len(file), step):
            sent += framer.feed(file[start : start + step])
        sent += framer.finish()
        assert framer.size == len(file)
        sent += descriptor(entry.crc32, entry.size)
    return bytes(sent + trailer(entries, comment))


def cut(layout: Layout, files: list[bytes], start: int, stop: int) -> bytes:
    """Return a range of the archive, its slices filled in."""
    parts = []
    for piece in layout.pieces(start, stop):
        if isinstance(piece, Slice):
            assert 0 <= piece.start < piece.stop <= len(files[piece.entry])
            parts.append(files[piece.entry][piece.start : piece.stop])
        else:
            assert piece
            parts.append(piece)
    return b"".join(parts)


ALL = make_files(SIZES)
COMMENT = b'{"days":[]}'
ARCHIVE = stream(ALL, COMMENT)
LAYOUT = Layout(make_entries(ALL), COMMENT)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "dataset.zip"
    path.write_bytes(ARCHIVE)
    return path


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


class TestBytes:
    def test_a_finished_archive_is_the_streamed_one(self) -> None:
        assert LAYOUT.total_bytes == len(ARCHIVE)
        assert cut(LAYOUT, ALL, 0, LAYOUT.total_bytes) == ARCHIVE

    @given(
        st.lists(st.sampled_from(SIZES) | st.integers(0, 3 * BLOCK_BYTES), max_size=4),
        st.binary(max_size=40),
        st.sampled_from((1_000, BLOCK_BYTES - 1, BLOCK_BYTES, 70_000)),
        st.data(),
    )
    @settings(deadline=None, max_examples=60)
    def test_of_any_sizes(self, sizes: list[int], comment: bytes, step: int, data: st.DataObject) -> None:
        files = make_files(sizes)
        layout, whole = Layout(make_entries(files), comment), stream(files, comment, step)
        assert layout.total_bytes == len(whole)
        places = st.integers(0, len(whole))
        start, middle, stop = sorted(data.draw(st.tuples(places, places, places)))
        first, second = cut(layout, files, start, middle), cut(layout, files, middle, stop)
        assert first == whole[start:middle]
        assert first + second == whole[start:stop] == cut(layout, files, start, stop)

    def test_a_range_may_begin_and_end_at_any_byte_beside_data(self) -> None:
        """All ranges around each seam: headers, frames, descriptors, directory, comment."""
        seams = [
            LAYOUT.total_bytes,
            ARCHIVE.index(b"PK\x01\x02"),
            *(LAYOUT.data_start(index) for index in range(len(ALL))),
        ]
        seams += [LAYOUT.data_start(index) + encoded_bytes(size) for index, size in enumerate(SIZES)]
        seams += [LAYOUT.data_start(7) + block * (BLOCK_BYTES + 5) for block in range(5)]
        for seam in seams:
            places = range(max(seam - 18, 0), min(seam + 18, LAYOUT.total_bytes) + 1)
            for start in places:
                for stop in range(start, places.stop):
                    assert cut(LAYOUT, ALL, start, stop) == ARCHIVE[start:stop]

    @pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 4), (0, len(ARCHIVE) + 1)])
    def test_a_range_that_is_not_there(self, start: int, stop: int) -> None:
        with pytest.raises(ValueError, match="the archive has the bytes"):
            LAYOUT.pieces(start, stop)

    def test_without_days(self) -> None:
        assert cut(Layout([], b"none"), [], 0, Layout([], b"none").total_bytes) == stream([], b"none")
        assert zipfile.ZipFile(io.BytesIO(stream([], b"none"))).namelist() == []

    def test_the_length_of_blocks_never_depends_on_how_data_comes(self) -> None:
        assert {stream(ALL, COMMENT, step) for step in (1_777, BLOCK_BYTES, 1 << 20)} == {ARCHIVE}

    @pytest.mark.parametrize("size", SIZES)
    def test_a_size_as_blocks(self, size: int) -> None:
        framer = Framer()
        blocks = framer.feed(make_files([size])[0]) + framer.finish()
        assert len(blocks) == encoded_bytes(size)
        assert zlib.decompress(blocks, -15) == make_files([size])[0]

    def test_a_comment_that_is_too_long(self) -> None:
        assert Layout([], b" " * 65_535).total_bytes == 22 + 65_535
        for make in (Layout, trailer):
            with pytest.raises(ValueError, match="65535 bytes at most"):
                make([], b" " * 65_536)

    @pytest.mark.parametrize("day", [date(1979, 12, 31), date(2108, 1, 1)])
    def test_a_day_that_a_zip_cannot_have(self, day: date) -> None:
        with pytest.raises(ValueError, match="1980 to 2107"):
            header(day_name(day), day)


class TestReaders:
    def test_python(self) -> None:
        with zipfile.ZipFile(io.BytesIO(ARCHIVE)) as found:
            assert found.comment == COMMENT
            assert found.testzip() is None
            assert [found.read(entry) for entry in found.infolist()] == ALL
            assert [entry.filename for entry in found.infolist()] == [entry.name for entry in make_entries(ALL)]
            assert [entry.date_time for entry in found.infolist()][:3] == [
                (2026, 2, 27, 0, 0, 0),
                (2026, 2, 28, 0, 0, 0),
                (2026, 3, 1, 0, 0, 0),
            ]
            assert {stat.filemode(entry.external_attr >> 16) for entry in found.infolist()} == {"-rw-r--r--"}

    @pytest.mark.skipif(shutil.which("unzip") is None, reason="Info-ZIP's unzip is not installed (Debian: unzip)")
    def test_info_zip(self, archive: Path, tmp_path: Path) -> None:
        assert f"No errors detected in compressed data of {archive}" in run("unzip", "-t", str(archive))
        listed = run("unzip", "-l", str(archive))
        assert all(f"{len(file):>9}  2026-0" in listed for file in ALL)
        run("unzip", "-q", str(archive), "-d", str(tmp_path / "out"))
        assert [(tmp_path / "out" / entry.name).read_bytes() for entry in make_entries(ALL)] == ALL

    @pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")
    def test_java(self, archive: Path) -> None:
        """By the directory and, as older clients do, as a stream."""
        wanted = [
            f"{how} {entry.name} {entry.size} {hashlib.sha256(file).hexdigest()}"
            for how in ("ZipFile", "ZipInputStream")
            for entry, file in zip(make_entries(ALL), ALL, strict=True)
        ]
        wanted.insert(len(ALL), f"comment {COMMENT.decode()}")
        assert run("java", "-Xmx64m", str(Path(__file__).with_name("Reads.java")), str(archive)).splitlines() == wanted


class TestZip64:
    """Of archives that nobody writes here: the fields are read with struct."""

    BIG = Entry(day_name(FIRST), FIRST, 5 * GIB, 0x01020304)
    SMALL = Entry(day_name(FIRST + timedelta(days=1)), FIRST + timedelta(days=1), 10, 0x0A0B0C0D)

    def literals(self, layout: Layout, start: int, stop: int) -> bytes:
        return b"".join(piece for piece in layout.pieces(start, stop) if isinstance(piece, bytes))

    def test_a_descriptor_is_as_wide_as_its_sizes(self) -> None:
        most = max(
            size for size in range(0xFFFFFFFF - 700_000, 0xFFFFFFFF - 600_000) if encoded_bytes(size) <= 0xFFFFFFFF
        )
        assert descriptor(7, most) == struct.pack("<4sIII", b"PK\x07\x08", 7, encoded_bytes(most), most)
        assert descriptor(7, most + 1) == struct.pack("<4sIQQ", b"PK\x07\x08", 7, encoded_bytes(most + 1), most + 1)

    def test_the_header_is_that_of_a_small_file(self) -> None:
        layout = Layout([self.BIG, self.SMALL], b"c")
        head = header(self.BIG.name, self.BIG.day)
        assert next(iter(layout.pieces(0, len(head)))) == head
        assert struct.unpack_from("<4sHHHHHIIIHH", head)[6:] == (0, 0, 0, len(self.BIG.name), 0)

    def test_the_directory(self) -> None:
        layout = Layout([self.BIG, self.SMALL], b"c")
        second = 30 + len(self.BIG.name) + encoded_bytes(5 * GIB) + 24
        assert layout.data_start(1) == second + 30 + len(self.SMALL.name)
        directory = layout.data_start(1) + encoded_bytes(10) + 16
        said = self.literals(layout, directory, layout.total_bytes)

        first_size = 46 + len(self.BIG.name) + 4 + 16
        entry = struct.unpack_from("<4sHHHHHHIIIHHHHHII", said)
        assert entry[:5] == (b"PK\x01\x02", 0x32D, 45, 8, 8)
        assert entry[7:12] == (0x01020304, 0xFFFFFFFF, 0xFFFFFFFF, len(self.BIG.name), 20)
        assert entry[16] == 0
        extra = struct.unpack_from("<HHQQ", said, 46 + len(self.BIG.name))
        assert extra == (1, 16, 5 * GIB, encoded_bytes(5 * GIB))

        entry = struct.unpack_from("<4sHHHHHHIIIHHHHHII", said, first_size)
        assert entry[7:12] == (0x0A0B0C0D, encoded_bytes(10), 10, len(self.SMALL.name), 12)
        assert entry[16] == 0xFFFFFFFF
        assert struct.unpack_from("<HHQ", said, first_size + 46 + len(self.SMALL.name)) == (1, 8, second)

        size = first_size + 46 + len(self.SMALL.name) + 12
        assert struct.unpack_from("<4sQHHIIQQQQ", said, size) == (
            b"PK\x06\x06",
            44,
            0x32D,
            45,
            0,
            0,
            2,
            2,
            size,
            directory,
        )
        assert struct.unpack_from("<4sIQI", said, size + 56) == (b"PK\x06\x07", 0, directory + size, 1)
        assert struct.unpack_from("<4sHHHHIIH", said, size + 76) == (
            b"PK\x05\x06",
            0,
            0,
            2,
            2,
            size,
            0xFFFFFFFF,
            1,
        )
        assert said[size + 98 :] == b"c"

    def test_pythons_zipfile_reads_the_directory(self, tmp_path: Path) -> None:
        """A sparse file: the days' bytes are holes, the directory is where it belongs."""
        layout = Layout([self.BIG, self.SMALL], b"c")
        directory = layout.data_start(1) + encoded_bytes(10) + 16
        path = tmp_path / "sparse.zip"
        with path.open("wb") as file:
            file.write(self.literals(layout, 0, layout.data_start(0)))
            file.seek(layout.data_start(1) - 30 - len(self.SMALL.name))
            file.write(header(self.SMALL.name, self.SMALL.day))
            file.seek(directory)
            file.write(self.literals(layout, directory, layout.total_bytes))
        with zipfile.ZipFile(path) as found:
            assert [(one.filename, one.file_size, one.compress_size, one.CRC) for one in found.infolist()] == [
                (one.name, one.size, encoded_bytes(one.size), one.crc32) for one in (self.BIG, self.SMALL)
            ]
        if shutil.which("unzip"):
            assert "5368709120  2026-02-27" in run("unzip", "-l", str(path))

    def test_a_range_deep_in_a_large_file_costs_nothing(self) -> None:
        layout = Layout([Entry(self.BIG.name, self.BIG.day, 1 << 50, 0)], b"")
        start = layout.data_start(0) + encoded_bytes((1 << 50) - BLOCK_BYTES) - 5
        assert list(layout.pieces(start, start + 105)) == [
            b"\x00\x00\x80\xff\x7f",
            Slice(0, (1 << 50) - BLOCK_BYTES, (1 << 50) - BLOCK_BYTES + 100),
        ]
