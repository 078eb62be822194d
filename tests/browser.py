"""A headless browser for the tests: open a page under a strict policy, and wait for what the page reports."""

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-dev-shm-usage",
)  # fmt: skip
# The browser itself refuses, and reports, whatever would leave the server.
POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' blob: data:"
)


class Handler(SimpleHTTPRequestHandler):
    """Sends files with the policy above, and keeps what the page reports."""

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", self.server.policy)  # type: ignore[attr-defined]
        super().end_headers()

    def do_POST(self) -> None:
        self.server.reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def browse(root: Path, profile: Path, policy: str = POLICY, *, flags: Sequence[str] = ()) -> dict[str, Any]:
    """Open root/index.html in a headless browser; what the page posts to "report". `flags` are further ones."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root))) as server:
        reports: queue.Queue[dict[str, Any]] = queue.Queue()
        server.reports, server.policy = reports, policy  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/index.html"
        with (profile / "log").open("w") as log:
            running = subprocess.Popen(
                [browser, *QUIET, *flags, f"--user-data-dir={profile}", address], stdout=log, stderr=log
            )
            try:
                return reports.get(timeout=600)  # seconds; a busy machine is slow
            except queue.Empty:
                pytest.fail(f"the page did not report: {(profile / 'log').read_text()[-2000:]}")
            finally:
                running.terminate()
                running.wait()
                server.shutdown()
