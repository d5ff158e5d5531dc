/* SPDX-License-Identifier: MIT */
/*
 * history - the last jobs that ended, for people's questions
 */
#ifndef VGPU_MEDIATOR_HISTORY_H
#define VGPU_MEDIATOR_HISTORY_H

#include "local-mediator/mediator.h"

/** history_resize() - keep the last @size jobs; the newest of those kept so far stay. Return: 0;
 *  -ENOMEM: as before. */
int history_resize(struct mediator *m, uint32_t size);

/** history_add() - @job ended with @error */
void history_add(const struct job *job, uint32_t error);

/** history_at() - the @index-th job from the newest, 0 first; NULL past the oldest */
const struct ended *history_at(const struct mediator *m, uint32_t index);

#endif
