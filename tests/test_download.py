"""Downloads against a server on this machine that answers rightly, breaks off, lies or is not there."""

import hashlib
import io
import random
import shutil
import socket
import tarfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import refusal

from recseg.data import download as module
from recseg.data.download import download, fetch_voc
from recseg.errors import RecsegError

CONTENT = random.Random(0).randbytes(700_000)  # a few chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Mirror:
    """How one address behaves."""

    content: bytes = CONTENT
    ranges: bool = True  # honours Range
    breaks: list[int] = field(default_factory=list)  # bytes after which each of the next answers breaks off
    status: int = 200
    length: bool = True  # sends Content-Length
    location: str = ""


class Server(ThreadingHTTPServer):
    mirrors: dict[str, Mirror]
    asked: list[tuple[str, str | None]]  # address and Range of each request

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append((self.path.strip("/"), asked))
        mirror = self.server.mirrors[self.path.strip("/")]
        body, status, start = mirror.content, mirror.status, 0
        if asked and mirror.ranges and status == 200:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            body, status = body[start:], (206 if start < len(body) else 416)
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(mirror.content) - 1}/{len(mirror.content)}")
        if mirror.location:
            self.send_header("Location", mirror.location)
        if mirror.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: mirror.breaks.pop(0)] if mirror.breaks else body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server(("127.0.0.1", 0), Handler) as server:
        server.mirrors, server.asked = {"good": Mirror()}, []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "new" / "file.bin"


