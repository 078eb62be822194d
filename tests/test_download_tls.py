"""Downloads over TLS, from a server on this machine with a certificate of its own: whom to trust, liars, dawdlers."""

import hashlib
import random
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import refusal

from recseg.data.download import download

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
CONTENT = random.Random(0).randbytes(400_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers as the function of its path's name in `Server.answers` says."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        self.server.answers[self.path](self)

    def head(self, status: int = 200, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def whole(self, content: bytes = CONTENT) -> None:
        """As a good server does, Range included."""
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        more = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if asked else {}
        self.head(206 if asked else 200, Content_Length=len(content) - start, **more)
        self.wfile.write(content[start:])

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    answers: dict[str, Callable[[Handler], None]]
    asked: list[tuple[str, str | None]]
    scheme = "http"
    daemon_threads = True
    block_on_close = False

    def url(self, path: str = "/good", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.server_address[1]}{path}"

    def handle_error(self, *_: object) -> None:
        """Clients that leave are what is tested here."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine's address, and its key in the same file."""
    folder = tmp_path_factory.mktemp("certificate")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=here "
        "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out certificate.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "certificate.pem").read_bytes())
    return both


def serving(server: Server) -> Iterator[Server]:
    server.answers, server.asked = {"/good": Handler.whole}, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that speaks TLS, and is trusted."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.scheme = "https"
    yield from serving(server)


@pytest.fixture
def plain() -> Iterator[Server]:
    """A server without TLS."""
    yield from serving(Server(("127.0.0.1", 0), Handler))


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "new" / "file.bin"


def only(dest: Path) -> bool:
    """`dest` is there, right, and without a part or a lock beside it."""
    return dest.read_bytes() == CONTENT and list(dest.parent.iterdir()) == [dest]


def nothing(dest: Path) -> bool:
    return not list(dest.parent.iterdir())


# Whom to trust


def test_a_trusted_server(server: Server, dest: Path) -> None:
    download([server.url()], SHA256, dest, expected_size=len(CONTENT))
    assert only(dest)


@pytest.mark.parametrize("lax", [False, True])
def test_a_certificate_of_nobody(server: Server, dest: Path, monkeypatch: pytest.MonkeyPatch, lax: bool) -> None:
    """Also where other code of the process has switched the checks off."""
    monkeypatch.delenv("SSL_CERT_FILE")
    if lax:
        monkeypatch.setattr(ssl, "_create_default_https_context", ssl._create_unverified_context)
    refusal(lambda: download([server.url()], SHA256, dest), server.url(), "certificate verify failed")
    assert nothing(dest) and not server.asked


def test_a_certificate_of_another_host(server: Server, dest: Path) -> None:
    refusal(lambda: download([server.url(host="localhost")], SHA256, dest), "not valid for 'localhost'")
    assert nothing(dest) and not server.asked


def test_no_way_leads_from_tls_to_plain_text(server: Server, plain: Server, dest: Path) -> None:
    server.answers["/moved"] = lambda request: request.head(302, Location=plain.url())
    refusal(lambda: download([server.url("/moved")], SHA256, dest), plain.url(), "https")
    assert nothing(dest) and not plain.asked
    server.answers["/moved"] = lambda request: request.head(302, Location=server.url())
    download([server.url("/moved")], SHA256, dest)
    assert only(dest)


def test_a_server_that_speaks_no_tls(plain: Server, dest: Path) -> None:
    url = plain.url().replace("http:", "https:")
    refusal(lambda: download([url], SHA256, dest, timeout=2), url)
    assert nothing(dest) and not plain.asked


# Dawdlers


def stalls(request: Handler) -> None:
    request.head(Content_Length=len(CONTENT))
    request.wfile.write(CONTENT[:150_000])
    time.sleep(3)


def drips(request: Handler) -> None:
    request.head(Content_Length=len(CONTENT))
    for byte in CONTENT[:6000]:  # five minutes of it
        request.wfile.write(bytes([byte]))
        time.sleep(0.05)


@pytest.mark.parametrize("slow", [stalls, drips])
def test_who_dawdles_is_given_up(server: Server, dest: Path, slow: Callable[[Handler], None]) -> None:
    """Each of them sends something within every timeout, or has sent something; none would end by itself in time."""
    server.answers["/slow"] = slow
    refusal(lambda: download([server.url("/slow")], SHA256, dest, timeout=0.3), server.url("/slow"))
    assert not dest.exists()
    download([server.url()], SHA256, dest)
    assert only(dest)


# Liars


def shorter(request: Handler) -> None:
    request.head(Content_Length=1000)
    request.wfile.write(CONTENT)


def longer(request: Handler) -> None:
    request.head(Content_Length=10**15)
    request.wfile.write(CONTENT)


def no_number(request: Handler) -> None:
    request.head(Content_Length="-5")
    request.wfile.write(CONTENT[:-1])


def wrong_bytes(request: Handler) -> None:
    request.head(Content_Length=len(CONTENT))
    request.wfile.write(CONTENT[::-1])


def packed(request: Handler) -> None:
    request.head(Content_Length=len(CONTENT), Content_Encoding="gzip")
    request.wfile.write(b"\x1f\x8b" + CONTENT[2:])


def another_part(request: Handler) -> None:
    request.head(206, Content_Range=f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}", Content_Length=len(CONTENT) - 7)
    request.wfile.write(CONTENT[7:])


def bad_chunks(request: Handler) -> None:
    request.protocol_version = "HTTP/1.1"
    request.head(Transfer_Encoding="chunked")
    request.wfile.write(b"5\r\nhello\r\nno number\r\n")


LIARS = [shorter, longer, no_number, wrong_bytes, packed, another_part, bad_chunks]


@pytest.mark.parametrize("lie", LIARS)
@pytest.mark.parametrize("kept", [0, 1000])
def test_lies_never_get_the_name(server: Server, dest: Path, lie: Callable[[Handler], None], kept: int) -> None:
    """With or without a part of an earlier call: refused, and the next mirror's file is whole."""
    server.answers["/lie"] = lie
    dest.parent.mkdir()
    if kept:
        dest.with_name("file.bin.part").write_bytes(CONTENT[:kept])
    if lie is longer:  # cut after the right bytes: what came is kept, since it may be the beginning of more
        refusal(lambda: download([server.url("/lie")], SHA256, dest), server.url("/lie"), "broke off")
    else:
        refusal(lambda: download([server.url("/lie")], SHA256, dest), server.url("/lie"))
    assert not dest.exists()
    download([server.url("/lie"), server.url()], SHA256, dest)
    assert only(dest)


# Processes


FETCH = """
import sys
from recseg.data.download import download
download(sys.argv[3:], sys.argv[1], sys.argv[2])
"""


def fetching(dest: Path, *urls: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", FETCH, SHA256, str(dest), *urls]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_take_turns(server: Server, dest: Path) -> None:
    def slowly(request: Handler) -> None:
        time.sleep(0.5)
        request.whole()

    server.answers["/slowly"] = slowly
    processes = [fetching(dest, server.url("/slowly")) for _ in range(3)]
    ended = [(*process.communicate(timeout=300), process.returncode) for process in processes]
    assert [code for *_, code in ended] == [0, 0, 0], ended
    assert only(dest) and len(server.asked) == 1


def test_killed_and_gone_on_with(server: Server, dest: Path) -> None:
    """SIGKILL in the middle: nothing under the final name, the lock is free, and the rest is all that is fetched."""

    def half(request: Handler) -> None:
        request.head(Content_Length=len(CONTENT))
        request.wfile.write(CONTENT[:200_000])
        time.sleep(30)

    server.answers["/half"] = half
    process = fetching(dest, server.url("/half"))
    part, end = dest.with_name("file.bin.part"), time.monotonic() + 300
    while not (part.exists() and part.stat().st_size) and time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    kept = part.stat().st_size
    assert not dest.exists() and 0 < kept <= 200_000
    download([server.url()], SHA256, dest)
    assert only(dest) and server.asked[-1] == ("/good", f"bytes={kept}-")
