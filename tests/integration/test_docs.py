# SPDX-License-Identifier: MIT
"""What the documents claim can be followed: links lead somewhere, named tests and files exist."""

import os
import re
from pathlib import Path

import pytest
from local_proto import P

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


PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()


@pytest.mark.parametrize("name", P.MSG)
def test_protocol_names_every_message(name):
    assert re.search(rf"\b{name}\b", PROTOCOL), f"{name} is not in docs/protocol.md"


def test_protocol_and_header_agree_on_the_in_flight_area():
    """Sizes of its structures, the names of fields that the text speaks of, and all states."""
    rows = re.findall(r"^\| `struct (vgpu_inflight\w*)`[^|]*\| (\d+) \| ([^|]*)", PROTOCOL, flags=re.M)
    assert len(rows) == 3
    for struct, size, fields in rows:
        assert P.size(struct) == int(size), struct
        for field in re.findall(r"\b[a-z]+_[a-z]+\b", fields):
            assert field in P.layouts[struct].fields, f"{struct} has no {field}"
    states = re.findall(r"^\| (FREE|TAKEN|STARTED|COMPLETING)\b", PROTOCOL, flags=re.M)
    numbers = [P.constants[f"VGPU_INFLIGHT_{state}"] for state in states]
    assert numbers == [0, 1, 2, 3]


def test_protocol_counts_the_descriptors_of_hello():
    rows = re.findall(r"^\| (BAR 2|in-flight area|writers' pipe|kick|call)", PROTOCOL, flags=re.M)
    assert rows[:3] == ["BAR 2", "in-flight area", "writers' pipe"] and rows[3:5] == ["kick", "call"]
    assert (P.HELLO_FD_SHM, P.HELLO_FD_INFLIGHT, P.HELLO_FD_WRITERS) == (0, 1, 2)
