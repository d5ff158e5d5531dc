# SPDX-License-Identifier: MIT
"""docs/device.md says what proto/vgpu_regs.h says.

Both are turned into the same tables: name -> value for constants, registers, operations, data types
and errors, and (offset, size, field) for each structure. The header's side comes from the compiler:
a small C program prints every #define, every row of the table macros and offsetof/sizeof of every
field. Then the tables are compared, so that a row that is missing, stale or wrong on either side
fails with its name. Macros with an argument are given as formulas, which are calculated and compared. The
worked example is checked byte by byte against the structures and by the request parser that the daemons
use; the ring driver of the document is compiled and run against the device's end of common/core/ring.c.
"""

import ast
import operator
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("VGPU_SOURCE_DIR", Path(__file__).resolve().parents[2]))
HEADER = ROOT / "proto" / "vgpu_regs.h"
DOC = ROOT / "docs" / "device.md"
SCALARS = {"uint8_t": 1, "uint16_t": 2, "uint32_t": 4, "uint64_t": 8, "char": 1, "float": 4, "double": 8}
UNUSED = "(unused)"  # in tables of the document: bytes between fields
MACRO_VALUES = (0, 1, 16, 63, 64, 128, 1000, 4096)
ARITHMETIC = {ast.Add: operator.add, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv}


def strip_comments(text):
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.S)


class Header:
    """vgpu_regs.h as the compiler sees it."""

    def __init__(self, tmp):
        text = strip_comments(HEADER.read_text())
        defines = re.findall(r"^#define (VGPU_\w+)[ \t]+\S", text, flags=re.M)
        self.names = [n for n in defines if not n.endswith("_")]
        self.macros = re.findall(r"^#define (VGPU_[A-Z_]+)\((\w+)\)", self.without_tables(text), flags=re.M)
        self.structs = self.parse_structs(text)
        self.constants, self.rows, self.layouts, self.sizes, self.formulas = {}, {}, {}, {}, {}
        self.compile(tmp)

    @staticmethod
    def without_tables(text):
        """Without macros that take the name of another macro, or are of the header's own use."""
        return re.sub(r"^#define VGPU_\w+(\([A-Z]\)|_\()", "", text, flags=re.M)

    @staticmethod
    def parse_structs(text):
        found = {}
        for name, body in re.findall(r"struct (vgpu_\w+) \{(.*?)\n\};", text, flags=re.S):
            fields = []
            for ctype, names in re.findall(r"(\w+) ([^;{}]+);", body):
                assert ctype in SCALARS, f"{name}: unknown type {ctype}"
                for n in names.split(","):
                    fields.append(re.sub(r"\[.*", "", n.strip()))
            found[name] = fields
        return found

    def compile(self, tmp):
        lines = [f'printf("C {n} %llu\\n", (unsigned long long)({n}));' for n in self.names]
        for name, argument in self.macros:
            lines += [f'printf("M {name}({argument}) %llu\\n", (unsigned long long)({name}({value}u)));'
                      for value in MACRO_VALUES]
        for struct_name, fields in self.structs.items():
            lines.append(f'printf("S {struct_name} %zu\\n", sizeof(struct {struct_name}));')
            for f in fields:
                lines.append(
                    f'printf("F {struct_name} %zu %zu {f}\\n", offsetof(struct {struct_name}, {f}),'
                    f" sizeof(((struct {struct_name} *)0)->{f}));"
                )
        program = (
            '#include <stddef.h>\n#include <stdio.h>\n#include "proto/vgpu_regs.h"\n'
            '#define R(n, o, a, s) printf("R %s %u %s\\n", #n, (unsigned)(o), #a);\n'
            '#define E(n, o, s) printf("E %s %u %s\\n", #n, (unsigned)(o), s);\n'
            '#define O(n, o, s) printf("O %s %u %s\\n", #n, (unsigned)(o), s);\n'
            '#define D(n, o, b) printf("D %s %u %u\\n", #n, (unsigned)(o), (unsigned)(b));\n'
            "int main(void)\n{\nVGPU_REGS(R) VGPU_ERRORS(E) VGPU_OPS(O) VGPU_DTYPES(D)\n"
            + "\n".join(lines)
            + "\nreturn 0;\n}\n"
        )
        out = run_c(tmp, "header", program)
        for line in out.splitlines():
            kind, name, *rest = line.split(" ", 3)
            if kind == "C":
                self.constants[name] = int(rest[0])
            elif kind == "M":
                self.formulas.setdefault(name, []).append(int(rest[0]))
            elif kind == "S":
                self.sizes[name] = int(rest[0])
            elif kind == "F":
                offset, tail = rest
                size, field = tail.split(" ")
                self.layouts.setdefault(name, []).append((int(offset), int(size), field))
            else:
                self.rows.setdefault(kind, {})[name] = (int(rest[0]), *rest[1:])


