/* SPDX-License-Identifier: MIT */
/*
 * client - ask a mediator one question over its admin socket
 *
 * Blocking, with a limit of CLIENT_TIMEOUT_S on connecting, sending and receiving together.
 */
#ifndef VGPU_ADMIN_CLIENT_H
#define VGPU_ADMIN_CLIENT_H

#include <jansson.h>
#include <stddef.h>

#define CLIENT_TIMEOUT_S 5
#define CLIENT_ANSWER_MAX (16u << 20) /* bytes */

enum {
    CLIENT_E_UNREACHABLE = 1, /* no mediator answers there */
    CLIENT_E_REFUSED,         /* it answered with an error */
};

/**
 * client_ask() - one question, one answer
 * @path:     the admin socket
 * @question: stays the caller's
 * @ret:      the answer, the caller's to json_decref(); written only on 0
 * @why:      @why_size bytes for a sentence; written only when not 0
 *
 * Return: 0; CLIENT_E_*.
 */
int client_ask(const char *path, const json_t *question, json_t **ret, char *why, size_t why_size);

#endif
