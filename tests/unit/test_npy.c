/* SPDX-License-Identifier: MIT */
/* test_npy.c - the .npy parser takes what NumPy writes and refuses everything else with a reason */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest/cmd/npy.h"
#include "tests/unit/unit.h"

/* A file of version @major.0 with @header as its dictionary. Return: its length. */
static size_t make_file(uint8_t *file, uint8_t major, const char *header)
{
    size_t n = strlen(header), start = major == 1 ? 10 : 12;

    memcpy(file, "\x93NUMPY", 6);
    file[6] = major;
    file[7] = 0;
    file[8] = (uint8_t)n;
    file[9] = (uint8_t)(n >> 8);
    file[10] = file[11] = 0;
    memcpy(file + start, header, n);
    return start + n;
}

#define HEADER(descr, order, shape) \
    "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape ", }          \n"

#define T(dtype) VGPU_DTYPE_##dtype

/* clang-format off */
static const struct good {
    const char *name;
    const char *header;
    char kind;
    uint32_t size, ndim;
    uint64_t count;
    unsigned dtype;
} goods[] = {
    { "a matrix",             HEADER("'<f8'", "False", "(3, 4)"),      'f', 8, 2, 12, T(F64) },
    { "a vector",             HEADER("'<f4'", "False", "(7,)"),        'f', 4, 1, 7, T(F32) },
    { "a single number",      HEADER("'<i8'", "False", "()"),          'i', 8, 0, 1, T(I64) },
    { "bytes",                HEADER("'|u1'", "False", "(2, 3, 4)"),   'u', 1, 3, 24, T(U8) },
    { "half precision",       HEADER("'<f2'", "False", "(5,)"),        'f', 2, 1, 5, T(F16) },
    { "complex",              HEADER("'<c16'", "False", "(5,)"),       'c', 16, 1, 5, T(F64) },
    { "a type without an op", HEADER("'<u2'", "False", "(5,)"),        'u', 2, 1, 5, 0 },
    { "no elements",          HEADER("'<f4'", "False", "(0, 9)"),      'f', 4, 2, 0, T(F32) },
    { "other order of keys",  "{'shape': (2,), 'descr': '<i4', 'fortran_order': False}",
      'i', 4, 1, 2, T(I32) },
    { "double quotes",        "{\"descr\": \"<i4\", \"fortran_order\": False, \"shape\": (2,)}",
      'i', 4, 1, 2, T(I32) },
    { "no spaces",            "{'descr':'<i4','fortran_order':False,'shape':(2,3,)}",
      'i', 4, 2, 6, T(I32) },
    { "eight dimensions",     HEADER("'|b1'", "False", "(1,1,1,1,1,1,1,2)"), 'b', 1, 8, 2, 0 },
};

static const struct bad {
    const char *name;
    const char *header;
    const char *says; /* part of the message */
} bads[] = {
    { "Fortran order",        HEADER("'<f8'", "True", "(3, 4)"),     "np.ascontiguousarray" },
    { "big endian",           HEADER("'>f8'", "False", "(3, 4)"),    "newbyteorder" },
    { "named fields",         HEADER("[('a', '<f8')]", "False", "(3,)"), "named fields" },
    { "text",                 HEADER("'<U5'", "False", "(3,)"),      "not supported" },
    { "objects",              HEADER("'|O'", "False", "(3,)"),       "not a plain number" },
    { "extended precision",   HEADER("'<f16'", "False", "(3,)"),     "not supported" },
    { "a size of 2^64 + 8",   HEADER("'<f18446744073709551624'", "False", "(3,)"),
      "not supported" },
    { "a negative dimension", HEADER("'<f8'", "False", "(-3,)"),     "not a number" },
    { "a missing dimension",  HEADER("'<f8'", "False", "(3,,4)"),    "not a number" },
    { "a dimension of 65 bits", HEADER("'<f8'", "False", "(18446744073709551616,)"),
      "64 bits" },
    { "elements overflow",    HEADER("'<f8'", "False", "(4294967296, 4294967296)"),
      "more elements" },
    { "bytes overflow",       HEADER("'<f8'", "False", "(2305843009213693952,)"), "more elements" },
    { "0 hides an overflow",  HEADER("'<f8'", "False", "(0, 4294967296, 4294967296)"),
      "more elements" },
    { "nine dimensions",      HEADER("'<f8'", "False", "(1,1,1,1,1,1,1,1,1)"), "dimensions" },
    { "a shape without end",  "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4", "shape" },
    { "a list as shape",      HEADER("'<f8'", "False", "[3]"),       "no tuple" },
    { "an order of 1",        HEADER("'<f8'", "1", "(3,)"),          "neither" },
    { "a key too many",       "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), 'x': 1}",
      "unknown key" },
    { "a key twice",          "{'descr': '<f8', 'descr': '<f8', 'shape': (3,)}", "twice" },
    { "a key missing",        "{'descr': '<f8', 'shape': (3,)}",     "missing" },
    { "nothing",              "",                                    "no dictionary" },
    { "no end",               "{'descr': '<f8', 'fortran_order': False, 'shape': (3,)",
      "does not end" },
    { "a string without end", "{'descr",                             "does not end" },
    { "a very long key",      "{'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa': 1}",
      "too long" },
    { "no colon",             "{'descr' '<f8'}",                     "colon" },
    { "more behind it",       HEADER("'<f8'", "False", "(3,)") "x",  "follows" },
};
/* clang-format on */

