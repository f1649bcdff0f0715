"""The documents: their links lead somewhere, and the README is read to its end."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    file
    for file in ROOT.rglob("*.md")
    if not any(part in (".git", ".venv", "node_modules") or part.endswith(".egg-info") for part in file.parts)
)
_LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchors(file: Path) -> set[str]:
    """The anchors of a document's headings, as code hosts make them."""
    titles = _HEADING.findall(file.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", title.replace("`", "").lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    lost = []
    for link in _LINK.findall(document.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            lost.append(link)
    assert not lost


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160


def test_the_readme_names_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "deploy/quickstart  " in text
    assert "deploy/quickstart tests" in text


def test_each_failure_that_is_described_names_a_test_that_is_there():
    text = (ROOT / "pipeline" / "README.md").read_text(encoding="utf-8")
    table = text.partition("## When something breaks\n")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    named = [re.fullmatch(r"\|.+\|.+\| `(\S+\.py)::(test_\w+)` \|", row) for row in rows]
    assert rows
    assert [row for row, name in zip(rows, named, strict=True) if name is None] == []
    lost = [name[0] for name in named if name and not is_there(ROOT / "tests" / name[1], name[2])]
    assert lost == []


def is_there(file: Path, test: str) -> bool:
    return file.is_file() and f"def {test}(" in file.read_text(encoding="utf-8")


def test_each_line_of_the_log_that_is_explained_is_written_somewhere():
    text = (ROOT / "deploy" / "OPERATIONS.md").read_text(encoding="utf-8")
    table = text.partition("## The log\n")[2].partition("\n## ")[0]
    explained = [
        name for row in table.splitlines() if row.startswith("| `") for name in re.findall(r"`(\w+)`", cell(row))
    ]
    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "pipeline").rglob("*.py"))
    assert explained
    assert [name for name in explained if not written(name, code)] == []


def cell(row: str) -> str:
    return row.split("|")[1]


def written(name: str, code: str) -> bool:
    stem = name.removesuffix("_store").removesuffix("_mllm")
    return f'"{name}"' in code or f'f"{stem}_{{' in code
