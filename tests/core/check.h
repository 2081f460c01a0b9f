/* Checks of a C test program: the first that fails ends it with its place and values. */
#ifndef TEST_CHECK_H
#define TEST_CHECK_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__, \
                    #condition);                                                      \
            exit(1);                                                                  \
        }                                                                             \
    } while (0)

/* Both as signed 64-bit integers. */
#define CHECK_EQ(a, b)                                                                        \
    do {                                                                                      \
        int64_t a_ = (int64_t)(a), b_ = (int64_t)(b);                                         \
                                                                                              \
        if (a_ != b_) {                                                                       \
            fprintf(stderr, "%s:%d: %s: %s is %" PRId64 ", expected %s, %" PRId64 "\n",       \
                    __FILE__, __LINE__, __func__, #a, a_, #b, b_);                            \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

#define RUN(test)                     \
    do {                              \
        test();                       \
        printf("  %s\n", #test);      \
        fflush(stdout);               \
    } while (0)

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
