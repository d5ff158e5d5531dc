# SPDX-License-Identifier: MIT
"""The contracts of proto/ for tests: constants, tables and structures, read from the headers.

    P.MAGIC, P.REG["STATUS"], P.E["BUSY"], P.MSG["HELLO"]   numbers, without the VGPU_ prefix
    P.pack("vgpu_hello", uuid=..., boot_id=1)               bytes; fields not given are 0
    P.unpack("vgpu_hello", data)                            an object with the fields
    P.message("HELLO_ACK", epoch=0, version=1, tail=b"")    a whole message of vgpu_local.h
    P.parse(data)                                           (name, fields, tail) of a message
    P.request("ECHO", [(INLINE, IN, 0, 8), ...])            a whole request of vgpu_regs.h

Nothing is written down twice: a change of a header changes the tests' side with it.
"""

import ast
import operator
import os
import re
import struct
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(os.environ.get("VGPU_SOURCE_DIR", Path(__file__).resolve().parents[2]))
SCALARS = {
    "uint8_t": "B",
    "uint16_t": "H",
    "uint32_t": "I",
    "uint64_t": "Q",
    "float": "f",
    "double": "d",
    "char": "c",
}
# Messages whose structure is not named after them.
STRUCT_OF = {"CANCEL": "vgpu_cancel_msg", "RESET_ACK": "vgpu_reset", "RING": "vgpu_exec_ring"}
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.LShift: operator.lshift,
    ast.BitOr: operator.or_,
}


def strip_comments(text):
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.S)


class Layout:
    """A C structure: every field at its natural alignment."""

    def __init__(self, name, fields, layouts, constants):
        self.name, self.fields, self.size = name, {}, 0
        self.align = 1
        for ctype, field, alignment in fields:
            base, _, count = field.partition("[")
            count = int(evaluate(count.rstrip("]"), constants)) if count else None
            inner = layouts.get(ctype)
            unit = inner.size if inner else struct.calcsize(SCALARS[ctype])
            align = max(inner.align if inner else unit, alignment)
            self.size = (self.size + align - 1) // align * align
            self.fields[base] = (self.size, ctype, count)
            self.size += unit * (count or 1)
            self.align = max(self.align, align)
        self.size = (self.size + self.align - 1) // self.align * self.align


def evaluate(text, constants):
    """An integer constant expression of the headers; ValueError when it is none."""

    def walk(node):
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name) and node.id in constants:
            return constants[node.id]
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](walk(node.left), walk(node.right))
        raise ValueError(text)

    text = re.sub(r"U?INT64_C\(([^)]*)\)", r"\1", text.strip())
    text = re.sub(r"\b(0x[0-9a-fA-F]+|\d+)[uUlL]+\b", r"\1", text)
    try:
        return walk(ast.parse(text, mode="eval").body)
    except (SyntaxError, KeyError):
        raise ValueError(text) from None


