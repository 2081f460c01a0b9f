/* Counts the grace periods that control calls wait for, in a program that wraps qsbr_synchronize. */
#ifndef TEST_GRACE_H
#define TEST_GRACE_H

#include "qsbr.h"

static unsigned grace_periods;

void __real_qsbr_synchronize(struct qsbr *q);
void __wrap_qsbr_synchronize(struct qsbr *q);

void __wrap_qsbr_synchronize(struct qsbr *q)
{
    grace_periods++;
    __real_qsbr_synchronize(q);
}

#endif
