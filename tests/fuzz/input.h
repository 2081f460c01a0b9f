/* What the turn fuzzer reads its input by. A buffer is: flags, what they add, the length in two bytes, the
 * bytes. */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>

enum {
    FROM_STRANGER = 1,
    CUT_SHORT = 2,
    SEGMENTS = 4,  /* adds their length, two bytes: UDP_GRO put several datagrams together */
    A_MINUTE = 8,  /* passes before the buffer comes */
    TROUBLE = 16,  /* adds a byte: from now on every (1 + high half)th send entry fails, with the
                      error of the low half */
    NO_STAMP = 32, /* the kernel does not tell when it came */
    LAST = 64,     /* of this receive: the others have not come yet */
    TO_PORT = 128, /* adds a byte, before all else: to which of our ports beside the main one */
};

/* Those ports; the main one is 0. */
enum { MAIN_PORT, RTCP_PORT, OWN_PORT, OWN_RTCP_PORT, PORTS_IN_ALL };
enum { WITH_MAIN = 128 }; /* of that byte: the main one is looked at, too, when it wakes the worker */

static const uint8_t *input;
static size_t input_left;

/* The next byte of the input, 0 past its end. */
static inline uint8_t take(void)
{
    if (input_left == 0)
        return 0;
    input_left--;
    return *input++;
}

static inline size_t take_two(void)
{
    size_t high = take();

    return high * 256 + take();
}

static inline uint8_t port_byte(void)
{
    return input_left > 1 ? input[1] : 0;
}

/* That the next buffer comes to. */
static inline unsigned next_port(void)
{
    if (input_left == 0 || !(input[0] & TO_PORT))
        return MAIN_PORT;
    return 1 + (port_byte() & 127) % (PORTS_IN_ALL - 1);
}

#endif
