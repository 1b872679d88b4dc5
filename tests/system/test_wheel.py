"""The built wheel, installed into an empty environment, is a working program."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from support.process import ServerProcess

ROOT = Path(__file__).parents[2]
SOURCES = ("src", "pyproject.toml", "README.md", "LICENSE", "setup.py", "MANIFEST.in")
TIMEOUT_SECONDS = 120


def run(*command: object, folder: Path) -> str:
    """Standard output of a command that must succeed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build without network from a copy, so that the build leaves no files in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, folder)
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--wheel-dir", "dist")
    run(sys.executable, "-m", "pip", "wheel", *options, ".", folder=folder)
    [built] = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel. Its dependencies are the packages of the running environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    options = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, folder=folder)
    [site_packages] = folder.glob("lib/python3*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_wheel_contains_every_file_of_the_package(wheel: Path) -> None:
    files = {path.relative_to(ROOT / "src") for path in (ROOT / "src" / "ecomcharge").rglob("*") if path.is_file()}
    expected = {path for path in files if path.suffix not in (".pyc", ".pot", ".mo")}
    assert {path.suffix for path in expected} >= {".py", ".sql", ".html", ".css", ".js", ".po"}
    with zipfile.ZipFile(wheel) as archive:
        assert expected - {Path(name) for name in archive.namelist()} == set()


@pytest.mark.parametrize("command", [["ecomcharge"], ["python", "-m", "ecomcharge"]], ids=" ".join)
def test_the_installed_command_prints_its_version(environment: Path, command: list[str]) -> None:
    program, *arguments = command
    assert run(environment / "bin" / program, *arguments, "--version", folder=environment).strip() == version("ecomcharge")


def test_the_installed_program_serves_its_pages_and_api_description(environment: Path, tmp_path: Path) -> None:
    python = environment / "bin" / "python"
    found = run(python, "-c", "import ecomcharge; print(ecomcharge.__file__)", folder=tmp_path)
    assert Path(found.strip()).is_relative_to(environment)
    with ServerProcess(f"sqlite:///{tmp_path}/test.db", tmp_path, "--sandbox", python=python) as process:
        for path, status in {"/readyz": 200, "/docs": 200, "/openapi.json": 200, "/v2/checkout?token=none": 404}.items():
            assert httpx.get(process.url + path).status_code == status, path
