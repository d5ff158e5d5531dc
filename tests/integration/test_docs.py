# SPDX-License-Identifier: MIT
"""What the documents claim can be followed: links lead somewhere, named tests and files exist."""

import os
import re
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("VGPU_SOURCE_DIR", Path(__file__).resolve().parents[2]))
DOCS = sorted(
    p for p in ROOT.rglob("*.md")
    if not {"build", ".git", "LICENSES"} & set(p.relative_to(ROOT).parts)
)
TESTS = "\n".join(p.read_text() for p in (ROOT / "tests").rglob("test_*.py"))
FOLDERS = "proto|common|stub|local-mediator|gpu-worker|guest|admin|deploy|tests|bench|docs"


def anchors(path):
    """The fragments that the headings of a document make."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


@pytest.mark.parametrize("doc", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(doc):
    text = re.sub(r"```.*?```", "", doc.read_text(), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (doc.parent / path) if path else doc
        assert target.exists(), f"{link}: no such file"
        if fragment and target.suffix == ".md":
            assert fragment in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("doc", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_named_tests_exist(doc):
    for name in re.findall(r"`(test_\w+)`", doc.read_text()):
        assert f"def {name}(" in TESTS, f"{name}: no such test"


@pytest.mark.parametrize("doc", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_named_files_exist(doc):
    for path in re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", doc.read_text()):
        places = [ROOT / path, doc.parent / path, ROOT / f"{path}.c"]  # a module goes without .c
        assert any(p.exists() for p in places), f"{path}: no such file"
