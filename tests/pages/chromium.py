"""A headless Chromium, told what to do over its DevTools protocol: messages through two pipes, no port, no library."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-dev-shm-usage",
    "--remote-debugging-pipe", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--hide-scrollbars",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",  # a camera, and a reader who allows it
)  # fmt: skip
PATIENCE = 300  # seconds; a busy machine is slow, a page that hangs is wrong


def find() -> str | None:
    """Where a Chromium is installed, if anywhere."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Failed(Exception):
    """The browser refused a command, or a script in a page threw."""


class Browser:
    """A running browser with an empty profile; `with` ends it."""

    def __init__(self, executable: str) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        told, self._write = os.pipe()
        self._read, tells = os.pipe()

        def pipes() -> None:  # the browser reads its descriptor 3 and writes its descriptor 4
            low, high = os.dup(told), os.dup(tells)
            os.dup2(low, 3)
            os.dup2(high, 4)

        command = [executable, *OPTIONS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._log = (Path(self._profile.name) / "log").open("w")
        self._process = subprocess.Popen(
            command, preexec_fn=pipes, close_fds=False, stdout=self._log, stderr=self._log, start_new_session=True
        )
        os.close(told)
        os.close(tells)
        self._buffer, self._number = b"", 0
        self._pages: dict[str, Page] = {}

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._log.close()
        self._profile.cleanup()

    def send(self, method: str, session: str | None = None, **parameters: Any) -> int:
        """Send a command; the number of its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._write, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        return self._number

    def command(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events that come meanwhile go to their pages."""
        number = self.send(method, session, **parameters)
        while (answer := self.receive()).get("id") != number:
            pass
        if "error" in answer:
            raise Failed(f"{method}: {answer['error']['message']}")
        return dict(answer["result"])

    def receive(self, patience: float = PATIENCE) -> dict[str, Any]:
        """The next message."""
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], patience)[0]:
                raise Failed(f"the browser said nothing for {patience} s")
            received = os.read(self._read, 1 << 20)
            if not received:
                raise Failed("the browser ended")
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        page = self._pages.get(message.get("sessionId", ""))
        if page and "method" in message:
            page.events.append(message)
            if message["method"] == "Target.attachedToTarget":  # a worker, which waits until it is watched, too
                worker = message["params"]["sessionId"]
                self._pages[worker] = page
                for method in ("Network.enable", "Runtime.enable", "Runtime.runIfWaitingForDebugger"):
                    self.send(method, worker)
        return message

    def page(self) -> "Page":
        """A new page that shares no cache and no storage with others."""
        context = self.command("Target.createBrowserContext")["browserContextId"]
        target = self.command("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._pages[session] = page = Page(self, session, context)
        for domain in ("Page", "Network", "Runtime"):
            page.command(f"{domain}.enable")
        page.command("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        return page

    def forget(self, page: "Page") -> None:
        """Close a page and all it stored."""
        self._pages = {session: other for session, other in self._pages.items() if other is not page}
        self.command("Target.disposeBrowserContext", browserContextId=page.context)


class Page:
    """A page of the browser, and all that was reported of it and its workers since it was last opened."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self.browser, self.session, self.context = browser, session, context
        self.events: list[dict[str, Any]] = []

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.command(method, self.session, **parameters)

    def before_scripts(self, source: str) -> None:
        """Run a script in each document before its own."""
        self.command("Page.addScriptToEvaluateOnNewDocument", source=source)

    def size(self, width: int, height: int) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def open(self, address: str) -> None:
        """Go there and wait until the page and its fonts are loaded."""
        self.events.clear()
        self.command("Page.navigate", url=address)
        until = time.monotonic() + PATIENCE
        while not self.reported("Page.loadEventFired"):
            if time.monotonic() > until:
                raise Failed(f"{address} did not load")
            self.browser.receive()
        self.evaluate("document.fonts.ready.then(() => new Promise((done) => setTimeout(done, 200)))")

    def evaluate(self, script: str, *, by_reader: bool = False) -> Any:
        """The value of a script, awaited; `by_reader` lets it do what takes a click, such as going full-screen."""
        answer = self.command(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=by_reader
        )
        if details := answer.get("exceptionDetails"):
            raise Failed(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def settle(self) -> None:
        """Wait until what slides and fades has come to rest."""
        self.evaluate(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))).then(() => Promise.race(["
            "Promise.allSettled(document.getAnimations().map(({ finished }) => finished)),"
            "new Promise((done) => setTimeout(done, 5000))])).then(() => true)"
        )

    def reported(self, method: str) -> list[dict[str, Any]]:
        """The events of one kind."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """A screenshot."""
        self.settle()
        data = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self.browser.forget(self)
