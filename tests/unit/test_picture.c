/* SPDX-License-Identifier: MIT */
/* test_picture.c - every kind of PNG becomes 8-bit grey or RGB; damaged ones are refused */
#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "guest/cmd/picture.h"
#include "tests/unit/unit.h"

#define WIDTH 9u
#define HEIGHT 5u

static char folder[] = "/tmp/test_picture.XXXXXX";
static char in[64], out[64];

static void setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(in, sizeof(in), "%s/in.png", folder);
    snprintf(out, sizeof(out), "%s/out.png", folder);
}

static void teardown(void)
{
    unlink(in);
    unlink(out);
    ck_assert_int_eq(rmdir(folder), 0); /* nothing else may have been left there */
}

/* clang-format off */
static const struct kind {
    const char *name;
    int depth, type, interlace;
    uint32_t channels;
    uint8_t alpha;
    uint8_t first[3]; /* samples of the first pixel, whose bytes are all 0xc0 in the file */
} kinds[] = {
    { "grey",            8,  PNG_COLOR_TYPE_GRAY,       0, 1, 0, { 0xc0 } },
    { "grey, 1 bit",     1,  PNG_COLOR_TYPE_GRAY,       0, 1, 0, { 0xff } },
    { "grey, 2 bits",    2,  PNG_COLOR_TYPE_GRAY,       0, 1, 0, { 0xff } },
    { "grey, 4 bits",    4,  PNG_COLOR_TYPE_GRAY,       0, 1, 0, { 0xcc } },
    { "grey, 16 bits",   16, PNG_COLOR_TYPE_GRAY,       0, 1, 0, { 0xc0 } },
    { "grey and alpha",  8,  PNG_COLOR_TYPE_GRAY_ALPHA, 0, 1, 1, { 0xc0 } },
    { "RGB",             8,  PNG_COLOR_TYPE_RGB,        0, 3, 0, { 0xc0, 0xc0, 0xc0 } },
    { "RGB, interlaced", 8,  PNG_COLOR_TYPE_RGB,        1, 3, 0, { 0xc0, 0xc0, 0xc0 } },
    { "RGB, 16 bits",    16, PNG_COLOR_TYPE_RGB,        0, 3, 0, { 0xc0, 0xc0, 0xc0 } },
    { "RGB and alpha",   8,  PNG_COLOR_TYPE_RGB_ALPHA,  1, 3, 1, { 0xc0, 0xc0, 0xc0 } },
    { "palette",         2,  PNG_COLOR_TYPE_PALETTE,    0, 3, 0, { 30, 31, 32 } },
};
/* clang-format on */

static void make_png(const struct kind *k)
{
    static const png_color palette[4] = {{0, 1, 2}, {10, 11, 12}, {20, 21, 22}, {30, 31, 32}};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    FILE *f = fopen(in, "wb");
    png_byte row[WIDTH * 8];

    memset(row, 0xc0, sizeof(row));
    ck_assert(png && info && f);
    ck_assert_int_eq(setjmp(png_jmpbuf(png)), 0);
    png_init_io(png, f);
    png_set_IHDR(png, info, WIDTH, HEIGHT, k->depth, k->type,
                 k->interlace ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, 0, 0);
    if (k->type == PNG_COLOR_TYPE_PALETTE) {
        png_set_PLTE(png, info, palette, 4);
    }
    png_set_gAMA(png, info, 1.0); /* must not change the samples */
    png_write_info(png, info);
    for (int pass = png_set_interlace_handling(png); pass > 0; pass--) {
        for (unsigned y = 0; y < HEIGHT; y++) {
            png_write_row(png, row);
        }
    }
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    ck_assert_int_eq(fclose(f), 0);
}

