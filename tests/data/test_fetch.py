"""Fetching against a server of our own: verified, resumed, unpacked, and refused with a word on what to do."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from rectoolkit.cli import main
from rectoolkit.data import find_card, load_dataset
from rectoolkit.data.fetch import fetch
from rectoolkit.errors import DataError, UserError
from rectoolkit.files import alone

TRAIN = "".join(f"{user} {user % 7} {user % 5 + 10}\n" for user in range(3000)).encode()
TEST = b"0 20\n1 21\n"


@dataclass
class Server:
    """Files by path; ``cut`` ends an answer after so many bytes; ``asked`` are the ranges of the requests."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    cut: int | None = None
    ranges: bool = True
    refuses: bool = False  # any range
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("RECTOOL_DATA", raising=False)
    (tmp_path / "datasets").mkdir()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.headers.get("Range"))
            body = state.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            tag, start = f'"{hashlib.md5(body).hexdigest()}"', 0
            if state.ranges and self.headers.get("Range") and self.headers.get("If-Range") == tag:
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                if start >= len(body) or state.refuses:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start:][: state.cut])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        state = Server(f"http://127.0.0.1:{served.server_address[1]}", {"/train.txt": TRAIN, "/test.txt": TEST})
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield state
        served.shutdown()


def card(server: Server, train: str = "/train.txt", digest: str = hashlib.sha256(TRAIN).hexdigest()) -> None:
    Path("datasets/mine.toml").write_text(
        'name = "mine"\ndescription = "x"\nformat = "adjacency"\nsource = "the shop"\nlicence = "free for all"\n'
        '[files]\ntrain = "train.txt"\ntest = "test.txt"\n'
        f'[urls]\ntrain = "{server.url}{train}"\ntest = "{server.url}/test.txt"\n'
        f'[sha256]\ntrain = "{digest}"\n[counts]\nusers = 3000\n'
    )


def folder() -> Path:
    return Path("cache/rectoolkit/datasets/mine")


def rectool_fetch(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["data", "fetch", *arguments])
    assert "Traceback" not in result.output
    return result.exit_code, result.output


def test_files_are_fetched_once_verified_and_loaded(server: Server) -> None:
    card(server)
    with pytest.raises(DataError, match=r"is not on this machine.*Get it: rectool data fetch mine, or the shop"):
        load_dataset("mine")
    code, output = rectool_fetch("mine")
    assert code == 0, output
    assert "licence: free for all" in output
    assert f"train.txt: {len(TRAIN):,} bytes, sha256 {hashlib.sha256(TRAIN).hexdigest()[:12]}... verified" in output
    assert output.splitlines()[-1].endswith("... not verified: the card has no checksum")
    assert load_dataset("mine").train.num_interactions == 6000
    assert sorted(path.name for path in folder().iterdir()) == ["test.txt", "train.txt"]
    asked = len(server.asked)
    assert rectool_fetch("mine")[0] == 0
    assert len(server.asked) == asked


def test_a_download_cut_off_goes_on_where_it_stopped(server: Server) -> None:
    card(server)
    server.cut = 10_000
    with pytest.raises(DataError, match=r"interrupted after 10000 of \d+ bytes|cannot be reached"):
        fetch(find_card("mine"))
    assert (folder() / "train.txt.part").read_bytes() == TRAIN[:10_000]
    server.cut = None
    fetch(find_card("mine"))
    assert server.asked == [None, "bytes=10000-", None]
    assert (folder() / "train.txt").read_bytes() == TRAIN


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(server: Server, ranges: bool) -> None:
    card(server)
    server.cut = 10_000
    server.files["/train.txt"] = b"9" * len(TRAIN)
    with pytest.raises(DataError):
        fetch(find_card("mine"))
    server.cut, server.ranges = None, ranges
    server.files["/train.txt"] = TRAIN
    fetch(find_card("mine"))
    assert (folder() / "train.txt").read_bytes() == TRAIN


def test_a_wrong_checksum_leaves_nothing(server: Server) -> None:
    card(server, digest="0" * 64)
    code, output = rectool_fetch("mine")
    assert code == 2
    assert f"its sha256 is {hashlib.sha256(TRAIN).hexdigest()}, and not {'0' * 64} as the card says" in output
    assert not list(folder().iterdir())


def test_an_md5_verifies_where_the_card_has_no_sha256(server: Server) -> None:
    card(server)
    path = Path("datasets/mine.toml")
    path.write_text(path.read_text() + f'[md5]\ntest = "{hashlib.md5(TEST).hexdigest()}"\n')
    server.files["/test.txt"] = TEST + b"1 5\n"
    code, output = rectool_fetch("mine")
    assert (code, "test.txt: its md5 is " in output) == (2, True), output
    server.files["/test.txt"] = TEST
    code, output = rectool_fetch("mine")
    assert (code, "not verified" in output) == (0, False), output


