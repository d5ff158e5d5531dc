/* SPDX-License-Identifier: MIT */
/*
 * conf.c - read the file, check its shape, load it, then check what it says (conf_check.c)
 */
#include "common/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/conf_check.h"
#include "common/conf_tree.h"

static int open_file(const char *path, struct conf_errors *errors)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0) {
        int r = -errno;

        conf_error(errors, path, 0, "cannot open the pool file: %s; give its path with --config",
                   strerror(-r));
        return r;
    }
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode)) {
        conf_error(errors, path, 0, "is not a regular file");
        close(fd);
        return -EINVAL;
    }
    return fd;
}

/* The whole file, at most CONF_FILE_MAX bytes. */
static int read_file(const char *path, struct conf_errors *errors, char **ret_text,
                     size_t *ret_length)
{
    CLEANUP(cleanup_fd) int fd = open_file(path, errors);
    CLEANUP(cleanup_free) char *text = NULL;
    size_t length = 0, size = 0;
    ssize_t n = 1;

    if (fd < 0) {
        return fd;
    }
    while (n > 0) {
        if (length == size) {
            char *larger = size < CONF_FILE_MAX ? realloc(text, size + 65536) : NULL;

            if (!larger) {
                conf_error(errors, path, 0, "larger than %u MiB", CONF_FILE_MAX >> 20);
                return -EFBIG;
            }
            text = larger;
            size += 65536;
        }
        n = read(fd, text + length, size - length);
        if (n < 0) {
            int r = -errno;

            conf_error(errors, path, 0, "cannot read the pool file: %s", strerror(-r));
            return r;
        }
        length += (size_t)n;
    }
    *ret_text = TAKE_PTR(text);
    *ret_length = length;
    return 0;
}

/* ---- libcyaml, whose messages become one of ours ---- */

struct complaint {
    char text[128]; /* its first line */
    size_t line;
};

__attribute__((format(printf, 3, 0))) static void
on_cyaml_log(cyaml_log_t level, void *context, const char *format, va_list arguments)
{
    struct complaint *complaint = context;
    char text[256];
    const char *at;

    vsnprintf(text, sizeof(text), format, arguments);
    text[strcspn(text, "\n")] = 0;
    if (level == CYAML_LOG_ERROR && !complaint->text[0]) {
        const char *start = strncmp(text, "Load: ", 6) == 0 ? text + 6 : text;

        snprintf(complaint->text, sizeof(complaint->text), "%.127s", start);
    }
    at = strstr(text, "(line: ");
    if (at && !complaint->line) {
        complaint->line = strtoul(at + 7, NULL, 10);
    }
}

static const cyaml_config_t cyaml_config_base = {
    .log_fn = on_cyaml_log,
    .mem_fn = cyaml_mem,
    .log_level = CYAML_LOG_WARNING,
    .flags = CYAML_CFG_NO_ALIAS,
};

static struct conf_raw *load_raw(const char *path, const char *text, size_t length,
                                 struct conf_errors *errors)
{
    struct complaint complaint = {.line = 0};
    cyaml_config_t config = cyaml_config_base;
    struct conf_raw *raw = NULL;
    cyaml_err_t r;

    config.log_ctx = &complaint;
    r = cyaml_load_data((const uint8_t *)text, length, &config, &conf_schema, (cyaml_data_t **)&raw,
                        NULL);
    if (r != CYAML_OK || !raw) {
        conf_error(errors, path, complaint.line, "%s",
                   complaint.text[0] ? complaint.text : cyaml_strerror(r));
        return NULL;
    }
    return raw;
}

static void free_raw(struct conf_raw *raw)
{
    struct complaint complaint = {.line = 0};
    cyaml_config_t config = cyaml_config_base;

    config.log_ctx = &complaint;
    cyaml_free(&config, &conf_schema, raw, 0);
}

static int load_text(const char *path, const char *text, size_t length, struct conf **ret_conf,
                     struct conf_errors *errors)
{
    struct conf_tree tree;
    int r = conf_tree_parse(&tree, path, text, length, errors);

    if (r != 0) {
        return r;
    }
    if (!errors->count) {
        struct conf_raw *raw = load_raw(path, text, length, errors);

        if (raw) {
            r = conf_check(&tree, raw, ret_conf);
            free_raw(raw);
        }
    }
    conf_tree_fini(&tree);
    return errors->count ? CONF_E_INVALID : r;
}

int conf_load(const char *path, struct conf **ret_conf, struct conf_errors *ret_errors)
{
    CLEANUP(cleanup_free) char *text = NULL;
    size_t length = 0;
    int r;

    ret_errors->count = 0;
    r = read_file(path, ret_errors, &text, &length);
    return r != 0 ? r : load_text(path, text, length, ret_conf, ret_errors);
}

void conf_free(struct conf *conf)
{
    if (conf) {
        free(conf->pools);
        free(conf->tenants);
        free(conf->vms);
        free(conf);
    }
}

void conf_freep(struct conf **conf)
{
    conf_free(*conf);
}
