"""Published weights that an installation does not carry: fetched by name, once, whole and right."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from conftest import refusal
from test_download import Mirror, Server, dead_url, server  # noqa: F401 - a fixture

from recseg.errors import RecsegError
from recseg.resources import resource
from recseg.weights import registry
from recseg.weights.io import load
from recseg.weights.registry import register

RESULT: dict[str, Any] = {"data": "pictograms", "split": "val", "miou": 0.5, "images": 4}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def content(tiny_dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An installation whose registry names weights that it does not carry; returns what is to be fetched."""
    folder = tmp_path / "installed"
    register("cats", tiny_dense, RESULT, folder=folder)
    content = (folder / "cats.safetensors").read_bytes()
    (folder / "cats.safetensors").unlink()

    def resource(*parts: str) -> Path:
        path = folder.joinpath(*parts[1:])
        if not path.exists():
            raise RecsegError(f"data/{'/'.join(parts)}: not part of this installation of recseg")
        return path

    monkeypatch.setattr(registry, "resource", resource)
    return content


def serve(server: Server, monkeypatch: pytest.MonkeyPatch, *mirrors: Mirror) -> None:  # noqa: F811
    server.mirrors = {str(number): mirror for number, mirror in enumerate(mirrors)}
    monkeypatch.setattr(registry, "addresses", lambda _: [server.url(name) for name in server.mirrors])


def test_weights_are_fetched_once_by_name(
    server: Server,  # noqa: F811
    content: bytes,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve(server, monkeypatch, Mirror(content))
    assert load("cats").kind == "dense"
    (kept,) = cache.iterdir()
    assert kept.name == f"cats-{hashlib.sha256(content).hexdigest()[:8]}.safetensors"
    assert kept.read_bytes() == content
    serve(server, monkeypatch)  # no network: the cache does
    assert load("cats").kind == "dense"
    assert len(server.asked) == 1


def test_a_download_that_breaks_off_goes_on_where_it_was(
    server: Server,  # noqa: F811
    content: bytes,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve(server, monkeypatch, Mirror(content, breaks=[1000, 0]))
    refusal(lambda: load("cats"), "cats", "broke off", "run it again")
    serve(server, monkeypatch, Mirror(content))
    assert load("cats").kind == "dense"
    assert [asked for _, asked in server.asked] == [None, "bytes=1000-", "bytes=1000-"]


def test_weights_trained_anew_since_do_not_take_their_place(
    server: Server,  # noqa: F811
    content: bytes,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    newer = content[:-1] + bytes([content[-1] ^ 1])
    serve(server, monkeypatch, Mirror(status=404), Mirror(newer))
    refusal(lambda: load("cats"), "cats", "404", "wrong checksum", "path of a copy")
    assert not list(cache.iterdir())
    serve(server, monkeypatch, Mirror(newer), Mirror(content))
    assert load("cats").kind == "dense"


def test_without_a_network_the_message_says_what_to_do(
    content: bytes, cache: Path, tiny_dense: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = dead_url()
    monkeypatch.setattr(registry, "addresses", lambda _: [url])
    refusal(lambda: load("cats"), "cats", "not part of this installation", url, "network connection", "path of a copy")
    assert load(tiny_dense).kind == "dense"
    (cache / "cats.safetensors").with_stem(f"cats-{hashlib.sha256(content).hexdigest()[:8]}").write_bytes(b"mine")
    refusal(lambda: load("cats"), "cats", "another checksum", "delete it")


def test_a_clone_holds_every_published_file_and_asks_nobody(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "addresses", lambda _: pytest.fail("asked the network"))
    for entry in registry.published_weights():
        assert registry.find(entry["name"]) == resource("weights", entry["file"])
    assert not cache.exists()


def test_addresses_follow_the_repository_and_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    from email.message import Message

    about = Message()
    about["Version"] = "1.2.3"
    about["Project-URL"] = "Other, https://example.org"
    about["Project-URL"] = "Repository, https://github.com/some/fork"
    monkeypatch.setattr("importlib.metadata.metadata", lambda _: about)
    assert registry.addresses("cats.safetensors") == [
        "https://github.com/some/fork/releases/download/v1.2.3/cats.safetensors",
        "https://github.com/some/fork/raw/main/data/weights/cats.safetensors",
    ]


def test_code_that_is_not_installed_knows_no_address(
    content: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import PackageNotFoundError

    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.metadata", absent)
    refusal(lambda: load("cats"), "cats", "no address", "path of a copy")
