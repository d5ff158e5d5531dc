/* SPDX-License-Identifier: MIT */
/*
 * conf_check - from the loaded strings to a checked configuration
 *
 * Private to conf.
 */
#ifndef VGPU_CONF_CHECK_H
#define VGPU_CONF_CHECK_H

#include "common/conf.h"
#include "common/conf_schema.h"
#include "common/conf_tree.h"

/**
 * conf_check() - numbers, bounds, references, duplicates; defaults filled in
 *
 * Return: 0, with *@ret_conf set unless the tree's errors have a new one; -ENOMEM.
 */
int conf_check(struct conf_tree *tree, const struct conf_raw *raw, struct conf **ret_conf);

/**
 * conf_check_unique() - report names, pool numbers, uuids and sockets that appear twice
 *
 * Return: 0 (look at the tree's errors); -ENOMEM.
 */
int conf_check_unique(struct conf_tree *tree, const struct conf_raw *raw, const struct conf *conf);

#endif
