/* SPDX-License-Identifier: MIT */
#include "common/conf_tree.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/conf_text.h"

#define FIELDS_MAX 64 /* keys of one mapping of the schema */
#define DEPTH_MAX 8

__attribute__((format(printf, 4, 0))) static void add_error(struct conf_errors *errors,
                                                            const char *file, size_t line,
                                                            const char *format, va_list arguments)
{
    size_t size = sizeof(errors->text[0]);
    int used;
    char *text;

    if (errors->count++ >= CONF_ERRORS_MAX) {
        return;
    }
    text = errors->text[errors->count - 1];
    used = line ? snprintf(text, size, "%s:%zu: ", file, line) : snprintf(text, size, "%s: ", file);
    if (used > 0 && (size_t)used < size) {
        vsnprintf(text + used, size - (size_t)used, format, arguments);
    }
}

void conf_error(struct conf_errors *errors, const char *file, size_t line, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    add_error(errors, file, line, format, arguments);
    va_end(arguments);
}

void conf_tree_error(struct conf_tree *tree, const yaml_node_t *node, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    add_error(tree->errors, tree->file, node ? node->start_mark.line + 1 : 0, format, arguments);
    va_end(arguments);
}

yaml_node_t *conf_tree_root(struct conf_tree *tree)
{
    return yaml_document_get_root_node(&tree->document);
}

yaml_node_t *conf_tree_key(struct conf_tree *tree, yaml_node_t *mapping, const char *key)
{
    if (!mapping || mapping->type != YAML_MAPPING_NODE) {
        return NULL;
    }
    for (yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
         pair < mapping->data.mapping.pairs.top; pair++) {
        yaml_node_t *name = yaml_document_get_node(&tree->document, pair->key);

        if (name->type == YAML_SCALAR_NODE &&
            strcmp((const char *)name->data.scalar.value, key) == 0) {
            return yaml_document_get_node(&tree->document, pair->value);
        }
    }
    return NULL;
}

yaml_node_t *conf_tree_entry(struct conf_tree *tree, yaml_node_t *sequence, size_t index)
{
    yaml_node_item_t *item;

    if (!sequence || sequence->type != YAML_SEQUENCE_NODE) {
        return NULL;
    }
    item = sequence->data.sequence.items.start + index;
    return item < sequence->data.sequence.items.top ? yaml_document_get_node(&tree->document, *item)
                                                    : NULL;
}

/* ---- the check against the schema ---- */

struct place {
    struct conf_tree *tree;
    char path[128]; /* "vms[0].pools" */
    unsigned depth;
};

static const char *node_kind(const yaml_node_t *node)
{
    switch (node->type) {
    case YAML_MAPPING_NODE:
        return "a mapping (key: value)";
    case YAML_SEQUENCE_NODE:
        return "a list";
    default:
        return "a single value";
    }
}

static void check_value(struct place *place, yaml_node_t *node, const cyaml_schema_value_t *schema);

static void enter(const struct place *from, struct place *ret, const char *key, size_t index)
{
    ret->tree = from->tree;
    ret->depth = from->depth + 1;
    if (key) {
        snprintf(ret->path, sizeof(ret->path), "%.60s%s%.60s", from->path, from->path[0] ? "." : "",
                 key);
    } else {
        snprintf(ret->path, sizeof(ret->path), "%.100s[%zu]", from->path, index);
    }
}

static void unknown_key(struct place *place, const yaml_node_t *name,
                        const cyaml_schema_field_t *fields)
{
    const char *keys[FIELDS_MAX];
    const char *text = (const char *)name->data.scalar.value;
    const char *nearest;
    char list[160] = "";
    size_t count = 0;

    for (; fields[count].key && count < FIELDS_MAX; count++) {
        size_t used = strlen(list);

        keys[count] = fields[count].key;
        snprintf(list + used, sizeof(list) - used, "%s%s", count ? ", " : "", keys[count]);
    }
    nearest = conf_text_nearest(text, keys, count);
    if (nearest) {
        conf_tree_error(place->tree, name, "unknown key '%.60s' in %s; did you mean '%s'?", text,
                        place->path[0] ? place->path : "the file", nearest);
    } else {
        conf_tree_error(place->tree, name, "unknown key '%.60s' in %s; known here: %s", text,
                        place->path[0] ? place->path : "the file", list);
    }
}

static const cyaml_schema_field_t *find_field(const cyaml_schema_field_t *fields, const char *key)
{
    for (; fields->key; fields++) {
        if (strcmp(fields->key, key) == 0) {
            return fields;
        }
    }
    return NULL;
}

