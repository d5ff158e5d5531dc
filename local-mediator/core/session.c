/* SPDX-License-Identifier: MIT */
#include "local-mediator/core/session.h"

#include <stddef.h>

#include "proto/vgpu_local.h"

struct row {
    enum session_state state;
    uint16_t type;
    enum session_action action;
};

/* clang-format off */
static const struct row rows[] = {
    {SESSION_NEW,       VGPU_MSG_HELLO,   SESSION_GREET},

    {SESSION_OPEN,      VGPU_MSG_REQUEST, SESSION_REQUEST},
    {SESSION_OPEN,      VGPU_MSG_DATA,    SESSION_DATA},
    {SESSION_OPEN,      VGPU_MSG_CANCEL,  SESSION_CANCEL},
    {SESSION_OPEN,      VGPU_MSG_RESET,   SESSION_RESET},
    {SESSION_OPEN,      VGPU_MSG_WISH,    SESSION_WISH},

    /* Before RESET_ACK the device refuses doorbells, so there can be no request. */
    {SESSION_RESETTING, VGPU_MSG_RESET,   SESSION_RESET},
    {SESSION_RESETTING, VGPU_MSG_WISH,    SESSION_WISH},
    {SESSION_RESETTING, VGPU_MSG_CANCEL,  SESSION_IGNORE},

    {SESSION_REFUSED,   VGPU_MSG_HELLO,   SESSION_IGNORE},
    {SESSION_REFUSED,   VGPU_MSG_REQUEST, SESSION_IGNORE},
    {SESSION_REFUSED,   VGPU_MSG_DATA,    SESSION_IGNORE},
    {SESSION_REFUSED,   VGPU_MSG_CANCEL,  SESSION_IGNORE},
    {SESSION_REFUSED,   VGPU_MSG_RESET,   SESSION_IGNORE},
    {SESSION_REFUSED,   VGPU_MSG_WISH,    SESSION_IGNORE},
};
/* clang-format on */

enum session_action session_action(enum session_state state, uint16_t type)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].state == state && rows[i].type == type) {
            return rows[i].action;
        }
    }
    return SESSION_BAD;
}

int session_is_late(uint16_t type, uint32_t epoch, uint32_t current)
{
    return type != VGPU_MSG_HELLO && type != VGPU_MSG_RESET && epoch != current;
}

int session_is_newer(uint32_t epoch, uint32_t than)
{
    return (int32_t)(epoch - than) > 0;
}

const char *session_name(enum session_state state)
{
    static const char *const names[] = {"new", "open", "resetting", "refused"};

    return state <= SESSION_REFUSED ? names[state] : "unknown";
}
