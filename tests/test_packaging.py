"""The house around the package: what is installed, from where, and under which name agrees everywhere."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from recseg.cli import main as cli
from recseg.models.config import RecurrentUNetConfig
from recseg.training.config import TrainConfig, resolve

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
METADATA = PROJECT["project"]
EXTRAS = METADATA["optional-dependencies"]


def pins() -> dict[str, list[Requirement]]:
    """Pins by name. A name may have several lines, for different Pythons or systems."""
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            found.setdefault(canonicalize_name(pin.name), []).append(pin)
    return found


def pinned_version(pin: Requirement) -> str:
    (specifier,) = pin.specifier
    assert specifier.operator == "==", f"constraints.txt: {pin} is not an exact version"
    return specifier.version


def declared() -> list[Requirement]:
    lines = [*METADATA["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
    return [r for r in map(Requirement, lines) if canonicalize_name(r.name) != METADATA["name"]]


def tracked() -> list[Path]:
    """Files of the repository; all files where it is not a git clone."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git clone: what belongs to the repository is unknown")
    return [path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file()]


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_every_dependency_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    versions = [pinned_version(pin) for pin in pins().get(canonicalize_name(requirement.name), [])]
    assert versions, f"constraints.txt lacks {requirement.name}: make constraints"
    for version in versions:
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} against {version}"


def test_dependencies_are_floors_not_pins() -> None:
    for requirement in map(Requirement, METADATA["dependencies"]):
        assert {s.operator for s in requirement.specifier} == {">="}, f"{requirement} would break other environments"


def test_pins_leave_other_systems_alone() -> None:
    for name, several in pins().items():
        if name.startswith(("nvidia-", "cuda-", "triton")):
            assert all(pin.marker and "linux" in str(pin.marker) for pin in several), f"{name} exists on Linux alone"
        assert len(several) == 1 or all(pin.marker for pin in several), f"{name} is pinned twice"


def test_installed_versions_are_the_pinned_ones() -> None:
    from importlib.metadata import version

    for name in ("torch", "torchvision", "numpy", "pillow"):
        (pin,) = pins()[name]
        assert Version(version(name)).public == Version(pinned_version(pin)).public, "make setup brings them in line"