static bool is_repeated(struct place *place, const yaml_node_t *mapping,
                        const yaml_node_pair_t *pair)
{
    yaml_document_t *document = &place->tree->document;
    yaml_node_t *name = yaml_document_get_node(document, pair->key);

    for (yaml_node_pair_t *p = mapping->data.mapping.pairs.start; p < pair; p++) {
        yaml_node_t *earlier = yaml_document_get_node(document, p->key);

        if (earlier->type == YAML_SCALAR_NODE &&
            strcmp((const char *)earlier->data.scalar.value,
                   (const char *)name->data.scalar.value) == 0) {
            return true;
        }
    }
    return false;
}

static void check_pair(struct place *place, yaml_node_t *mapping, yaml_node_pair_t *pair,
                       const cyaml_schema_field_t *fields)
{
    yaml_node_t *name = yaml_document_get_node(&place->tree->document, pair->key);
    const cyaml_schema_field_t *field;
    struct place inside;

    if (name->type != YAML_SCALAR_NODE) {
        conf_tree_error(place->tree, name, "a key must be a word");
        return;
    }
    field = find_field(fields, (const char *)name->data.scalar.value);
    if (!field) {
        unknown_key(place, name, fields);
        return;
    }
    if (is_repeated(place, mapping, pair)) {
        conf_tree_error(place->tree, name, "key '%s' appears twice in %s", field->key,
                        place->path[0] ? place->path : "the file");
        return;
    }
    enter(place, &inside, field->key, 0);
    check_value(&inside, yaml_document_get_node(&place->tree->document, pair->value),
                &field->value);
}

static void check_mapping(struct place *place, yaml_node_t *node,
                          const cyaml_schema_field_t *fields)
{
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++) {
        check_pair(place, node, pair, fields);
    }
    for (; fields->key; fields++) {
        if (!(fields->value.flags & CYAML_FLAG_OPTIONAL) &&
            !conf_tree_key(place->tree, node, fields->key)) {
            conf_tree_error(place->tree, node, "key '%s' is missing in %s", fields->key,
                            place->path[0] ? place->path : "the file");
        }
    }
}

static void check_sequence(struct place *place, yaml_node_t *node,
                           const cyaml_schema_value_t *schema)
{
    size_t index = 0;

    for (yaml_node_item_t *item = node->data.sequence.items.start;
         item < node->data.sequence.items.top; item++, index++) {
        struct place inside;

        enter(place, &inside, NULL, index);
        check_value(&inside, yaml_document_get_node(&place->tree->document, *item),
                    schema->sequence.entry);
    }
}

static void check_value(struct place *place, yaml_node_t *node, const cyaml_schema_value_t *schema)
{
    yaml_node_type_t want = schema->type == CYAML_MAPPING    ? YAML_MAPPING_NODE
                            : schema->type == CYAML_SEQUENCE ? YAML_SEQUENCE_NODE
                                                             : YAML_SCALAR_NODE;
    static const char *const wanted[] = {
        [YAML_MAPPING_NODE] = "a mapping (key: value)",
        [YAML_SEQUENCE_NODE] = "a list",
        [YAML_SCALAR_NODE] = "a single value",
    };

    if (place->depth > DEPTH_MAX) {
        conf_tree_error(place->tree, node, "%s: too deep", place->path);
        return;
    }
    if (node->type != want) {
        conf_tree_error(place->tree, node, "%s must be %s, not %s",
                        place->path[0] ? place->path : "the file", wanted[want], node_kind(node));
        return;
    }
    if (want == YAML_MAPPING_NODE) {
        check_mapping(place, node, schema->mapping.fields);
    } else if (want == YAML_SEQUENCE_NODE) {
        check_sequence(place, node, schema);
    } else if (node->data.scalar.length > 255) {
        conf_tree_error(place->tree, node, "%s is longer than 255 bytes", place->path);
    }
}

int conf_tree_parse(struct conf_tree *tree, const char *file, const char *text, size_t length,
                    struct conf_errors *errors)
{
    struct place root = {.tree = tree};
    yaml_parser_t parser;
    bool parsed;

    tree->file = file;
    tree->errors = errors;
    if (!yaml_parser_initialize(&parser)) {
        conf_error(errors, file, 0, "out of memory");
        return CONF_E_INVALID;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
    parsed = yaml_parser_load(&parser, &tree->document) != 0;
    if (!parsed) {
        conf_error(errors, file, parser.problem_mark.line + 1, "not valid YAML: %s%s%s",
                   parser.problem ? parser.problem : "unreadable", parser.context ? ", " : "",
                   parser.context ? parser.context : "");
    }
    yaml_parser_delete(&parser);
    if (!parsed) {
        return CONF_E_INVALID;
    }
    if (!conf_tree_root(tree)) {
        conf_error(errors, file, 0, "the file is empty; the least is: version: 1");
        return 0;
    }
    check_value(&root, conf_tree_root(tree), &conf_schema);
    return 0;
}

void conf_tree_fini(struct conf_tree *tree)
{
    yaml_document_delete(&tree->document);
}
