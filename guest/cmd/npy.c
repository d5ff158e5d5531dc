/* SPDX-License-Identifier: MIT */
/* npy.c - see npy.h */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "guest/cmd/file.h"
#include "guest/cmd/npy.h"
#include "guest/lib/err.h"

static const char magic[6] = {'\x93', 'N', 'U', 'M', 'P', 'Y'};

/* ---- the header: a Python dictionary of three keys ---- */

struct text {
    const char *at;
    const char *end;
    struct vgpu_err *err;
};

static int broken(struct text *t, const char *what)
{
    return err_set(t->err, -EINVAL, "the header is not one of a .npy file: %s", what);
}

static void skip_space(struct text *t)
{
    while (t->at < t->end && isspace((unsigned char)*t->at)) {
        t->at++;
    }
}

static bool accept(struct text *t, char c)
{
    skip_space(t);
    if (t->at < t->end && *t->at == c) {
        t->at++;
        return true;
    }
    return false;
}

static bool accept_word(struct text *t, const char *word)
{
    size_t n = strlen(word);

    skip_space(t);
    if ((size_t)(t->end - t->at) >= n && memcmp(t->at, word, n) == 0) {
        t->at += n;
        return true;
    }
    return false;
}

/* A quoted string without escapes. */
static int read_string(struct text *t, char *ret, size_t size)
{
    size_t n = 0;
    char quote;

    skip_space(t);
    if (t->at == t->end || (*t->at != '\'' && *t->at != '"')) {
        return broken(t, "a string is missing");
    }
    quote = *t->at++;
    while (t->at < t->end && *t->at != quote) {
        if (n + 1 >= size) {
            return broken(t, "a string is too long");
        }
        ret[n++] = *t->at++;
    }
    if (t->at == t->end) {
        return broken(t, "a string does not end");
    }
    t->at++;
    ret[n] = 0;
    return 0;
}

static int read_number(struct text *t, uint64_t *ret)
{
    uint64_t v = 0;

    skip_space(t);
    if (t->at == t->end || !isdigit((unsigned char)*t->at)) {
        return broken(t, "a dimension is not a number");
    }
    while (t->at < t->end && isdigit((unsigned char)*t->at)) {
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*t->at - '0'), &v)) {
            return broken(t, "a dimension has more than 64 bits");
        }
        t->at++;
    }
    *ret = v;
    return 0;
}

static int read_shape(struct text *t, struct npy *a)
{
    a->ndim = 0;
    if (!accept(t, '(')) {
        return broken(t, "the shape is no tuple");
    }
    while (!accept(t, ')')) {
        if (a->ndim == NPY_DIMS_MAX) {
            return err_set(t->err, -EINVAL, "the array has more than %u dimensions", NPY_DIMS_MAX);
        }
        if (read_number(t, &a->shape[a->ndim])) {
            return -EINVAL;
        }
        a->ndim++;
        if (!accept(t, ',')) {
            return accept(t, ')') ? 0 : broken(t, "the shape does not end");
        }
    }
    return 0;
}

static bool known_type(char kind, uint64_t size)
{
    switch (kind) {
    case 'f':
        return size == 2 || size == 4 || size == 8;
    case 'c':
        return size == 8 || size == 16;
    case 'i':
    case 'u':
        return size == 1 || size == 2 || size == 4 || size == 8;
    case 'b':
        return size == 1;
    default:
        return false;
    }
}