def test_what_is_not_the_cards_data_is_not_kept_where_no_checksum_tells(server: Server) -> None:
    card(server)
    text = Path("datasets/mine.toml").read_text().replace("users = 3000", "users = 3000\ntest = 2")
    Path("datasets/mine.toml").write_text(text)
    for wrong, told in ((b"<html>sign in</html>\n", "test.txt"), (b"0 20\n", "1 test where 2 are right")):
        server.files["/test.txt"] = wrong
        code, output = rectool_fetch("mine")
        assert (code, told in output, "test.txt; fetch again" in output) == (2, True, True), output
        assert [path.name for path in folder().iterdir()] == ["train.txt"]
    (folder() / "test.txt").write_bytes(b"0 20\n")
    code, output = rectool_fetch("mine")
    assert (code, "test.txt and fetch again" in output) == (2, True), output
    (folder() / "test.txt").unlink()
    server.files["/test.txt"] = TEST
    assert rectool_fetch("mine")[0] == 0
    assert load_dataset("mine").test.num_interactions == 2


def test_a_part_of_another_length_is_not_taken_for_the_whole(server: Server) -> None:
    card(server)
    server.cut = 10_000
    with pytest.raises(DataError):
        fetch(find_card("mine"))
    server.cut, server.refuses = None, True
    with pytest.raises(DataError, match=rf"has {len(TRAIN)} bytes now, but 10000 bytes were downloaded; fetch again"):
        fetch(find_card("mine"))
    fetch(find_card("mine"))
    assert (folder() / "train.txt").read_bytes() == TRAIN


def packed(kind: str, member: str = "set/train.txt") -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("../evil.txt", "evil")
            archive.writestr(member, TRAIN)
    elif kind == "gz":
        buffer.write(gzip.compress(TRAIN))
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            link = tarfile.TarInfo("set/link.txt")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
            entry = tarfile.TarInfo(member)
            entry.size = len(TRAIN)
            archive.addfile(entry, io.BytesIO(TRAIN))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "address"), [("zip", "/a.zip#set/train.txt"), ("gz", "/train.txt.gz"), ("tar", "/a.tar.gz#set/train.txt")]
)
def test_one_file_is_taken_out_of_an_archive(server: Server, tmp_path: Path, kind: str, address: str) -> None:
    card(server, address)
    server.files[address.partition("#")[0]] = packed(kind)
    fetch(find_card("mine"))
    assert (folder() / "train.txt").read_bytes() == TRAIN
    assert sorted(path.name for path in folder().iterdir()) == ["test.txt", "train.txt"]
    assert not list(tmp_path.rglob("evil.txt"))


@pytest.mark.parametrize(
    ("address", "body", "told"),
    [
        ("/a.zip#set/other.txt", packed("zip"), "cannot be unpacked"),
        ("/a.tar.gz#set/link.txt", packed("tar"), "is not a file in it"),
        ("/a.tar.gz#set/train.txt", packed("tar")[:-2000], "cannot be unpacked"),
        ("/train.txt.gz", packed("gz")[:-20], "cannot be unpacked"),
        ("/nowhere.txt", b"", "the server answered 404"),
    ],
)
def test_what_cannot_be_had_is_said(server: Server, address: str, body: bytes, told: str) -> None:
    card(server, address)
    if body:
        server.files[address.partition("#")[0]] = body
    code, output = rectool_fetch("mine")
    assert (code, told in output) == (2, True), output
    assert not (folder() / "train.txt").exists()


def test_one_process_fetches_at_a_time(server: Server) -> None:
    card(server)
    folder().mkdir(parents=True)
    with alone(folder(), "mine"), pytest.raises(UserError, match="another process is downloading into it"):
        fetch(find_card("mine"))
    fetch(find_card("mine"))


def test_a_full_disk_is_not_told_as_the_networks_fault(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    card(server)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    code, output = rectool_fetch("mine")
    assert code == 1
    assert "train.txt" in output
    assert "No space left on device" in output


def test_no_network_and_no_address_say_what_to_do(server: Server) -> None:
    card(server)
    text = Path("datasets/mine.toml").read_text()
    Path("datasets/mine.toml").write_text(text.replace(server.url, "http://127.0.0.1:9"))
    code, output = rectool_fetch("mine")
    assert (code, "http://127.0.0.1:9/train.txt: cannot be reached" in output) == (2, True), output
    Path("datasets/mine.toml").write_text(text.replace("[urls]\ntrain", "[urls]\nvalidation"))
    assert "has no address for train; download the files by hand: the shop; put them into" in rectool_fetch("mine")[1]
    assert "is generated: there is nothing to fetch" in rectool_fetch("planted")[1]


def test_archives_of_one_name_at_two_addresses_are_two(server: Server) -> None:
    card(server, "/train/data.txt.gz")
    path = Path("datasets/mine.toml")
    path.write_text(path.read_text().replace(f"{server.url}/test.txt", f"{server.url}/test/data.txt.gz"))
    server.files["/train/data.txt.gz"], server.files["/test/data.txt.gz"] = gzip.compress(TRAIN), gzip.compress(TEST)
    fetch(find_card("mine"))
    assert [(folder() / name).read_bytes() for name in ("train.txt", "test.txt")] == [TRAIN, TEST]


def test_a_card_names_files_and_not_folders(server: Server) -> None:
    card(server)
    path = Path("datasets/mine.toml")
    path.write_text(path.read_text().replace('train = "train.txt"', 'train = "s/train.txt"'))
    with pytest.raises(UserError, match=r"files.train"):
        find_card("mine")
