/* For a program that wraps clock_gettime: time stands still. On a busy machine a turn may last so long
 * that it ends by itself, and what is to be seen of it takes two. */
#ifndef TEST_STILL_H
#define TEST_STILL_H

#include <time.h>

int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    (void)id;
    *t = (struct timespec){1000, 0};
    return 0;
}

#endif
