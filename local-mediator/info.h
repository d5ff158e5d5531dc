/* SPDX-License-Identifier: MIT */
/*
 * info - the operations that the mediator answers itself: INFO and CANCEL
 */
#ifndef VGPU_MEDIATOR_INFO_H
#define VGPU_MEDIATOR_INFO_H

#include "local-mediator/mediator.h"

/** info_answer() - answer @job, whose op is below VGPU_OP_FIRST_COMPUTE; frees it */
void info_answer(struct vmconn *vc, struct job *job);

#endif
