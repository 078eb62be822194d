"""A training that is interrupted, or whose disk or data fails: one line, and a checkpoint that goes on exactly."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import refusal
from kill_work import recurrent

from recseg.cli.main import main
from recseg.training import trainer as training
from recseg.training.run_folder import Log, locked, open_log
from recseg.training.trainer import Trainer
from runs import begin, same_run, step_of

STEPS, FAULT = 6, 3  # length of a run, and the step in which the fault happens
Fails = Callable[[Path], str]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network, and a line of log for each step."""
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    monkeypatch.setattr(training, "build_model", recurrent)


@pytest.fixture
def whole(tiny_voc: Path, tmp_path: Path) -> Path:
    """The run as it is without a fault."""
    run = begin(tmp_path / "whole", tiny_voc, steps=STEPS, checkpoint_seconds=3600.0)
    assert main(["train", "--resume", str(run)]) == 0
    return run


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Go on with a run that must end with exit code 2 and one line, which it returns."""

    def check(run: Path) -> str:
        capsys.readouterr()
        assert main(["train", "--resume", str(run)]) == 2
        last = capsys.readouterr().err.split("\r")[-1].strip().splitlines()  # after the bar
        assert last[-1].startswith("recseg: error: ")
        assert "Traceback" not in "".join(last)
        return last[-1]

    return check


def in_step(step: int, fault: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen in the middle of a step (1-based)."""
    update = Trainer.update

    def hit(self: Trainer, batch: Any) -> Any:
        terms = update(self, batch)
        if self.step + 1 == step:
            fault()
        return terms

    monkeypatch.setattr(Trainer, "update", hit)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_run_within_a_step(
    number: signal.Signals, whole: Path, tiny_voc: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = begin(tmp_path / "cut", tiny_voc, steps=STEPS, checkpoint_seconds=3600.0)
    with monkeypatch.context() as patch:
        in_step(FAULT, lambda: os.kill(os.getpid(), number), patch)
        assert main(["train", "--resume", str(run)]) == 130
    words = f"recseg: stopped after step {FAULT}; continue with --resume {run}\n"
    assert capsys.readouterr().err.endswith(words) and step_of(run) == FAULT
    assert main(["train", "--resume", str(run)]) == 0
    same_run(whole, run, STEPS)


def test_ctrl_c_in_a_terminal_reaches_the_readers_too(tiny_voc: Path, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", tiny_voc, steps=10_000, workers=1, model="dense")
    command = [sys.executable, "-m", "recseg.cli", "train", "--resume", str(run)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 120
    while not (run / "weights.safetensors").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error and error.strip().splitlines()[-1].startswith("recseg: stopped after step ")
    assert f"after step {step_of(run)};" in error


@contextlib.contextmanager
def mounted(*options: str) -> Iterator[None]:
    """A file system, mounted for the time of a test; `options` end with its folder."""
    done = subprocess.run(["mount", *options], capture_output=True, text=True) if sys.platform == "linux" else None
    if done is None or done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip() if done else sys.platform}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", options[-1]], check=True)


def test_a_full_disk_leaves_the_last_checkpoint(
    whole: Path, tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)):
        run = begin(disk / "run", tiny_voc, steps=STEPS)

        def fill() -> None:
            with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))

        with monkeypatch.context() as patch:
            in_step(FAULT, fill, patch)
            words = fails(run)
        assert str(run) in words and "No space left" in words
        assert step_of(run) == FAULT - 1
        (disk / "filler").unlink()
        assert main(["train", "--resume", str(run)]) == 0
        same_run(whole, run, STEPS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_that_cannot_grow_is_named(tmp_path: Path) -> None:
    with open("/dev/full", "ab", buffering=0) as stream:
        refusal(lambda: Log(tmp_path / "log.jsonl", stream).write({"step": 1}), "log.jsonl", "No space left")


@contextlib.contextmanager
def read_only(folder: Path, how: str) -> Iterator[Callable[[], None]]:
    """Yields what makes a folder read-only for this process, by a mount or by permissions; mended at the end."""
    with contextlib.ExitStack() as stack:

        def close() -> None:
            if how == "mount":
                stack.enter_context(mounted("--bind", str(folder), str(folder)))
                subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
                return
            folder.chmod(0o555)
            stack.callback(folder.chmod, 0o777)
            if not os.geteuid():  # whom permissions do not bind
                os.seteuid(65534)
                stack.callback(os.seteuid, 0)

        yield close


@pytest.mark.parametrize("how", ["mount", "permissions"])
@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be made read-only on Windows")
def test_a_folder_that_turns_read_only_leaves_the_last_checkpoint(
    how: str, whole: Path, tiny_voc: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to other users
        os.chmod(place, 0o755)
        run = begin(Path(place) / "run", tiny_voc, steps=STEPS)
        with monkeypatch.context() as patch, read_only(run, how) as close:
            in_step(FAULT, close, patch)
            words = fails(run)
        assert str(run) in words and ("Read-only" in words if how == "mount" else "Permission denied" in words)
        assert step_of(run) == FAULT - 1
        assert main(["train", "--resume", str(run)]) == 0
        same_run(whole, run, STEPS)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_vanished_data_folder_leaves_what_was_learned(
    workers: int, whole: Path, tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    run = begin(tmp_path / "run", tiny_voc, steps=STEPS, workers=workers, checkpoint_seconds=3600.0)
    away = tmp_path / "away"
    with monkeypatch.context() as patch:
        in_step(1, lambda: tiny_voc.rename(away), patch)
        words = fails(run)
    assert f"{tiny_voc}" in words and "no such file" in words
    assert step_of(run) >= 1  # saved at the fault, an hour before its time
    away.rename(tiny_voc)
    assert main(["train", "--resume", str(run)]) == 0
    same_run(whole, run, STEPS)


def test_two_processes_do_not_share_a_run(tiny_voc: Path, tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("no such locks on Windows")
    run = begin(tmp_path / "run", tiny_voc, steps=1)
    code = (
        "import fcntl, sys\n"
        "config = open(sys.argv[1], 'rb+')\n"
        "fcntl.lockf(config, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(run / "config.json")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"locked\n"

        def lock() -> None:
            with locked(run):
                pass

        refusal(lock, run, "another process")
        other.kill()
    lock()  # the lock ended with the process
    assert (run / "config.json").exists()


def test_a_log_with_bytes_that_are_no_text_loses_only_those_lines(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"step": 1}\n\xff\xfe\x00\n{"step": 2}\n{"step": 3}\n')
    with open_log(log, 2) as stream:
        stream.write({"step": 3, "again": True})
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "again": true}\n'


def test_files_are_on_the_disk_before_their_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recseg.files import atomic_write

    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        done.append("folder" if os.path.samestat(os.fstat(handle), os.stat(tmp_path)) else "file")
        sync(handle)

    def renamed(*names: Any) -> None:
        done.append("name")
        replace(*names)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", renamed)
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("a")
    assert done == (["file", "name", "folder"] if sys.platform != "win32" else ["file", "name"])


@pytest.mark.parametrize(
    "arguments", [["--size", "16", "--batch-size", "1"], ["--size", "16", "--batch-size", "1", "--model", "dense"]]
)
def test_a_batch_that_no_norm_takes_is_one_line(
    arguments: list[str], tiny_voc: Path, tmp_path: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the network that a user gets
    run = ["--out", tmp_path / "run", "--steps", "1", "--device", "cpu", "--workers", "0"]
    refuses(["train", "--data", tiny_voc, *arguments, *run], "batch_size 1", "size 16")