class Proto:
    IN, OUT = 1, 2

    def __init__(self, root=ROOT):
        self.constants, self.layouts = {}, {}
        self.REG, self.OP, self.E, self.DTYPE, self.MSG = {}, {}, {}, {}, {}
        for header in ("vgpu_regs.h", "vgpu_local.h"):
            text = strip_comments((root / "proto" / header).read_text()).replace("\\\n", " ")
            self._constants(text)
            self._enums(text)
            self._tables(text)
            self._structs(text)
        self.MSG_NAME = {v: k for k, v in self.MSG.items()}

    def __getattr__(self, name):
        constants = self.__dict__.get("constants", {})
        if "VGPU_" + name in constants:
            return constants["VGPU_" + name]
        raise AttributeError(f"no VGPU_{name} in proto/")

    def _constants(self, text):
        for name, value in re.findall(r"^#define (VGPU_\w+)[ \t]+(\S.*)$", text, flags=re.M):
            try:
                self.constants[name] = evaluate(value, self.constants)
            except ValueError:
                pass

    def _enums(self, text):
        for body in re.findall(r"\benum \w+ \{([^}()]*)\}", text):
            number = 0
            for name, value in re.findall(r"(VGPU_\w+)\s*(?:=\s*(\w+))?", body):
                number = int(value, 0) if value else number
                self.constants[name] = number
                number += 1

    def _tables(self, text):
        tables = {"REGS": self.REG, "OPS": self.OP, "ERRORS": self.E, "DTYPES": self.DTYPE,
                  "MSGS": self.MSG}
        for table, macro, rows in re.findall(r"^#define VGPU_(\w+)\((\w+)\)(.*)$", text, flags=re.M):
            row = rf"\b{macro}\(\s*(\w+)\s*,\s*(0x[0-9a-fA-F]+|\d+)"
            for name, number in re.findall(row, rows) if table in tables else ():
                tables[table][name] = int(number, 0)

    def _structs(self, text):
        for name, body in re.findall(r"struct (vgpu_\w+) \{(.*?)\n\};", text, flags=re.S):
            fields = []
            field = r"(?:_Alignas\((\d+)\)\s+)?(?:struct )?(\w+)\s+([^;{}]+);"
            for alignment, ctype, names in re.findall(field, body):
                fields += [(ctype, n.strip(), int(alignment or 1)) for n in names.split(",")]
            self.layouts[name] = Layout(name, fields, self.layouts, self.constants)

    # ---- structures -------------------------------------------------------------------------

    def size(self, name):
        return self.layouts[name].size

    def offset(self, name, field):
        return self.layouts[name].fields[field][0]

    def pack(self, name, /, **values):
        layout = self.layouts[name]
        out = bytearray(layout.size)
        for field, value in values.items():
            offset, ctype, count = layout.fields[field]
            if isinstance(value, str):
                value = value.encode()
            if isinstance(value, (bytes, bytearray)):
                out[offset : offset + len(value)] = value
            elif count is None:
                struct.pack_into("<" + SCALARS[ctype], out, offset, value)
            else:
                struct.pack_into(f"<{count}{SCALARS[ctype]}", out, offset, *value)
        assert len(out) == layout.size, f"{name}: a value is longer than its field"
        return bytes(out)

    def unpack(self, name, data):
        layout = self.layouts[name]
        assert len(data) >= layout.size, f"{name}: {len(data)} bytes instead of {layout.size}"
        fields = {}
        for field, (offset, ctype, count) in layout.fields.items():
            if ctype in self.layouts:
                fields[field] = self.unpack(ctype, data[offset:])
            elif ctype == "char" or (ctype == "uint8_t" and count):
                fields[field] = bytes(data[offset : offset + count])
            elif count:
                fields[field] = struct.unpack_from(f"<{count}{SCALARS[ctype]}", data, offset)
            else:
                fields[field] = struct.unpack_from("<" + SCALARS[ctype], data, offset)[0]
        return SimpleNamespace(**fields)

    # ---- messages ---------------------------------------------------------------------------

    def struct_of(self, name):
        return STRUCT_OF.get(name, "vgpu_" + name.lower())

    def message(self, name, /, epoch=0, tail=b"", **values):
        body = self.pack(self.struct_of(name), **values)[self.size("vgpu_msg") :]
        head = self.pack("vgpu_msg", magic=self.MSG_MAGIC, type=self.MSG[name], epoch=epoch,
                         length=self.size("vgpu_msg") + len(body) + len(tail))
        return head + body + tail

    def parse(self, data):
        msg = self.unpack("vgpu_msg", data)
        assert msg.magic == self.MSG_MAGIC, f"magic 0x{msg.magic:x}"
        assert msg.length == len(data), f"length {msg.length} in a message of {len(data)} bytes"
        name = self.MSG_NAME[msg.type]
        layout = self.struct_of(name)
        return name, self.unpack(layout, data), bytes(data[self.size(layout) :])

    # ---- requests ---------------------------------------------------------------------------

    def request(self, op, bufs=(), body=b"", inline=b"", **header):
        """bufs: (kind, direction, offset, length) or the same and aux. INLINE IN offsets count from
        the start of the request, as in the format; see inline_at()."""
        entries = b"".join(
            self.pack("vgpu_buf", kind=b[0], dir=b[1], offset=b[2], length=b[3],
                      aux=b[4] if len(b) > 4 else 0)
            for b in bufs)
        size = self.size("vgpu_req_hdr") + len(entries) + len(body) + len(inline)
        values = dict(size=size, version=self.REQ_VERSION, op=self.OP[op] if isinstance(op, str) else op,
                      nbufs=len(bufs), body_len=len(body), band=self.BAND_DEFAULT)
        values.update(header)
        return self.pack("vgpu_req_hdr", **values) + entries + body + inline

    def inline_at(self, nbufs, body_len=0):
        """Offset in a request at which its inline data starts."""
        return self.size("vgpu_req_hdr") + nbufs * self.size("vgpu_buf") + body_len

    def response(self, request, seq, error=0, payload=b"", kind=None, **header):
        asked = self.unpack("vgpu_req_hdr", request)
        if kind is None:
            kind = self.PAYLOAD_TEXT if error else self.PAYLOAD_DATA
        values = dict(size=self.size("vgpu_resp_hdr") + len(payload), version=self.REQ_VERSION,
                      op=asked.op, tag=asked.tag, seq=seq, error=error, attempts=1, payload=kind)
        values.update(header)
        return self.pack("vgpu_resp_hdr", **values) + payload

    def buffers(self, request):
        """The buffer list of a request, parsed."""
        count = self.unpack("vgpu_req_hdr", request).nbufs
        start, step = self.size("vgpu_req_hdr"), self.size("vgpu_buf")
        return [self.unpack("vgpu_buf", request[start + i * step :]) for i in range(count)]


P = Proto()