def run_c(tmp, name, program, sources=()):
    src = tmp / f"{name}.c"
    src.write_text(program)
    exe = tmp / name
    subprocess.run(
        ["cc", "-std=gnu11", "-Wall", "-Werror", "-D_GNU_SOURCE", f"-I{ROOT}", "-o", exe, src, *sources],
        check=True,
    )
    return subprocess.run([exe], check=True, capture_output=True, text=True).stdout


def number(text):
    return int(text, 0)


def calculate(text, names):
    """The value of a formula of the document."""

    def walk(node):
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return names[node.id]
        return ARITHMETIC[type(node.op)](walk(node.left), walk(node.right))

    return walk(ast.parse(text, mode="eval").body)


class Doc:
    """The tables of docs/device.md, chosen by their head line."""

    def __init__(self):
        text = DOC.read_text()
        self.constants, self.registers, self.errors, self.ops, self.dtypes = {}, {}, {}, {}, {}
        self.layouts, self.sizes, self.formulas = {}, {}, {}
        self.driver = re.search(r"```c\n(.*?)```", text, flags=re.S)[1]
        self.examples = {
            kind: bytes.fromhex("".join(line[6:53] for line in body.strip("\n").splitlines()))
            for kind, body in re.findall(r"```(request|response)\n(.*?)```", text, flags=re.S)
        }
        self.struct = None
        self.head = None
        for line in text.splitlines():
            self.take(line)

    def take(self, line):
        title = re.match(r"#+ .*`struct (vgpu_\w+)`, (\d+) bytes$", line)
        if title:
            self.struct = title[1]
            self.sizes[self.struct] = int(title[2])
        if not line.startswith("|"):
            self.head = None
            return
        cells = [c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        if self.head is None:
            self.head = tuple(cells)
        elif not set(line) <= set("|-"):
            self.row(cells)

    def row(self, cells):
        kind = self.head[0]
        if kind == "constant":
            self.add(self.constants, cells[0].strip("`"), number(cells[1]))
        elif kind == "register":
            self.add(self.registers, cells[0], (number(cells[1]), cells[2]))
        elif kind == "error":
            self.add(self.errors, cells[0], (number(cells[1]), cells[2]))
        elif kind == "op":
            self.add(self.ops, cells[0], (number(cells[1]), cells[2]))
        elif kind == "macro":
            name = cells[0].strip("`")
            argument = re.search(r"\((\w+)\)", name)[1]
            self.add(self.formulas, name, [calculate(cells[1], {argument: v}) for v in MACRO_VALUES])
        elif kind == "dtype":
            self.add(self.dtypes, cells[0], (number(cells[1]), cells[2]))
        elif self.head[:3] == ("offset", "size", "field"):
            self.layouts.setdefault(self.struct, []).append(
                (number(cells[0]), number(cells[1]), cells[2])
            )

    @staticmethod
    def add(table, name, value):
        assert name not in table, f"{DOC.name} has two rows for {name}"
        table[name] = value


@pytest.fixture(scope="module")
def header(tmp_path_factory):
    return Header(tmp_path_factory.mktemp("doc"))


@pytest.fixture(scope="module")
def doc():
    return Doc()


def differences(ours, theirs):
    """Rows in which the document and the header differ, as text."""
    lines = []
    for name in sorted(set(ours) | set(theirs)):
        if name not in ours:
            lines.append(f"{name}: not in {DOC.name} (header: {theirs[name]})")
        elif name not in theirs:
            lines.append(f"{name}: not in {HEADER.name} (document: {ours[name]})")
        elif ours[name] != theirs[name]:
            lines.append(f"{name}: document {ours[name]}, header {theirs[name]}")
    return "\n".join(lines)


def test_constants(doc, header):
    assert len(header.constants) > 60
    assert not differences(doc.constants, header.constants)


def test_registers(doc, header):
    assert len(header.rows["R"]) >= 30
    assert not differences(doc.registers, header.rows["R"])


def test_errors(doc, header):
    assert not differences(doc.errors, header.rows["E"])


def test_ops(doc, header):
    assert not differences(doc.ops, header.rows["O"])


def test_dtypes(doc, header):
    assert not differences(doc.dtypes, header.rows["D"])


def test_struct_sizes(doc, header):
    assert not differences(doc.sizes, header.sizes)


def test_struct_layouts(doc, header):
    named = {name: [row for row in rows if row[2] != UNUSED] for name, rows in doc.layouts.items()}
    assert not differences(named, header.layouts)


def test_formulas(doc, header):
    assert len(header.formulas) >= 4
    assert not differences(doc.formulas, header.formulas)


def test_layouts_have_no_gaps(doc):
    for name, fields in doc.layouts.items():
        end = 0
        for offset, size, field in fields:
            assert offset == end, f"{name}.{field} is at {offset}, the field before it ends at {end}"
            end = offset + size
        assert end == doc.sizes[name], name


def test_numbers_are_unique_and_registers_do_not_overlap(header):
    for kind in "EOD":
        numbers = [row[0] for row in header.rows[kind].values()]
        assert len(numbers) == len(set(numbers))
    used = set()
    for name, (offset, _) in header.rows["R"].items():
        count = 64 if name == "RING_DOORBELL" else 1
        for at in range(offset, offset + 4 * count, 4):
            assert at % 4 == 0 and at < header.constants["VGPU_WINDOW_REQUEST"], name
            assert at not in used, f"{name} overlaps another register"
            used.add(at)


def field(doc, name, data, which, base=0):
    for offset, size, text in doc.layouts[name]:
        if text == which:
            return int.from_bytes(data[base + offset : base + offset + size], "little")
    raise KeyError(which)


def test_example_request(doc):
    data = doc.examples["request"]
    hdr = {f: field(doc, "vgpu_req_hdr", data, f) for _, _, f in doc.layouts["vgpu_req_hdr"]}
    assert hdr == {
        "size": len(data),
        "version": 1,
        "op": doc.ops["ECHO"][0],
        "flags": 0,
        "deadline_ms": 1000,
        "tag": 0x1122334455667788,
        "pool": 0,
        "band": 0xFF,
        "nbufs": 2,
        "body_len": 0,
        "reserved": 0,
    }
    bufs = [
        [field(doc, "vgpu_buf", data, f, 48 + 24 * i) for f in ("kind", "dir", "aux", "offset", "length")]
        for i in range(2)
    ]
    assert bufs == [[0, 1, 0, 96, 16], [0, 2, 0, 0, 16]]
    assert data[96:] == b"Hello from guest"


def test_example_response(doc):
    data = doc.examples["response"]
    hdr = {f: field(doc, "vgpu_resp_hdr", data, f) for _, _, f in doc.layouts["vgpu_resp_hdr"]}
    assert hdr["size"] == len(data) == 80
    assert (hdr["version"], hdr["op"], hdr["error"], hdr["payload"]) == (1, 16, 0, 0)
    assert (hdr["tag"], hdr["seq"], hdr["queued_ns"], hdr["run_ns"]) == (0x1122334455667788, 1, 52000, 1500)
    assert (hdr["worker"], hdr["attempts"]) == (1, 1)
    assert data[64:] == b"Hello from guest"


def test_example_is_a_valid_request(doc, tmp_path):
    """The parser that stub, mediator and worker share accepts the example, and nothing else of it."""
    data = ", ".join(str(b) for b in doc.examples["request"])
    program = f"""
#include <stdio.h>
#include "common/core/request.h"
static uint8_t bytes[] = {{ {data} }};
int main(void)
{{
    const struct request_limits limits = {{ VGPU_WINDOW_SIZE, VGPU_PAYLOAD_MAX, 0, 1 << 20 }};
    struct request r;
    char why[REQUEST_WHY_MAX] = "";
    uint32_t ok = request_parse(bytes, sizeof(bytes), &limits, &r, why);
    printf("%u %s\\n", ok, why);
    bytes[32] = 1; /* reserved */
    printf("%u\\n", request_parse(bytes, sizeof(bytes), &limits, &r, why));
    return 0;
}}
"""
    core = [ROOT / "common" / "core" / f for f in ("request.c", "names.c")]
    out = run_c(tmp_path, "example", program, core).splitlines()
    assert out == ["0 ", str(doc.errors["RESERVED_SET"][0])]


def test_ring_driver_of_the_document(doc, tmp_path):
    """It compiles as it stands, and talks to the device's end of common/core/ring.c."""
    program = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/core/ring.h"
#include "proto/vgpu_regs.h"
%s
enum { N = 16, S = 256 };
static _Alignas(4096) uint8_t bar2[1 << 20];
static uint32_t bell;
static struct queue guest;
static struct ring_device dev;
static uint32_t served;

/* Serve what is there, the newest first; answers the request's bytes and its tag. */
static int serve(void)
{
    struct vgpu_desc taken[N];
    unsigned n = 0;

    while (n < N && ring_take(&dev, &taken[n]) == 0) {
        n++;
    }
    for (unsigned i = n; i > 0; i--) {
        const struct vgpu_desc *d = &taken[i - 1];
        struct vgpu_completion c = {.tag = d->tag, .slot = d->slot, .length = d->length};

        memcpy(ring_response(&dev.map, d->slot), ring_request(&dev.map, d->slot), d->length);
        ring_complete(&dev, &c);
        served++;
    }
    return ring_device_publish(&dev);
}

int main(void)
{
    const struct ring_shape shape = {N, S};
    uint32_t sent = 0, got = 0, bells = 0, signals = 0, full = 0;
    uint8_t response[S];
    struct vgpu_completion done;

    queue_start(&guest, bar2, 65536, &bell, N, S);
    ring_device_init(&dev, bar2 + 65536, &shape, 0, 0);
    for (unsigned round = 0; round < 1000; round++) {
        for (unsigned i = 0; i < 1 + round %% 20; i++) {
            if (queue_submit(&guest, &sent, 48, sent) == 0) {
                sent++;
            } else {
                full++;
            }
        }
        if (ring_device_arm(&dev)) {
            return 1; /* nothing was announced yet */
        }
        queue_tell(&guest);
        bells += bell;
        bell = 0;
        if (queue_arm(&guest)) {
            return 2;
        }
        signals += (uint32_t)serve();
        while (queue_collect(&guest, &done, response)) {
            uint32_t number;
            memcpy(&number, response, sizeof(number));
            if (number != done.tag || done.length != 48) {
                return 3;
            }
            got++;
        }
    }
    printf("%%d %%d %%u %%u %%d\\n", sent == got && sent == served, dev.wrong == NULL, bells, signals, full > 0);
    return 0;
}
""" % doc.driver
    out = run_c(tmp_path, "driver", program, [ROOT / "common" / "core" / "ring.c"])
    assert out.split() == ["1", "1", "1000", "1000", "1"]


def test_names_in_the_text_exist(doc, header):
    """Every VGPU_ name that the prose uses is one of the header's."""
    known = set(header.constants) | {name for name, _ in header.macros}
    for name in set(re.findall(r"VGPU_[A-Z0-9_]+\b(?!\*)", DOC.read_text())):
        assert name in known or any(k.startswith(name) for k in known), name


def test_comparison_notices_a_difference(doc, header):
    """The comparison itself can fail: one changed row on either side is named."""
    wrong = dict(doc.registers, STATUS=(0x1C, "RO"))
    assert "STATUS" in differences(wrong, header.rows["R"])
    fewer = {k: v for k, v in doc.errors.items() if k != "BUSY"}
    assert differences(fewer, header.rows["E"]).startswith("BUSY: not in device.md")
