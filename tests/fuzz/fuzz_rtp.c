/* rtp_classify against naive_kind; the input is the datagram. */
#include <stdlib.h>

#include "naive.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int check_padding = 0; check_padding < 2; check_padding++) {
        uint32_t ssrc = 0x5a5a5a5a, expected_ssrc = 0x5a5a5a5a;

        enum rtp_kind kind = rtp_classify(data, size, &ssrc);

        if (kind == RTP_PACKET && check_padding && !rtp_padding_fits(data, size)) {
            kind = RTP_MALFORMED;
            ssrc = 0x5a5a5a5a;
        }
        if (kind != naive_kind(data, size, check_padding, &expected_ssrc) || ssrc != expected_ssrc)
            abort();
    }
    return 0;
}
