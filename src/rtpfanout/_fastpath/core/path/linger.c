#include "linger.h"

#include "rtp.h"

enum { FAILURES = 6 }; /* then it is tried every 64th time */

/* RFC 3551 section 5: the marker is on a frame's last packet; nothing more is to come. Audio has
 * it on the first of a talkspurt, where waiting has no point either. */
static bool ends_frame(const struct packet *p)
{
    return ((const uint8_t *)p->bytes.iov_base)[1] & RTP_MARKER;
}

bool linger_begin(struct frame_wait *l, struct session *s, unsigned buffers, uint64_t now)
{
    uint64_t copies = subscribers_served(load_acq(&s->subscribers));

    if (copies < LINGER_SUBSCRIBERS || buffers > LINGER_BUFFERS || ends_frame(s->run.last))
        return false;
    if (s->latency->linger.skip > 0) {
        s->latency->linger.skip--;
        return false;
    }
    l->session = s;
    l->last = s->run.last;
    l->gained = false;
    l->wait_ns = copies * LINGER_COPY_NS;
    if (l->wait_ns > LINGER_MOST_NS)
        l->wait_ns = LINGER_MOST_NS;
    l->until = now + l->wait_ns;
    l->end = now + LINGER_PACKETS * l->wait_ns;
    return true;
}

bool linger_goes_on(struct frame_wait *l, uint64_t now)
{
    if (l->session->run.last != l->last) {
        l->last = l->session->run.last;
        l->gained = true;
        l->until = now + l->wait_ns;
        if (!l->last || ends_frame(l->last))
            return false;
    }
    return now < l->until && now < l->end;
}

void linger_end(struct frame_wait *l)
{
    struct linger_use *use = &l->session->latency->linger;

    if (l->gained || l->session->run.last != l->last)
        use->failures = 0;
    else if (use->failures < FAILURES)
        use->failures++;
    use->skip = (uint8_t)((1 << use->failures) - 1);
}