def dead_url() -> str:
    """An address on this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/file"


def only(dest: Path) -> bool:
    """`dest` is there, right, and without a part or a lock beside it."""
    return dest.read_bytes() == CONTENT and list(dest.parent.iterdir()) == [dest]


def test_the_right_file(server: Server, dest: Path) -> None:
    assert download([server.url("good")], SHA256.upper(), dest, expected_size=len(CONTENT)) == dest
    assert only(dest) and len(server.asked) == 1


def test_what_is_there_is_not_fetched_again(server: Server, dest: Path) -> None:
    dest.parent.mkdir()
    dest.write_bytes(CONTENT)
    download([server.url("good")], SHA256, dest)
    assert only(dest) and not server.asked
    dest.write_bytes(b"mine")
    refusal(lambda: download([server.url("good")], SHA256, dest), dest, "another checksum")
    assert dest.read_bytes() == b"mine" and not server.asked


def test_an_answer_that_breaks_off_is_resumed(server: Server, dest: Path) -> None:
    server.mirrors["good"].breaks = [300_000, 200_000]
    download([server.url("good")], SHA256, dest)
    assert only(dest)
    assert [asked for _, asked in server.asked] == [None, "bytes=300000-", "bytes=500000-"]


def test_the_next_mirror_finishes_what_one_began(server: Server, dest: Path) -> None:
    server.mirrors["broken"] = Mirror(breaks=[400_000] + [0] * 9)
    download([server.url("broken"), server.url("good")], SHA256, dest)
    assert only(dest)
    assert server.asked == [("broken", None), ("broken", "bytes=400000-"), ("good", "bytes=400000-")]


def test_a_break_without_a_length_is_seen_by_the_checksum(server: Server, dest: Path) -> None:
    server.mirrors["short"] = Mirror(length=False, breaks=[400_000])
    download([server.url("short"), server.url("good")], SHA256, dest)
    assert only(dest)


def test_half_a_part_is_gone_on_with(server: Server, dest: Path) -> None:
    dest.parent.mkdir()
    dest.with_name("file.bin.part").write_bytes(CONTENT[:350_000])
    download([server.url("good")], SHA256, dest, expected_size=len(CONTENT))
    assert only(dest) and server.asked == [("good", "bytes=350000-")]


def test_a_whole_part_only_needs_its_checksum(server: Server, dest: Path) -> None:
    dest.parent.mkdir()
    dest.with_name("file.bin.part").write_bytes(CONTENT)
    download([server.url("good")], SHA256, dest)
    assert only(dest)


@pytest.mark.parametrize("part", [b"x" * 350_000, CONTENT + b"x"], ids=["wrong", "too long"])
def test_a_bad_part_does_not_spoil_a_good_mirror(server: Server, dest: Path, part: bytes) -> None:
    dest.parent.mkdir()
    dest.with_name("file.bin.part").write_bytes(part)
    download([server.url("good")], SHA256, dest)
    assert only(dest) and [asked for _, asked in server.asked] == [f"bytes={len(part)}-", None]


def test_a_server_without_ranges(server: Server, dest: Path) -> None:
    server.mirrors["good"].ranges = False
    server.mirrors["good"].breaks = [300_000]
    download([server.url("good")], SHA256, dest)
    assert only(dest)


def test_a_wrong_checksum_is_deleted_and_the_next_mirror_asked(server: Server, dest: Path) -> None:
    server.mirrors["liar"] = Mirror(content=b"<html>please log in</html>")
    liar, good = server.url("liar"), server.url("good")
    refusal(lambda: download([liar], SHA256, dest), liar, "wrong checksum")
    assert list(dest.parent.iterdir()) == []
    download([liar, good], SHA256, dest)
    assert only(dest)


def test_a_wrong_size_is_noticed_before_it_is_fetched(server: Server, dest: Path) -> None:
    server.mirrors["long"] = Mirror(content=CONTENT * 2)
    server.mirrors["endless"] = Mirror(content=CONTENT * 2, length=False)
    refusal(
        lambda: download([server.url("long"), server.url("endless")], SHA256, dest, expected_size=len(CONTENT)),
        "offers 1400000 bytes, expected 700000",
        f"{server.url('endless')}: wrong checksum",
    )
    assert list(dest.parent.iterdir()) == []


def test_every_failure_is_named_in_one_line(server: Server, dest: Path) -> None:
    server.mirrors["gone"] = Mirror(status=404)
    server.mirrors["elsewhere"] = Mirror(status=302, location="http://example.org/file")
    dead = dead_url()
    urls = [dead, server.url("gone"), server.url("elsewhere")]
    message = refusal(lambda: download(urls, SHA256, dest), "file.bin", *urls, "refused", "404", "https")
    assert "run it again" not in message
    server.mirrors["half"] = Mirror(breaks=[300_000] + [0] * 9)
    refusal(lambda: download([dead, server.url("half")], SHA256, dest), "300000 of 700000", "run it again")
    assert not dest.exists() and dest.with_name("file.bin.part").stat().st_size == 300_000
    download([dead, server.url("good")], SHA256, dest)
    assert only(dest) and server.asked[-1] == ("good", "bytes=300000-")


def test_a_silent_server_is_given_up(dest: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        refusal(lambda: download([url], SHA256, dest, timeout=0.1), url, "timed out")


def test_redirects_on_this_machine_are_followed(server: Server, dest: Path) -> None:
    server.mirrors["moved"] = Mirror(status=302, location=server.url("good"))
    download([server.url("moved")], SHA256, dest)
    assert only(dest)


@pytest.mark.parametrize("url", ["http://example.org/f", "ftp://127.0.0.1/f", "file:///etc/hostname", "f"])
def test_only_https_leaves_this_machine(url: str, dest: Path) -> None:
    refusal(lambda: download([url], SHA256, dest), url, "https")
    assert not dest.parent.exists()


def test_nonsense_is_refused(server: Server, dest: Path) -> None:
    refusal(lambda: download([], SHA256, dest), "no address")
    refusal(lambda: download([server.url("good")], "abc", dest), "'abc'", "SHA-256")


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    dest = tmp_path / "file" / "below.bin"
    refusal(lambda: download([server.url("good")], SHA256, dest), dest, "cannot be written")


def test_a_full_disk_is_no_fault_of_the_mirror(server: Server, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recseg.data.download.tqdm.update", full)  # called right after each write
    refusal(lambda: download([server.url("good")] * 2, SHA256, dest), dest, "No space left on device")
    assert len(server.asked) == 1


def test_two_at_once_take_turns(server: Server, dest: Path) -> None:
    """Both ask for the same file: one fetches it, the other waits and finds it there."""
    failures = []

    def fetch() -> None:
        try:
            download([server.url("good")], SHA256, dest)
        except RecsegError as error:
            failures.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and only(dest) and len(server.asked) == 1


# VOC


def tar_of(members: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


VOC = {
    f"VOCdevkit/VOC2012/{name}": name.encode()
    for name in ("JPEGImages/a.jpg", "SegmentationClass/a.png", "ImageSets/Segmentation/train.txt")
}


def voc_from(server: Server, content: bytes, root: Path) -> Path:
    server.mirrors["voc"] = Mirror(content=content)
    return fetch_voc(root, urls=[server.url("voc")], checksum=hashlib.sha256(content).hexdigest())


def test_voc_is_fetched_and_unpacked_once(server: Server, tmp_path: Path) -> None:
    content = tar_of(VOC)
    for _ in range(2):
        voc = voc_from(server, content, tmp_path / "voc")
        assert voc == tmp_path / "voc" / "VOCdevkit" / "VOC2012"
        assert {path.relative_to(voc).as_posix() for path in voc.rglob("*") if path.is_file()} == {
            name.removeprefix("VOCdevkit/VOC2012/") for name in VOC
        }
        assert (voc / "JPEGImages" / "a.jpg").read_bytes() == b"JPEGImages/a.jpg"
    assert len(server.asked) == 1
    assert sorted(path.name for path in voc.parent.parent.iterdir()) == ["VOCdevkit", "VOCtrainval_11-May-2012.tar"]


def test_a_half_filled_folder_is_left_alone(server: Server, tmp_path: Path) -> None:
    mine = tmp_path / "VOCdevkit" / "VOC2012" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    refusal(lambda: voc_from(server, tar_of(VOC), tmp_path), mine.parent, "move it away")
    assert mine.read_text() == "mine" and not server.asked


def test_too_little_space_is_said_before_anything_is_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    refusal(lambda: fetch_voc(tmp_path, urls=[server.url("good")]), tmp_path, "1.0 GB free", "4.0 GB")
    assert not server.asked


def test_the_published_addresses_are_safe() -> None:
    assert len(module.VOC_SHA256) == 64 and all(url.startswith("https://") for url in module.VOC_URLS)
