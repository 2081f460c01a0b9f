/* What payloads tell, and receptions of what comes in any order. The input: an encoding, whether it is
 * told, then packets, each behind its length (2 bytes) and how many ms it came after the one before. What
 * came at once is taken packet by packet, and once more as a worker does it: that is to be the same. */
#include <stdlib.h>
#include <string.h>

#include "watch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
    if (!holds)
        abort();
}

static bool is_within(struct payload p, const uint8_t *bytes, size_t len)
{
    return len <= p.len && bytes >= p.bytes && (size_t)(bytes - p.bytes) <= p.len - len;
}

static void look_at(enum rf_encoding encoding, const uint8_t *packet, size_t len)
{
    struct payload p = payload_of(packet, len);
    struct payload_facts facts = payload_look(encoding, p);
    struct parameter_set set;
    size_t at = 0;
    unsigned sets = 0;

    demand(is_within((struct payload){packet, len}, p.bytes, p.len));
    demand(!facts.keyframe || payload_has_keyframes(encoding));
    if (payload_is_dull(encoding, packet, len, true))
        demand(!facts.keyframe && !facts.parameter_sets);
    while (payload_next_set(encoding, p, &at, &set)) {
        demand(is_within(p, set.bytes, set.len) && set.len > 1);
        demand(++sets <= p.len);
    }
    for (enum rf_encoding e = 0; e < RF_ENCODING_COUNT; e++) {
        payload_fits(e, p, true);
        payload_fits(e, p, false);
    }
    demand(payload_opus_samples(p) <= 5760);
}

static void keep(struct parameter_sets *kept, enum rf_encoding encoding, struct payload p)
{
    uint8_t out[RF_PARAMETER_BYTES];

    parameter_sets_keep(kept, encoding, p, 1);
    demand(parameter_sets_read(kept, encoding, out) <= RF_PARAMETER_BYTES);
}

static void check(const struct reception *r, uint64_t now)
{
    static const struct watch w;
    struct watched s = {.last_packet_ns = now};
    struct rf_reception f;

    watch_figures(&w, r, &s, now, &f);
    demand(f.lost >= 0 && f.lost <= f.expected);
    demand(f.received == f.expected - f.lost + f.duplicates);
    demand(f.missing_now >= 0 && f.missing_now < RECEPTION_WINDOW);
    demand(f.keyframes == RF_ABSENT || f.keyframes <= f.frames);
}

/* All that is taken of one input. */
static struct {
    unsigned count;
    struct packet packet[4096 / RTP_HEADER_LEN];
    uint64_t at[4096 / RTP_HEADER_LEN];
    bool has_sets[4096 / RTP_HEADER_LEN];
} taken;

static void note(const struct reception_packet *p, bool has_sets)
{
    demand(taken.count < sizeof taken.at / sizeof taken.at[0]);
    taken.packet[taken.count] = (struct packet){.bytes = {(void *)p->data, p->len}};
    taken.at[taken.count] = p->now;
    taken.has_sets[taken.count++] = has_sets;
}

/* As a worker does: of what came at once only the first, and those that tell something, are looked into. */
static void take_again(const struct reception *once, uint64_t asked, bool several)
{
    struct reception r;

    reception_begin(&r);
    if (asked)
        reception_ask(&r, asked);
    for (unsigned i = 0; i < taken.count;) {
        struct reception_packet p = {taken.packet[i].bytes.iov_base, taken.packet[i].bytes.iov_len,
                                     taken.at[i], several};
        unsigned together = 1;

        demand(reception_take(&r, &p) == taken.has_sets[i]);
        while (i + together < taken.count && taken.at[i + together] == taken.at[i])
            together++;
        unsigned alike = reception_take_alike(&r, &taken.packet[i + 1], together - 1, p.now);

        demand(alike < together);
        for (i++; alike > 0; alike--)
            demand(!taken.has_sets[i++]);
    }
    store_rlx(&r.version, load_rlx(&once->version));
    demand(memcmp((const void *)&r, (const void *)once, sizeof r) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct parameter_sets kept;
    struct reception r;
    uint64_t now = 1000000000, asked = 0;
    uint32_t ssrc;

    if (size < 2 || size > 4096)
        return 0;
    enum rf_encoding encoding = (enum rf_encoding)(data[0] % RF_ENCODING_COUNT);

    memset((void *)&kept, 0, sizeof kept);
    reception_begin(&r);
    taken.count = 0;
    if (data[1] & 1)
        asked = media_word(encoding, RF_ANY_PAYLOAD_TYPE, data[1] & MEDIA_SEALED, 90000);
    if (asked)
        reception_ask(&r, asked);
    for (size_t at = 2; at + 3 <= size;) {
        size_t len = rtp_read_u16(data + at);
        const uint8_t *packet = data + at + 3;

        now += data[at + 2] * UINT64_C(1000000);
        at += 3;
        len = len < size - at ? len : size - at;
        at += len;
        if (rtp_classify(packet, len, &ssrc) != RTP_PACKET ||
            ((data[1] & 2) && !rtp_padding_fits(packet, len)))
            continue;
        look_at(encoding, packet, len);
        struct reception_packet p = {packet, len, now, data[1] & 4};

        bool has_sets = reception_take(&r, &p);

        if (has_sets)
            keep(&kept, (enum rf_encoding)load_rlx(&r.encoding), payload_of(packet, len));
        note(&p, has_sets);
        check(&r, now);
    }
    take_again(&r, asked, data[1] & 4);
    return 0;
}
