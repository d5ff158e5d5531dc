/* SPDX-License-Identifier: MIT */
/*
 * table - print an array of JSON objects as a table
 *
 * Columns are as wide as their widest cell; numbers stand right, text left.
 */
#ifndef VGPU_ADMIN_TABLE_H
#define VGPU_ADMIN_TABLE_H

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

#define TABLE_CELL_MAX 64u /* bytes of a cell; longer text is cut */
#define TABLE_COLUMNS_MAX 16u

enum table_unit {
    TABLE_TEXT,
    TABLE_COUNT,
    TABLE_BYTES,   /* as 1.5M */
    TABLE_SECONDS, /* as 3.2s, 5m10s, 2h05m */
    TABLE_MILLIS,  /* as 12.3 */
};

struct table_column {
    const char *title;
    const char *key; /* of the objects; absent or null: "-" */
    enum table_unit unit;
};

/**
 * table_cell() - one value as it is shown
 * @out: TABLE_CELL_MAX bytes
 */
void table_cell(const json_t *value, enum table_unit unit, char *out);

/**
 * table_print() - header line and one line per object
 * @rows:    array of objects; anything else counts as empty
 * @columns: at most TABLE_COLUMNS_MAX
 * @empty:   sentence to print instead when there are no rows
 *
 * Return: 0; -ENOMEM.
 */
int table_print(FILE *out, const json_t *rows, const struct table_column *columns, size_t n_columns,
                const char *empty);

#endif
