/* SPDX-License-Identifier: MIT */
/*
 * conf_tree - the pool file as a tree of nodes with their lines
 *
 * Private to conf. Checks the tree against the libcyaml schema before libcyaml loads it, because this
 * way every error has the exact line, all errors are found at once, and an unknown key gets a
 * suggestion; finds the line of any key for the checks that follow.
 */
#ifndef VGPU_CONF_TREE_H
#define VGPU_CONF_TREE_H

#include <yaml.h>

#include "common/conf.h"
#include "common/conf_schema.h"

struct conf_tree {
    const char *file;
    yaml_document_t document;
    struct conf_errors *errors;
};

/**
 * conf_tree_parse() - parse @text and check its shape
 * @file:   name for messages; must outlive the tree
 * @errors: where messages go; must outlive the tree
 *
 * Return: 0 (look at errors->count); CONF_E_INVALID when it is not YAML: then there is no tree.
 */
int conf_tree_parse(struct conf_tree *tree, const char *file, const char *text, size_t length,
                    struct conf_errors *errors);

/** conf_tree_fini() - free the tree */
void conf_tree_fini(struct conf_tree *tree);

/** conf_tree_root(), conf_tree_key(), conf_tree_entry() - walk; NULL in gives NULL out */
yaml_node_t *conf_tree_root(struct conf_tree *tree);
yaml_node_t *conf_tree_key(struct conf_tree *tree, yaml_node_t *mapping, const char *key);
yaml_node_t *conf_tree_entry(struct conf_tree *tree, yaml_node_t *sequence, size_t index);

/** conf_error() - add "file:line: text"; @line 0: without a line */
__attribute__((format(printf, 4, 5))) void conf_error(struct conf_errors *errors, const char *file,
                                                      size_t line, const char *format, ...);

/** conf_tree_error() - the same, at the line of @node */
__attribute__((format(printf, 3, 4))) void
conf_tree_error(struct conf_tree *tree, const yaml_node_t *node, const char *format, ...);

#endif