START_TEST(good_header)
{
    const struct good *c = &goods[_i];
    uint8_t file[1024];
    struct npy a;
    struct vgpu_err err = {.text = ""};

    for (uint8_t major = 1; major <= 2; major++) {
        size_t len = make_file(file, major, c->header);

        ck_assert_msg(npy_parse(file, len, &a, &err) == 0, "%s: %s", c->name, err.text);
        ck_assert_msg(a.kind == c->kind && a.size == c->size && a.ndim == c->ndim, "%s", c->name);
        ck_assert_msg(a.count == c->count && a.bytes == c->count * c->size, "%s", c->name);
        ck_assert_uint_eq(a.offset, len);
        ck_assert_msg(npy_dtype(&a) == c->dtype, "%s", c->name);
    }
}
END_TEST

START_TEST(bad_header)
{
    const struct bad *c = &bads[_i];
    uint8_t file[1024];
    struct npy a = {.ndim = 77};
    struct vgpu_err err = {.text = ""};
    size_t len = make_file(file, 1, c->header);

    ck_assert_msg(npy_parse(file, len, &a, &err) == -EINVAL, "%s", c->name);
    ck_assert_msg(strstr(err.text, c->says) != NULL, "%s: \"%s\"", c->name, err.text);
    ck_assert_msg(a.ndim == 77, "%s: the result was written", c->name);
    ck_assert_int_eq(npy_parse(file, len, &a, NULL), -EINVAL);
}
END_TEST

/* Every beginning of a good file is a bad file. On the heap, so that a sanitizer sees excess. */
START_TEST(cut_header)
{
    uint8_t file[1024];
    size_t len = make_file(file, 2, goods[0].header);
    struct npy a;

    for (size_t n = 0; n < len; n++) {
        uint8_t *copy = malloc(n ? n : 1);

        ck_assert_ptr_nonnull(copy);
        memcpy(copy, file, n);
        ck_assert_msg(npy_parse(copy, n, &a, NULL) == -EINVAL, "%zu bytes", n);
        free(copy);
    }
}
END_TEST

/* Whatever happens to one byte, the parser returns, and a result is consistent. */
START_TEST(changed_header)
{
    uint8_t file[1024];
    size_t len = make_file(file, 1, goods[0].header);
    struct npy a;

    for (size_t i = 0; i < len; i++) {
        uint8_t was = file[i];

        for (unsigned v = 0; v < 256; v++) {
            file[i] = (uint8_t)v;
            if (npy_parse(file, len, &a, NULL) == 0) {
                ck_assert_uint_le(a.ndim, NPY_DIMS_MAX);
                ck_assert_uint_eq(a.bytes, a.count * a.size);
                ck_assert_uint_le(a.offset, len);
            }
        }
        file[i] = was;
    }
}
END_TEST

START_TEST(versions)
{
    uint8_t file[1024];
    size_t len = make_file(file, 1, goods[0].header);
    struct vgpu_err err;
    struct npy a;

    file[6] = 3;
    ck_assert_int_eq(npy_parse(file, len, &a, &err), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "version 3.0"));
    file[6] = 2;
    file[11] = 0xff; /* a header of 4 GiB */
    ck_assert_int_eq(npy_parse(file, len, &a, &err), -EINVAL);
    ck_assert_int_eq(npy_parse("PK\x03\x04zip file", 12, &a, &err), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "not a .npy file"));
}
END_TEST

