/* SPDX-License-Identifier: MIT */
/*
 * session - what a stub may say when, as a table
 *
 * Pure. One session per connection of a VM. The table gives, for a state and a message type, what
 * to do; a pair that is not in it is a message out of its state, which ends the connection.
 */
#ifndef VGPU_MEDIATOR_SESSION_H
#define VGPU_MEDIATOR_SESSION_H

#include <stdint.h>

enum session_state {
    SESSION_NEW,       /* connected, HELLO is awaited */
    SESSION_OPEN,      /* HELLO_ACK was sent */
    SESSION_RESETTING, /* RESET came, RESET_ACK waits for the last writer of the old life */
    SESSION_REFUSED,   /* REFUSED was sent; everything is ignored until the connection ends */
};

enum session_action {
    SESSION_BAD, /* out of state: end the connection */
    SESSION_GREET,
    SESSION_REQUEST,
    SESSION_DATA,
    SESSION_CANCEL,
    SESSION_RESET,
    SESSION_WISH,
    SESSION_IGNORE,
};

/** session_action() - what to do with a message of @type in @state */
enum session_action session_action(enum session_state state, uint16_t type);

/**
 * session_is_late() - whether a message belongs to another life and is dropped silently
 * @type:    of the message; HELLO and RESET start a life and are never late
 * @epoch:   of the message
 * @current: epoch of the session
 */
int session_is_late(uint16_t type, uint32_t epoch, uint32_t current);

/** session_is_newer() - whether @epoch comes after @than (epochs may wrap) */
int session_is_newer(uint32_t epoch, uint32_t than);

/** session_name() - "new", "open", … */
const char *session_name(enum session_state state);

#endif