static int read_descr(struct text *t, struct npy *a)
{
    char descr[32];
    char *end;
    unsigned long size;

    skip_space(t);
    if (t->at < t->end && *t->at == '[') {
        return err_set(t->err, -EINVAL,
                       "the array has named fields: save each field as an array of its own");
    }
    if (read_string(t, descr, sizeof(descr))) {
        return -EINVAL;
    }
    if (descr[0] == '>') {
        return err_set(t->err, -EINVAL,
                       "the numbers are big endian (%s): save a.astype(a.dtype.newbyteorder('<'))",
                       descr);
    }
    if (strlen(descr) < 3 || !strchr("<|=", descr[0]) || !isdigit((unsigned char)descr[2])) {
        return err_set(t->err, -EINVAL, "the element type \"%s\" is not a plain number", descr);
    }
    size = strtoul(descr + 2, &end, 10);
    if (*end || !known_type(descr[1], size)) {
        return err_set(t->err, -EINVAL,
                       "the element type \"%s\" is not supported: it must be bool, int8 to int64, "
                       "uint8 to uint64, float16 to float64, complex64 or complex128",
                       descr);
    }
    a->kind = descr[1];
    a->size = (uint32_t)size;
    return 0;
}

static int read_order(struct text *t)
{
    if (accept_word(t, "False")) {
        return 0;
    }
    if (accept_word(t, "True")) {
        return err_set(t->err, -EINVAL,
                       "the array is in Fortran order: save np.ascontiguousarray(a) instead");
    }
    return broken(t, "fortran_order is neither True nor False");
}

static const char *const key_names[] = {"descr", "fortran_order", "shape"};

static int read_value(struct text *t, const char *key, struct npy *a, unsigned *seen)
{
    for (unsigned i = 0; i < 3; i++) {
        if (strcmp(key, key_names[i]) != 0) {
            continue;
        }
        if (*seen & 1u << i) {
            return broken(t, "a key occurs twice");
        }
        *seen |= 1u << i;
        return i == 0 ? read_descr(t, a) : i == 1 ? read_order(t) : read_shape(t, a);
    }
    return broken(t, "there is an unknown key");
}

static int read_dictionary(struct text *t, struct npy *a)
{
    unsigned seen = 0;
    char key[32];

    if (!accept(t, '{')) {
        return broken(t, "it is no dictionary");
    }
    while (!accept(t, '}')) {
        if (read_string(t, key, sizeof(key))) {
            return -EINVAL;
        }
        if (!accept(t, ':')) {
            return broken(t, "a colon is missing");
        }
        if (read_value(t, key, a, &seen)) {
            return -EINVAL;
        }
        if (!accept(t, ',')) {
            if (!accept(t, '}')) {
                return broken(t, "it does not end");
            }
            break;
        }
    }
    skip_space(t);
    if (t->at != t->end) {
        return broken(t, "something follows the dictionary");
    }
    return seen == 7 ? 0 : broken(t, "descr, fortran_order or shape is missing");
}

int npy_make(struct npy *a)
{
    uint64_t count = 1, span = 1;
    bool overflow = false;

    for (uint32_t i = 0; i < a->ndim; i++) {
        /* Beside a 0 the other dimensions must not overflow what computes with them either. */
        overflow |= a->shape[i] && __builtin_mul_overflow(span, a->shape[i], &span);
        count *= a->shape[i];
    }
    if (overflow || __builtin_mul_overflow(span, a->size, &span) || span > INT64_MAX) {
        return -EOVERFLOW;
    }
    a->count = count;
    a->bytes = count * a->size;
    return 0;
}

