/* SPDX-License-Identifier: MIT */
/*
 * picture.c - see picture.h
 *
 * libpng reports errors by longjmp(), so what the two inner functions use after one lives in a
 * struct of the caller.
 */
#include <errno.h>
#include <fcntl.h>
#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/cmd/file.h"
#include "guest/cmd/picture.h"
#include "guest/lib/err.h"

#define CHUNK_BYTES_MAX (8u << 20) /* of a chunk that is no picture data */

struct coder {
    png_structp png;
    png_infop info;
    png_bytepp rows;
    struct file *file; /* to write to */
    bool reported;
    struct vgpu_err *err;
    char text[160]; /* libpng's complaint */
};

static void on_error(png_structp png, png_const_charp text)
{
    struct coder *c = png_get_error_ptr(png);

    snprintf(c->text, sizeof(c->text), "%s", text);
    longjmp(png_jmpbuf(png), 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

/* Everything becomes 8-bit grey or RGB. */
static void choose_transforms(struct coder *c, struct picture *p)
{
    int depth = png_get_bit_depth(c->png, c->info);
    int type = png_get_color_type(c->png, c->info);

    if (depth == 16) {
        png_set_scale_16(c->png);
    }
    if (type == PNG_COLOR_TYPE_PALETTE) {
        png_set_palette_to_rgb(c->png);
    } else if (type == PNG_COLOR_TYPE_GRAY && depth < 8) {
        png_set_expand_gray_1_2_4_to_8(c->png);
    }
    png_set_strip_alpha(c->png);
    p->had_alpha =
        (type & PNG_COLOR_MASK_ALPHA) != 0 || png_get_valid(c->png, c->info, PNG_INFO_tRNS) != 0;
}

static int make_room(struct coder *c, struct picture *p)
{
    size_t bytes = (size_t)p->stride * p->height;

    if (bytes > PICTURE_BYTES_MAX) {
        c->reported = true;
        return err_set(c->err, -EINVAL, "%u x %u pixels are too many: at most %llu MiB of samples",
                       p->width, p->height, (unsigned long long)PICTURE_BYTES_MAX >> 20);
    }
    p->samples = malloc(bytes);
    c->rows = malloc(p->height * sizeof(*c->rows));
    if (!p->samples || !c->rows) {
        c->reported = true;
        return err_set(c->err, -ENOMEM, "no memory for a picture of %u x %u pixels", p->width,
                       p->height);
    }
    for (uint32_t y = 0; y < p->height; y++) {
        c->rows[y] = p->samples + (size_t)y * p->stride;
    }
    return 0;
}

static int decode(struct coder *c, FILE *in, struct picture *p)
{
    int r;

    if (setjmp(png_jmpbuf(c->png))) {
        return -EINVAL;
    }
    png_init_io(c->png, in);
    png_set_user_limits(c->png, PICTURE_SIDE_MAX, PICTURE_SIDE_MAX);
    png_set_chunk_malloc_max(c->png, CHUNK_BYTES_MAX);
    png_read_info(c->png, c->info);
    choose_transforms(c, p);
    png_set_interlace_handling(c->png);
    png_read_update_info(c->png, c->info);
    p->width = png_get_image_width(c->png, c->info);
    p->height = png_get_image_height(c->png, c->info);
    p->channels = png_get_channels(c->png, c->info);
    p->stride = p->width * p->channels;
    if ((p->channels != 1 && p->channels != 3) || png_get_bit_depth(c->png, c->info) != 8 ||
        png_get_rowbytes(c->png, c->info) != p->stride) {
        png_error(c->png, "an unknown kind of samples");
    }
    r = make_room(c, p);
    if (r) {
        return r;
    }
    png_read_image(c->png, c->rows);
    png_read_end(c->png, NULL);
    return 0;
}

static int read_open(FILE *in, struct picture *p, struct vgpu_err *err)
{
    struct coder c = {.err = err};
    uint8_t signature[8];
    int r;

    if (fread(signature, 1, sizeof(signature), in) != sizeof(signature) ||
        png_sig_cmp(signature, 0, sizeof(signature)) != 0) {
        return err_set(err, -EINVAL, "not a PNG picture");
    }
    rewind(in);
    c.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &c, on_error, on_warning);
    c.info = c.png ? png_create_info_struct(c.png) : NULL;
    if (!c.info) {
        png_destroy_read_struct(&c.png, NULL, NULL);
        return err_set(err, -ENOMEM, "no memory to read a picture");
    }
    r = decode(&c, in, p);
    png_destroy_read_struct(&c.png, &c.info, NULL);
    free(c.rows);
    if (r && !c.reported) {
        err_set(err, r, "the picture is damaged or cut off: %s", c.text);
    }
    return r;
}

int picture_read(const char *path, struct picture *ret, struct vgpu_err *ret_err)
{
    struct picture p = {0};
    struct vgpu_err err = {0};
    FILE *in = fopen(path, "rbe");
    int r;

    if (!in) {
        return err_set(ret_err, -errno, "cannot open %s: %s", path, strerror(errno));
    }
    r = read_open(in, &p, &err);
    if (r && ferror(in)) {
        r = err_set(&err, -EIO, "cannot read it: %s", strerror(errno));
    }
    fclose(in);
    if (r) {
        picture_fini(&p);
        return err_set(ret_err, r, "%s: %s", path, err.text);
    }
    *ret = p;
    return 0;
}

static void on_write(png_structp png, png_bytep data, png_size_t len)
{
    struct coder *c = png_get_io_ptr(png);

    if (file_write(c->file, data, len, c->err) != 0) {
        c->reported = true;
        png_error(png, "write error");
    }
}

static void on_flush(png_structp png)
{
    (void)png;
}

/* Cheap settings: a VM without hardware help spends longer on these than on all the rest. */
static int encode(struct coder *c, const struct picture *p, int compression)
{
    if (setjmp(png_jmpbuf(c->png))) {
        return -EIO;
    }
    png_set_write_fn(c->png, c, on_write, on_flush);
    png_set_IHDR(c->png, c->info, p->width, p->height, 8,
                 p->channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_compression_level(c->png, compression);
    png_set_filter(c->png, PNG_FILTER_TYPE_BASE,
                   compression == 0 ? PNG_FILTER_NONE : PNG_FILTER_SUB);
    png_write_info(c->png, c->info);
    for (uint32_t y = 0; y < p->height; y++) {
        png_write_row(c->png, p->samples + (size_t)y * p->stride);
    }
    png_write_end(c->png, NULL);
    return 0;
}

static int write_open(struct file *f, const struct picture *p, int compression,
                      struct vgpu_err *err)
{
    struct coder c = {.err = err, .file = f};
    int r;

    c.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &c, on_error, on_warning);
    c.info = c.png ? png_create_info_struct(c.png) : NULL;
    if (!c.info) {
        png_destroy_write_struct(&c.png, NULL);
        return err_set(err, -ENOMEM, "no memory to write %s", f->path);
    }
    r = encode(&c, p, compression);
    png_destroy_write_struct(&c.png, &c.info);
    if (r && !c.reported) {
        err_set(err, r, "cannot write %s: %s", f->path, c.text);
    }
    return r;
}

int picture_write(const char *path, const struct picture *p, int compression,
                  struct vgpu_err *ret_err)
{
    struct file f;
    int r = file_create(&f, path, ret_err);

    r = r ? r : write_open(&f, p, compression, ret_err);
    r = r ? r : file_commit(&f, ret_err);
    file_drop(&f);
    return r;
}

void picture_fini(struct picture *p)
{
    free(p->samples);
    p->samples = NULL;
}
