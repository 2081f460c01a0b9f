#include "knocks.h"
#include "rtp.h"

#include <stdlib.h>

static const uint64_t each_ns = UINT64_C(10000000), burst_ns = UINT64_C(1000000000);
static const uint64_t stale_ns = UINT64_C(60000000000); /* then it counts no more how often it came */

struct knocks *knocks_new(void)
{
    struct knocks *k = aligned_alloc(alignof(struct knocks), sizeof *k);

    if (k)
        memset(k, 0, sizeof *k); /* touched now, so that no packet waits for a page */
    return k;
}

/* Each release keeps its order to the one before, so whoever meets a word of it finds the version
 * odd, or another, when he looks again. */
static void publish(struct knock_slot *slot, const struct rf_knock *knock)
{
    uint64_t version = load_rlx(&slot->version), word[KNOCK_WORDS] = {0};

    memcpy(word, knock, sizeof *knock);
    store_rlx(&slot->version, version + 1);
    for (unsigned i = 0; i < KNOCK_WORDS; i++)
        store_rls(&slot->word[i], word[i]);
    store_rls(&slot->version, version + 2);
}

static void read_words(struct knock_slot *slot, struct rf_knock *out)
{
    uint64_t word[KNOCK_WORDS];

    for (unsigned i = 0; i < KNOCK_WORDS; i++)
        word[i] = load_acq(&slot->word[i]);
    memcpy(out, word, sizeof *out);
}

/* A hundred new ones a second, and as many at once (a virtual schedule, as session.h's rate_limit). */
static bool may_come(struct knocks *k, uint64_t now)
{
    uint64_t full = k->full_at < now ? now : k->full_at;

    if (full + each_ns > now + burst_ns)
        return false;
    k->full_at = full + each_ns;
    return true;
}

static unsigned least(const struct knocks *k, unsigned set, uint64_t now)
{
    uint64_t fewest = UINT64_MAX;
    unsigned at = 0;

    for (unsigned i = 0; i < KNOCK_WAYS; i++) {
        const struct knock_slot *slot = &k->slot[set][i];
        bool stale = k->tag[set][i] == 0 || now >= slot->last_ns + stale_ns;
        uint64_t packets = stale ? 0 : slot->packets;

        if (packets < fewest) {
            fewest = packets;
            at = i;
        }
    }
    return at;
}

void knock(struct knocks *k, uint64_t hash, const struct rf_addr *source, const uint8_t *packet,
           enum drop_reason reason, const struct session *s, uint64_t now)
{
    uint64_t tag = hash ? hash : 1;
    unsigned set = (unsigned)(hash >> 40) % KNOCK_SETS, at = 0;
    struct rf_knock knock = {.first_ns = now};

    while (at < KNOCK_WAYS && k->tag[set][at] != tag)
        at++;
    if (at == KNOCK_WAYS) {
        if (!may_come(k, now))
            return;
        at = least(k, set, now);
        k->tag[set][at] = tag;
        k->slot[set][at].packets = 0;
    } else {
        read_words(&k->slot[set][at], &knock);
    }
    struct knock_slot *slot = &k->slot[set][at];

    memset(&knock.source, 0, sizeof knock.source); /* padding is read as words, too */
    memcpy(knock.source.ip, source->ip, sizeof source->ip);
    knock.source.scope = source->scope;
    knock.source.port = source->port;
    knock.ssrc = rtp_read_u32(packet + RTP_SSRC_OFFSET);
    knock.payload_type = packet[1] & RTP_PAYLOAD_TYPE;
    knock.reason = (uint8_t)reason;
    knock.handle = s ? session_handle(s) : 0;
    knock.by_feeder = reason == DROP_probation && addr_equal(&s->ssrcs->feeder, source);
    knock.last_ns = slot->last_ns = now;
    knock.packets = ++slot->packets;
    publish(slot, &knock);
}

unsigned knocks_read(struct knocks *k, struct rf_knock *out)
{
    unsigned n = 0;

    for (unsigned i = 0; i < KNOCK_SETS * KNOCK_WAYS; i++) {
        struct knock_slot *slot = &k->slot[i / KNOCK_WAYS][i % KNOCK_WAYS];
        uint64_t before;

        do {
            before = load_acq(&slot->version);
            read_words(slot, &out[n]);
        } while (before % 2 != 0 || load_acq(&slot->version) != before);
        n += before != 0;
    }
    return n;
}