def test_environment_for_conda_agrees() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (python,) = [Requirement(d) for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python")]
    assert str(python.specifier) == METADATA["requires-python"]
    (with_pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    constraint, package = with_pip
    assert constraint == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", package)
    assert extras and set(extras[1].split(",")) <= set(EXTRAS)
    installed_by_make = re.search(r"-e '\.\[([\w,]+)\]'", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert installed_by_make and installed_by_make[1] == extras[1]


def test_tools_agree_on_the_oldest_python() -> None:
    floor = METADATA["requires-python"].removeprefix(">=")
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{floor.replace('.', '')}"
    assert PROJECT["tool"]["mypy"]["python_version"] == floor
    assert f"version_info < ({floor.replace('.', ', ')})" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == METADATA["version"]
    assert citation["license"] == METADATA["license"]
    assert citation["repository-code"] == METADATA["urls"]["Repository"]


def test_repository_address_is_the_same_everywhere() -> None:
    checked = subprocess.run(
        [sys.executable, "book/set_repository.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_repository_command_rewrites_every_place(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    for name in ("pyproject.toml", "_config.yml", "CITATION.cff", "README.md", "CONTRIBUTING.md"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    for path in (ROOT / "book").glob("*.*"):
        if path.suffix in {".md", ".ipynb", ".py"}:
            (tmp_path / "book" / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    script, old = tmp_path / "book" / "set_repository.py", METADATA["urls"]["Repository"].rpartition("github.com/")[2]
    command = [sys.executable, str(script), "https://github.com/some-one/their.fork/"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    for path in tmp_path.rglob("*.*"):
        if path.suffix not in {".py", ""}:
            assert f"github.com/{old}" not in path.read_text(encoding="utf-8"), path.name
    assert "some-one/their.fork" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert subprocess.run([sys.executable, str(script), "--check"], capture_output=True, check=False).returncode == 0
    assert subprocess.run([sys.executable, str(script), "nonsense"], capture_output=True, check=False).returncode == 2


@pytest.mark.parametrize(
    "options",
    [
        {"data": "pictograms", "minutes": 40.0},
        {"data": "voc", "model": "dense", "steps": 9, "seed": 2, "size": 64},
        {
            "data": "voc",
            "network": RecurrentUNetConfig(encoder="mobilenet_v2", hidden=48),
            "encoder_weights": "y.safetensors",
            "split": "train_aug",
            "size": 160,
        },
        {
            "data": "voc",
            "network": RecurrentUNetConfig(encoder="resnet34", decoder_widths=(64, 32)),
            "pretrained": True,
            "freeze": 0,
            "lr": 0.5,
            "minutes": 90.0,
        },
    ],
)
def test_a_published_training_says_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "book"))
    from publish import train_command

    config = resolve(TrainConfig(**options))
    words = train_command(config).split()
    assert words[:2] == ["recseg", "train"]
    parsed = vars(cli.build_parser().parse_args([*words[1:], "--out", "run"]))
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in parsed.items()}
    names = {field.name for field in fields(TrainConfig)} & given.keys()
    sizes = {field.name for field in fields(RecurrentUNetConfig)} & given.keys() - names
    network = RecurrentUNetConfig(**{name: given[name] for name in sizes if given[name] is not None})
    again = TrainConfig(**{name: given[name] for name in names if given[name] is not None}, network=network)
    assert resolve(again) == config


def test_wheel_carries_code_results_and_the_weights_of_the_pictograms(tmp_path: Path) -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="make setup installs it")
    (built,) = wheel.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    assert Path(built).stat().st_size <= 10_000_000
    with zipfile.ZipFile(built) as archive:
        carried = set(archive.namelist())
    code = {str(path.relative_to(ROOT)) for path in tracked() if path.is_relative_to(ROOT / "recseg")}
    assert "recseg/py.typed" in code
    data = ROOT / "data"
    expected = [data / "weights" / "README.md", data / "weights" / "registry.json"]
    expected += [*data.glob("results/*"), *data.glob("weights/pictograms-*.safetensors")]
    assert carried == {
        *code,
        *(f"recseg/_data/{path.relative_to(data).as_posix()}" for path in expected),
        *(name for name in carried if name.startswith(f"recseg-{METADATA['version']}.dist-info/")),
    }


def test_repository_names_no_registry_and_no_machine() -> None:
    # Joined here, so that this file does not find itself.
    hosts = ["py" + "pi.org", "pythonhosted" + ".org", "registry.npm" + "js.org", "download.py" + "torch.org"]
    machine = ["/wo" + "rk/", "/ro" + "ot/", "../sha" + "red"]
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an image or weights
        if path == ROOT / ".ci" / "run":  # the one place that may look beside the clone
            text = text.replace("../sha" + "red", "")
        found += [f"{path.relative_to(ROOT)}: {word}" for word in [*hosts, *machine] if word in text]
    assert not found, "\n".join(found)


def test_weights_are_never_pickles() -> None:
    banned = {"torch.load", "torch.save", "pickle.load", "pickle.loads", "pickle.dump", "pickle.dumps"}
    for path in tracked():
        assert path.suffix not in {".pt", ".pth", ".pkl", ".pickle", ".ckpt"}, path
    for path in (ROOT / "recseg").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not called & banned, path


def test_importing_the_package_is_light() -> None:
    code = "import sys, recseg; print(sorted({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_every_exported_name_exists() -> None:
    import recseg

    assert set(recseg.__all__) <= set(dir(recseg))
    for name in recseg.__all__:
        assert getattr(recseg, name) is not None
    assert recseg.__version__ == METADATA["version"]
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = recseg.nonsense


def test_readme_shows_the_measured_results() -> None:
    checked = subprocess.run([sys.executable, "book/fill_readme.py", "--check"], cwd=ROOT, check=False)
    assert checked.returncode == 0, "data/results has changed: make readme"


def test_the_map_for_contributors_is_the_contract_and_names_all_there_is() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = re.search(r"^```\n(cli .*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert drawn
    lines = [line.split("  ")[0] for line in drawn[1].splitlines()]
    (contract,) = PROJECT["tool"]["importlinter"]["contracts"]
    assert lines == contract["layers"]
    packages = {path.parent.name for path in (ROOT / "recseg").glob("*/__init__.py")}
    modules = {path.stem for path in (ROOT / "recseg").glob("*.py")} - {"__init__"}
    assert sorted(name for line in lines for name in line.split(" | ")) == sorted(packages | modules)


def test_the_table_for_contributors_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folder = ROOT
    for row in re.findall(r"^\| .* \| (.*) \|$", text, re.MULTILINE):
        for name in re.findall(r"`([\w/*]+\.py)`", row):
            path = ROOT / name if "/" in name else folder / name  # `losses.py` stands beside the file before it
            assert list(path.parent.glob(path.name)), name
            folder = path.parent


def test_links_within_the_repository_lead_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        text = re.sub(r"`[^`\n]+`", "", (ROOT / name).read_text(encoding="utf-8"))  # a code span shows how to write one
        for target in re.findall(r"\]\(([^)#\s]+)\)", text):
            if "://" not in target:
                assert (ROOT / target).exists(), f"{name}: {target}"


def test_every_action_is_pinned_by_its_hash() -> None:
    # A tag can be moved to other code by whoever holds the action's repository; a commit cannot.
    steps = [
        (path.name, line.strip())
        for path in (ROOT / ".github" / "workflows").iterdir()
        for line in path.read_text(encoding="utf-8").splitlines()
        if "uses:" in line
    ]
    assert steps
    versions: dict[str, set[str]] = {}
    for name, line in steps:
        if re.fullmatch(r"uses: \./\.github/workflows/[\w-]+\.yml", line):
            continue  # of this repository, at this commit
        pinned = re.fullmatch(r"(?:- )?uses: ([\w./-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+", line)
        assert pinned, f"{name}: {line}: expected OWNER/ACTION@40 hexadecimal digits # vX.Y.Z"
        versions.setdefault(pinned[1], set()).add(line[line.index("@") :])
    assert all(len(several) == 1 for several in versions.values()), versions


def test_dependabot_watches_every_ecosystem() -> None:
    settings = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))
    watched = {
        (update["package-ecosystem"], folder.strip("/"))
        for update in settings["updates"]
        for folder in update.get("directories", [update.get("directory")])
    }
    locks = {("npm", str(path.parent.relative_to(ROOT))) for path in tracked() if path.name == "package-lock.json"}
    assert watched == {("pip", ""), ("github-actions", ""), *locks}


def test_changelog_names_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\](.*)$", text, re.MULTILINE)
    versions = [name for name, _ in headings if name != "Unreleased"]
    assert METADATA["version"] == versions[0], "the version's own section comes first, after what is not released yet"
    assert sorted(versions, key=Version, reverse=True) == versions
    assert all(re.fullmatch(r" – \d{4}-\d\d-\d\d", date) for name, date in headings if name != "Unreleased")
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds


def test_release_is_tested_built_once_and_published_without_a_token() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert "secrets." not in text and "password" not in text
    workflow = yaml.safe_load(text)
    jobs = workflow["jobs"]
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as a truth value
    assert jobs["test"]["uses"] == "./.github/workflows/ci.yml"
    assert jobs["release"]["needs"] == ["test", "build"] and jobs["pypi"]["needs"] == "release"
    assert jobs["pypi"]["environment"] == "pypi"
    assert workflow["permissions"] == {"contents": "read"}
    granted = {name: job["permissions"] for name, job in jobs.items() if "permissions" in job}
    assert granted == {"release": {"contents": "write"}, "pypi": {"id-token": "write"}}
    assert sum("uv build" in str(step.get("run")) for job in jobs.values() for step in job.get("steps", [])) == 1


def test_pre_commit_runs_what_make_lint_runs() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local", "a hook from elsewhere would have a version of its own, and need the network"
    (hook,) = repository["hooks"]
    assert (hook["entry"], hook["language"], hook["pass_filenames"]) == ("make lint", "system", False)