START_TEST(kinds_of_png)
{
    const struct kind *k = &kinds[_i];
    struct picture p = {0}, q = {0};
    struct vgpu_err err = {.text = ""};

    make_png(k);
    ck_assert_msg(picture_read(in, &p, &err) == 0, "%s: %s", k->name, err.text);
    ck_assert_uint_eq(p.width, WIDTH);
    ck_assert_uint_eq(p.height, HEIGHT);
    ck_assert_msg(p.channels == k->channels, "%s: %u channels", k->name, p.channels);
    ck_assert_uint_eq(p.stride, WIDTH * k->channels);
    ck_assert_uint_eq(p.had_alpha, k->alpha);
    ck_assert_msg(memcmp(p.samples, k->first, k->channels) == 0, "%s: %02x", k->name, p.samples[0]);
    for (int compression = 0; compression <= 9; compression += 3) {
        ck_assert_int_eq(picture_write(out, &p, compression, &err), 0);
        ck_assert_int_eq(picture_read(out, &q, &err), 0);
        ck_assert_mem_eq(p.samples, q.samples, (size_t)p.stride * p.height);
        picture_fini(&q);
    }
    picture_fini(&p);
}
END_TEST

static size_t read_all(uint8_t *ret, size_t size)
{
    FILE *f = fopen(in, "rb");
    size_t n;

    ck_assert_ptr_nonnull(f);
    n = fread(ret, 1, size, f);
    fclose(f);
    return n;
}

static void write_all(const uint8_t *data, size_t n)
{
    FILE *f = fopen(in, "wb");

    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, n, f), n);
    fclose(f);
}

/* A file that ends early is refused wherever it ends. */
START_TEST(cut_off)
{
    uint8_t bytes[4096];
    struct picture p = {.width = 77};
    struct vgpu_err err;
    size_t len;

    make_png(&kinds[6]);
    len = read_all(bytes, sizeof(bytes));
    for (size_t n = 0; n < len; n++) {
        write_all(bytes, n);
        ck_assert_msg(picture_read(in, &p, &err) == -EINVAL, "%zu of %zu bytes", n, len);
        ck_assert_msg(strstr(err.text, "in.png: ") != NULL, "the file is named: %s", err.text);
        ck_assert_uint_eq(p.width, 77);
    }
}
END_TEST

/* A changed byte may be harmless (in a chunk that nobody reads) but never does harm. */
START_TEST(changed)
{
    uint8_t bytes[4096];
    struct vgpu_err err;
    size_t len, refused = 0;

    make_png(&kinds[9]);
    len = read_all(bytes, sizeof(bytes));
    for (size_t i = 0; i < len; i++) {
        struct picture p = {0};

        bytes[i] ^= 0x41;
        write_all(bytes, len);
        refused += picture_read(in, &p, &err) != 0;
        bytes[i] ^= 0x41;
        picture_fini(&p);
    }
    ck_assert_uint_gt(refused, len / 2);
}
END_TEST

START_TEST(too_large)
{
    static const uint8_t huge[] = {
        0x89, 'P',  'N',  'G', 13, 10,   26,   10, 0, 0, 0, 13, 'I',  'H',  'D',  'R',  0,
        0,    0xff, 0xff, 0,   0,  0xff, 0xff, 8,  2, 0, 0, 0,  0xd1, 0x85, 0x8d, 0x5a,
    };
    struct picture p;
    struct vgpu_err err = {.text = ""};

    write_all(huge, sizeof(huge));
    ck_assert_int_eq(picture_read(in, &p, &err), -EINVAL);
}
END_TEST

START_TEST(no_picture)
{
    struct picture p = {0};
    struct vgpu_err err;

    write_all((const uint8_t *)"\xff\xd8\xff\xe0 a JPEG picture", 20);
    ck_assert_int_eq(picture_read(in, &p, &err), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "not a PNG picture"));
    ck_assert_int_eq(picture_read("/nonexistent/x.png", &p, &err), -ENOENT);
    ck_assert_int_eq(picture_read("/", &p, &err), -EIO);
    p = (struct picture){
        .width = 1, .height = 1, .channels = 1, .stride = 1, .samples = (uint8_t[]){5}};
    ck_assert_int_eq(picture_write("/nonexistent/x.png", &p, 1, &err), -ENOENT);
    ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/x.png"));
    ck_assert_int_eq(picture_write("/dev/full", &p, 1, &err), -EIO);
    ck_assert_ptr_nonnull(strstr(err.text, "No space left"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("picture");
    TCase *tc = tcase_create("picture");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, kinds_of_png, 0, (int)N_ELEMS(kinds));
    tcase_add_test(tc, cut_off);
    tcase_add_test(tc, changed);
    tcase_add_test(tc, too_large);
    tcase_add_test(tc, no_picture);
    suite_add_tcase(s, tc);
    return unit_run(s);
}