int npy_parse(const void *data, size_t len, struct npy *ret, struct vgpu_err *ret_err)
{
    const uint8_t *p = data;
    struct npy a = {0};
    struct text t = {.err = ret_err};
    uint32_t start = 10, header_len;

    if (len < 10 || memcmp(p, magic, sizeof(magic)) != 0) {
        return err_set(ret_err, -EINVAL, "not a .npy file; make one with numpy.save()");
    }
    if ((p[6] != 1 && p[6] != 2) || p[7] != 0) {
        return err_set(ret_err, -EINVAL,
                       ".npy version %u.%u is not supported: it must be 1.0 or 2.0", p[6], p[7]);
    }
    header_len = (uint32_t)p[8] | (uint32_t)p[9] << 8;
    if (p[6] == 2) {
        if (len < 12) {
            return err_set(ret_err, -EINVAL, "the file ends within its header");
        }
        header_len |= (uint32_t)p[10] << 16 | (uint32_t)p[11] << 24;
        start = 12;
    }
    if (header_len > NPY_HEADER_MAX) {
        return err_set(ret_err, -EINVAL, "the header has %u bytes; at most %u are read", header_len,
                       NPY_HEADER_MAX);
    }
    if (header_len > len - start) {
        return err_set(ret_err, -EINVAL, "the file ends within its header");
    }
    t.at = (const char *)p + start;
    t.end = t.at + header_len;
    if (read_dictionary(&t, &a)) {
        return -EINVAL;
    }
    if (npy_make(&a)) {
        return err_set(ret_err, -EINVAL, "the shape has more elements than a file can hold");
    }
    a.offset = start + header_len;
    *ret = a;
    return 0;
}

/* ---- files ---- */

/* Put the file's name before the sentence. */
static int name_file(struct vgpu_err *err, const char *path, int code)
{
    char text[sizeof(err->text)];

    if (err) {
        memcpy(text, err->text, sizeof(text));
        err_set(err, code, "%s: %s", path, text);
    }
    return code;
}

