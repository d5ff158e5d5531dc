/* SPDX-License-Identifier: MIT */
/* table.c - see table.h */
#include "admin/table.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

static void cell_bytes(double bytes, char *out)
{
    static const char units[] = "BKMGTP";
    size_t i = 0;

    while (bytes >= 1024 && i + 2 < sizeof(units)) {
        bytes /= 1024;
        i++;
    }
    snprintf(out, TABLE_CELL_MAX, i == 0 ? "%.0f%c" : "%.1f%c", bytes, units[i]);
}

static void cell_seconds(double s, char *out)
{
    long whole = (long)s;

    if (s < 60) {
        snprintf(out, TABLE_CELL_MAX, "%.1fs", s);
    } else if (s < 3600) {
        snprintf(out, TABLE_CELL_MAX, "%ldm%02lds", whole / 60, whole % 60);
    } else {
        snprintf(out, TABLE_CELL_MAX, "%ldh%02ldm", whole / 3600, whole / 60 % 60);
    }
}

static void cell_list(const json_t *list, char *out)
{
    size_t used = 0;
    size_t i;
    json_t *item;

    out[0] = '\0';
    json_array_foreach (list, i, item) {
        const char *text = json_string_value(item);
        int n = text ? snprintf(out + used, TABLE_CELL_MAX - used, "%s%s", i ? "," : "", text) : 0;

        if (n < 0 || (size_t)n >= TABLE_CELL_MAX - used) {
            return;
        }
        used += (size_t)n;
    }
}

void table_cell(const json_t *value, enum table_unit unit, char *out)
{
    double number = json_number_value(value);

    if (json_is_string(value)) {
        snprintf(out, TABLE_CELL_MAX, "%s", json_string_value(value));
    } else if (json_is_boolean(value)) {
        snprintf(out, TABLE_CELL_MAX, "%s", json_is_true(value) ? "yes" : "no");
    } else if (json_is_array(value)) {
        cell_list(value, out);
    } else if (!json_is_number(value)) {
        snprintf(out, TABLE_CELL_MAX, "-");
    } else if (unit == TABLE_BYTES) {
        cell_bytes(number, out);
    } else if (unit == TABLE_SECONDS) {
        cell_seconds(number, out);
    } else if (unit == TABLE_MILLIS) {
        snprintf(out, TABLE_CELL_MAX, "%.1f", number);
    } else {
        snprintf(out, TABLE_CELL_MAX, "%.0f", number);
    }
}

typedef char cell_text[TABLE_CELL_MAX];

static void fill(cell_text *cells, const json_t *rows, const struct table_column *columns,
                 size_t n_columns)
{
    size_t i;
    json_t *row;

    for (size_t c = 0; c < n_columns; c++) {
        snprintf(cells[c], TABLE_CELL_MAX, "%s", columns[c].title);
    }
    json_array_foreach (rows, i, row) {
        for (size_t c = 0; c < n_columns; c++) {
            table_cell(json_object_get(row, columns[c].key), columns[c].unit,
                       cells[(i + 1) * n_columns + c]);
        }
    }
}

static int widest(const cell_text *cells, size_t lines, size_t n_columns, size_t c)
{
    size_t width = 0;

    for (size_t l = 0; l < lines; l++) {
        size_t n = strlen(cells[l * n_columns + c]);

        width = n > width ? n : width;
    }
    return (int)width;
}

static void print_line(FILE *out, const cell_text *line, const struct table_column *columns,
                       size_t n_columns, const int *widths)
{
    for (size_t c = 0; c < n_columns; c++) {
        bool last = c + 1 == n_columns;

        if (columns[c].unit != TABLE_TEXT) {
            fprintf(out, "%*s%s", widths[c], line[c], last ? "\n" : "  ");
        } else if (last) {
            fprintf(out, "%s\n", line[c]);
        } else {
            fprintf(out, "%-*s  ", widths[c], line[c]);
        }
    }
}

int table_print(FILE *out, const json_t *rows, const struct table_column *columns, size_t n_columns,
                const char *empty)
{
    size_t lines = json_array_size(rows) + 1;
    CLEANUP(cleanup_free) cell_text *cells = NULL;
    int widths[TABLE_COLUMNS_MAX];

    if (lines == 1) {
        fprintf(out, "%s\n", empty);
        return 0;
    }
    cells = calloc(lines * n_columns, sizeof(*cells));
    if (!cells) {
        return -ENOMEM;
    }
    fill(cells, rows, columns, n_columns);
    for (size_t c = 0; c < n_columns; c++) {
        widths[c] = widest(cells, lines, n_columns, c);
    }
    for (size_t l = 0; l < lines; l++) {
        print_line(out, &cells[l * n_columns], columns, n_columns, widths);
    }
    return 0;
}
