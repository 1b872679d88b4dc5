"""Files, folders and names in the documents exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "ecomcharge"
DOCUMENTS = [path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")) if path.name != "CHANGELOG.md"]
FILE = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|sql|po|toml|md|lua))`")
FOLDER = re.compile(r"`((?:[\w.-]+/)+)`")
NAME_IN_FILE = re.compile(r"`(\w+)` in `((?:[\w.-]+/)*\w+\.py)`")
PLACEHOLDER = "NNNN"  # in the name of a file that the reader writes
TEST = re.compile(r"`(test_\w+)`")


def paths_of(name: str) -> list[Path]:
    """The places of a file or folder. A name without a folder may be in any folder of the program."""
    candidates = [ROOT / name, SOURCE / name, ROOT / "docs" / name]
    if "/" not in name:
        candidates += SOURCE.rglob(name)
    return [path for path in candidates if path.exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_folders_that_a_document_mentions_exist(document: Path) -> None:
    text = document.read_text()
    names = {*FILE.findall(text), *FOLDER.findall(text)}
    assert sorted(name for name in names if PLACEHOLDER not in name and not paths_of(name)) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_names_that_a_document_attributes_to_a_file_exist_in_it(document: Path) -> None:
    for name, file in NAME_IN_FILE.findall(document.read_text()):
        assert any(re.search(rf"\b{name}\b", path.read_text()) for path in paths_of(file)), f"{name} in {file}"


def test_tests_that_documents_name_exist() -> None:
    defined = {name for path in ROOT.glob("tests/**/test_*.py") for name in re.findall(r"def (test_\w+)\(", path.read_text())}
    named = {name for document in DOCUMENTS for name in TEST.findall(document.read_text())}
    assert sorted(named - defined) == []


def test_the_security_review_answers_every_group_and_names_tests() -> None:
    rows = re.findall(r"^\| ((?:API|V)\d.*?) \| (.*) \|$", (ROOT / "docs/security-review.md").read_text(), re.MULTILINE)
    answered = {number for group, _ in rows for number in re.findall(r"API\d+|V\d+(?=\.)", group)}
    assert answered == {f"API{number}" for number in range(1, 11)} | {f"V{number}" for number in range(1, 18)}
    for group, answer in rows:
        for state, text in re.findall(r"\*\*(\w+)\*\*:(.*?)(?=\*\*\w+\*\*:|$)", answer):
            assert state in ("holds", "operator", "open"), group
            assert state != "holds" or re.search(r"`test_\w+`|`tests/[\w/]+\.py`|\(no test\)", text), group


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_files_and_headings_resolve(document: Path) -> None:
    for file, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", document.read_text()):
        target = document.parent / file if file else document
        assert target.exists(), file
        if heading:
            assert heading in anchors_of(target), f"{file}#{heading}"


def anchors_of(document: Path) -> set[str]:
    """The anchors of the headings, derived from their texts."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_layout_in_the_design_lists_every_folder_and_file() -> None:
    layout = (ROOT / "docs/design.md").read_text().partition("\n## Layout\n")[2].partition("**Dependencies point down only**")[0]
    folder, listed = "", set()
    for indent, name, modules in re.findall(r"^    ( *)(\w+)/ +(.*(?:\n {15,}\S.*)*)$", layout, re.MULTILINE):
        folder = f"{folder.partition('/')[0]}/{name}" if indent else name
        listed.add(folder)
        for module in re.sub(r"\(.*?\)", "", modules).split():
            path = SOURCE / folder / module.removesuffix("/")
            assert path.is_dir() or path.with_suffix(".py").exists(), f"{folder}/{module}"
    assert listed == {path.parent.relative_to(SOURCE).as_posix() for path in SOURCE.glob("**/__init__.py")} - {"."}
