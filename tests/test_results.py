"""A result says how it was measured, and not on whose machine."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from recseg.errors import RecsegError
from recseg.evaluation import results
from recseg.evaluation.results import hardware, versions, without_paths, write_result


def test_a_result_carries_its_origin(tmp_path: Path) -> None:
    path = tmp_path / "results" / "voc.json"
    written = write_result(path, {"miou": 0.5}, command=["recseg", "evaluate", "--data", "voc"], seed=3, split="val")
    read = json.loads(path.read_text(encoding="utf-8"))
    assert read == written
    assert (read["miou"], read["split"], read["seed"]) == (0.5, "val", 3)
    assert read["command"] == "recseg evaluate --data voc"
    assert set(read["versions"]) == {"python", "recseg", "torch", "torchvision"}
    assert set(read["hardware"]) == {"cpu", "cores", "gpu"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", read["date"])


def test_the_command_line_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/home/me/.venv/bin/recseg", "evaluate", "--weights", "/home/me/runs/a b"])
    assert write_result(tmp_path / "a.json", {})["command"] == "recseg evaluate --weights 'a b'"


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("recseg evaluate --weights /home/me/run --json data/results/voc.json",
         "recseg evaluate --weights run --json data/results/voc.json"),
        ("recseg train --encoder-weights ../elsewhere/n.safetensors", "recseg train --encoder-weights n.safetensors"),
        ("recseg train --out=/tmp/x/run", "recseg train --out=run"),
        ("RECSEG_VOC_ROOT=/data/voc recseg train", "RECSEG_VOC_ROOT=voc recseg train"),
        ("recseg predict ~/cat.jpg ~me/dog.jpg", "recseg predict cat.jpg dog.jpg"),
        ("recseg predict '/home/my images/cat.jpg'", "recseg predict cat.jpg"),
        ("recseg predict '/home/me/black cat.jpg'", "recseg predict 'black cat.jpg'"),
        ("/home/me/venv/bin/python -m recseg", "python -m recseg"),
        (r"recseg predict 'C:\Users\me\cat.jpg'", "recseg predict cat.jpg"),
        ("recseg evaluate --data voc --split train_aug --weights runs/first", None),
        ("python book/../tools/x.py https://host.org/a/b", None),
    ],
)  # fmt: skip
def test_paths_outside_the_project_are_cut_to_names(tmp_path: Path, typed: str, kept: str | None) -> None:
    for command in (typed, shlex.split(typed)):
        assert write_result(tmp_path / "a.json", {}, command=command)["command"] == (kept or typed)


def test_paths_in_a_sentence() -> None:
    seen = "read /home/me/a.png (see https://host.org/a/b), 3/4 of it, and/or ./runs/first and ../x/b.png"
    kept = "read a.png (see https://host.org/a/b), 3/4 of it, and/or ./runs/first and b.png"
    assert without_paths(seen) == kept


def test_no_path_hides_deeper_down(tmp_path: Path) -> None:
    value = {"weights": tmp_path / "run", "lists": [(str(tmp_path / "a.png"), 3, None)], "name": "aeroplane"}
    assert without_paths(value) == {"weights": "run", "lists": [["a.png", 3, None]], "name": "aeroplane"}


def test_this_folder_is_named_nowhere(tmp_path: Path) -> None:
    write_result(tmp_path / "a.json", {"root": str(tmp_path)}, command=f"recseg evaluate --data '{tmp_path}'")
    assert str(tmp_path.parent) not in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object()])
def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path, value: object) -> None:
    path = tmp_path / "a.json"
    write_result(path, {"miou": 1})
    before = path.read_text(encoding="utf-8")
    with pytest.raises(RecsegError, match=r"a\.json"):
        write_result(path, {"miou": value})
    assert path.read_text(encoding="utf-8") == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_commit_of_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        settings = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *settings, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    monkeypatch.setattr(results, "_CLONE", tmp_path)
    assert results.commit_of_clone() == (None, None)  # an installed package
    git("init", "-q")
    assert results.commit_of_clone() == (None, None)  # nothing committed yet
    (tmp_path / "recseg").mkdir()
    (tmp_path / "recseg" / "a.py").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    assert results.commit_of_clone() == (git("rev-parse", "HEAD"), False)
    (tmp_path / "note.txt").write_text("not code")
    assert results.commit_of_clone()[1] is False
    (tmp_path / "recseg" / "a.py").write_text("2")
    assert results.commit_of_clone()[1] is True


def test_hardware_and_versions_are_known_here() -> None:
    assert hardware()["cores"] >= 1
    assert hardware()["cpu"]
    assert versions()["torch"].startswith("2.")