static ssize_t read_up_to(int fd, void *data, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = read(fd, (char *)data + done, len - done);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        if (n == 0) {
            break;
        }
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static int check_size(int fd, const struct npy *a, struct vgpu_err *err)
{
    struct stat st;
    uint64_t want = a->offset + a->bytes;

    if (fstat(fd, &st) != 0) {
        return err_set(err, -errno, "%s", strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return err_set(err, -EINVAL, "it is no plain file");
    }
    if ((uint64_t)st.st_size < want) {
        return err_set(err, -EINVAL,
                       "the file is cut off: %" PRIu64 " of %" PRIu64 " bytes are missing",
                       want - (uint64_t)st.st_size, want);
    }
    if ((uint64_t)st.st_size > want) {
        return err_set(err, -EINVAL, "%" PRIu64 " bytes follow the array",
                       (uint64_t)st.st_size - want);
    }
    return 0;
}

/* Return: as npy_open(), whose error names the file. */
static int read_header(const char *path, int fd, struct npy *ret, struct vgpu_err *err)
{
    char *head = malloc(NPY_HEADER_MAX + 12);
    ssize_t n;
    int r;

    if (!head) {
        return err_set(err, -ENOMEM, "no memory to read %s", path);
    }
    n = read_up_to(fd, head, NPY_HEADER_MAX + 12);
    if (n < 0) {
        r = err_set(err, (int)n, "cannot read %s: %s", path, strerror((int)-n));
    } else {
        r = npy_parse(head, (size_t)n, ret, err);
        r = r ? name_file(err, path, r) : 0;
    }
    free(head);
    return r;
}

int npy_open(const char *path, struct npy *ret, int *ret_fd, struct vgpu_err *ret_err)
{
    CLEANUP(cleanup_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct npy a = {0};
    int r;

    if (fd < 0) {
        return err_set(ret_err, -errno, "cannot open %s: %s", path, strerror(errno));
    }
    r = read_header(path, fd, &a, ret_err);
    if (r) {
        return r;
    }
    r = check_size(fd, &a, ret_err);
    if (r) {
        return name_file(ret_err, path, r);
    }
    *ret = a;
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int npy_read(const char *path, int fd, const struct npy *a, void *ret, struct vgpu_err *ret_err)
{
    ssize_t n = lseek(fd, (off_t)a->offset, SEEK_SET) < 0 ? -errno : read_up_to(fd, ret, a->bytes);

    if (n < 0) {
        return err_set(ret_err, (int)n, "cannot read %s: %s", path, strerror((int)-n));
    }
    if ((uint64_t)n < a->bytes) {
        return err_set(ret_err, -EIO, "%s became shorter while it was read", path);
    }
    return 0;
}

size_t npy_header(const struct npy *a, char ret[NPY_WRITE_HEADER_MAX])
{
    int n = snprintf(ret + 10, NPY_WRITE_HEADER_MAX - 10,
                     "{'descr': '%c%c%u', 'fortran_order': False, 'shape': (",
                     a->size == 1 ? '|' : '<', a->kind, a->size);
    size_t total;

    for (uint32_t i = 0; i < a->ndim; i++) {
        n += snprintf(ret + 10 + n, NPY_WRITE_HEADER_MAX - 10 - (size_t)n, "%" PRIu64 "%s",
                      a->shape[i],
                      i + 1 < a->ndim ? ", "
                      : a->ndim == 1  ? ","
                                      : "");
    }
    n += snprintf(ret + 10 + n, NPY_WRITE_HEADER_MAX - 10 - (size_t)n, "), }");
    total = (10 + (size_t)n + 1 + 63) / 64 * 64;
    memset(ret + 10 + n, ' ', total - 10 - (size_t)n - 1);
    ret[total - 1] = '\n';
    memcpy(ret, magic, sizeof(magic));
    ret[6] = 1;
    ret[7] = 0;
    ret[8] = (char)((total - 10) & 0xff);
    ret[9] = (char)((total - 10) >> 8);
    return total;
}

int npy_write(const char *path, const struct npy *a, const void *data, struct vgpu_err *ret_err)
{
    char header[NPY_WRITE_HEADER_MAX];
    size_t len = npy_header(a, header);
    struct file f;
    int r = file_create(&f, path, ret_err);

    r = r ? r : file_write(&f, header, len, ret_err);
    r = r ? r : file_write(&f, data, a->bytes, ret_err);
    r = r ? r : file_commit(&f, ret_err);
    file_drop(&f);
    return r;
}

/* ---- types ---- */

static const struct {
    unsigned dtype;
    char kind;
    uint32_t size;
} types[] = {
    {VGPU_DTYPE_F32, 'f', 4}, {VGPU_DTYPE_F64, 'f', 8}, {VGPU_DTYPE_F16, 'f', 2},
    {VGPU_DTYPE_U8, 'u', 1},  {VGPU_DTYPE_I8, 'i', 1},  {VGPU_DTYPE_U32, 'u', 4},
    {VGPU_DTYPE_I32, 'i', 4}, {VGPU_DTYPE_U64, 'u', 8}, {VGPU_DTYPE_I64, 'i', 8},
};

unsigned npy_dtype(const struct npy *a)
{
    char kind = a->kind == 'c' ? 'f' : a->kind;
    uint32_t size = a->kind == 'c' ? a->size / 2 : a->size;

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (types[i].kind == kind && types[i].size == size) {
            return types[i].dtype;
        }
    }
    return 0;
}

void npy_set_dtype(struct npy *a, unsigned dtype)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (types[i].dtype == dtype) {
            a->kind = types[i].kind;
            a->size = types[i].size;
        }
    }
}

const char *npy_describe(const struct npy *a, char *ret, size_t size)
{
    static const struct {
        char kind;
        const char *name;
    } kinds[] = {{'f', "float"}, {'i', "int"}, {'u', "uint"}, {'c', "complex"}, {'b', "bool"}};
    const char *name = "?";
    size_t n;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        name = kinds[i].kind == a->kind ? kinds[i].name : name;
    }
    n = (size_t)snprintf(ret, size, "%s%u (", name, a->size * 8);
    for (uint32_t i = 0; i < a->ndim && n < size; i++) {
        n += (size_t)snprintf(ret + n, size - n, "%" PRIu64 "%s", a->shape[i],
                              i + 1 < a->ndim ? ", "
                              : a->ndim == 1  ? ","
                                              : "");
    }
    if (n < size) {
        snprintf(ret + n, size - n, ")");
    }
    return ret;
}