/* ---- files ---- */

static char folder[] = "/tmp/test_npy.XXXXXX";

static const char *path_of(const char *name)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static void make_folder(void)
{
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void remove_folder(void)
{
    unlink(path_of("a.npy"));
    ck_assert_int_eq(rmdir(folder), 0); /* nothing else may have been left there */
}

START_TEST(round_trip)
{
    double data[6] = {1, 2, 3, 4, 5, 6.5}, back[6];
    struct npy a = {.ndim = 2, .shape = {2, 3}}, b;
    struct vgpu_err err;
    char header[NPY_WRITE_HEADER_MAX], text[64];
    int fd;

    npy_set_dtype(&a, VGPU_DTYPE_F64);
    ck_assert_int_eq(npy_make(&a), 0);
    ck_assert_uint_eq(npy_header(&a, header) % 64, 0);
    ck_assert_int_eq(npy_write(path_of("a.npy"), &a, data, &err), 0);
    ck_assert_int_eq(npy_open(path_of("a.npy"), &b, &fd, &err), 0);
    ck_assert_int_eq(npy_read(path_of("a.npy"), fd, &b, back, &err), 0);
    close(fd);
    ck_assert_mem_eq(data, back, sizeof(data));
    ck_assert_str_eq(npy_describe(&b, text, sizeof(text)), "float64 (2, 3)");
    ck_assert_str_eq(npy_describe(&b, text, 10), "float64 (");
}
END_TEST

static const struct {
    const char *name;
    int change; /* of the file's length */
    const char *says;
} lengths[] = {
    {"a byte missing", -1, "cut off: 1 of"},
    {"all data missing", -48, "cut off: 48 of"},
    {"half of the header missing", -100, "ends within its header"},
    {"a byte too many", 1, "1 bytes follow"},
};

START_TEST(wrong_length)
{
    double data[6] = {0};
    struct npy a = {.ndim = 1, .shape = {6}};
    struct vgpu_err err = {.text = ""};
    int fd = -1;
    off_t len;

    npy_set_dtype(&a, VGPU_DTYPE_F64);
    npy_make(&a);
    ck_assert_int_eq(npy_write(path_of("a.npy"), &a, data, &err), 0);
    len = 128 + 48 + lengths[_i].change;
    ck_assert_int_eq(truncate(path_of("a.npy"), len), 0);
    ck_assert_int_eq(npy_open(path_of("a.npy"), &a, &fd, &err), -EINVAL);
    ck_assert_msg(strstr(err.text, lengths[_i].says) != NULL, "%s: %s", lengths[_i].name, err.text);
    ck_assert_msg(strstr(err.text, "a.npy: ") != NULL, "the file is named: %s", err.text);
    ck_assert_int_eq(fd, -1);
}
END_TEST

START_TEST(no_file)
{
    struct npy a = {.kind = 'f', .size = 4, .ndim = 0};
    struct vgpu_err err;
    int fd = -1;

    npy_make(&a);
    ck_assert_int_eq(npy_open("/nonexistent/a.npy", &a, &fd, &err), -ENOENT);
    ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/a.npy"));
    ck_assert_int_eq(npy_open("/", &a, &fd, &err), -EISDIR);
    ck_assert_int_eq(npy_write("/nonexistent/a.npy", &a, "abcd", &err), -ENOENT);
    ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/a.npy"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("npy");
    TCase *parse = tcase_create("parse"), *files = tcase_create("files");

    tcase_add_loop_test(parse, good_header, 0, (int)N_ELEMS(goods));
    tcase_add_loop_test(parse, bad_header, 0, (int)N_ELEMS(bads));
    tcase_add_test(parse, cut_header);
    tcase_add_test(parse, changed_header);
    tcase_add_test(parse, versions);
    tcase_add_checked_fixture(files, make_folder, remove_folder);
    tcase_add_test(files, round_trip);
    tcase_add_loop_test(files, wrong_length, 0, (int)N_ELEMS(lengths));
    tcase_add_test(files, no_file);
    suite_add_tcase(s, parse);
    suite_add_tcase(s, files);
    return unit_run(s);
}
