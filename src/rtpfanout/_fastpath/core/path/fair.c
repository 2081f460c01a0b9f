#include "fair.h"

enum { CALM_WINDOWS = 20 }; /* that lift the limit: two seconds */

void fair_init(struct fair *f)
{
    *f = (struct fair){.window = 1, .share = FAIR_UNLIMITED, .youngest_ns = UINT64_MAX};
}

static void begin_window(struct fair *f, uint64_t now)
{
    f->window = f->window + 1 ? f->window + 1 : 1;
    f->began = now;
    f->youngest_ns = UINT64_MAX;
    f->copies = f->strangers = f->sessions = f->dropped = 0;
}

static uint64_t raised(const struct fair *f)
{
    return f->share + f->share / (f->youngest_ns < FAIR_TARGET / 10 ? 4 : 20) + 1;
}

/* Down by a tenth while the queue stands, up by a twentieth while it does not, and by a quarter
 * when it is all but empty; from what the sessions had on average, which is right at once
 * where all of them want the same. */
static void adjust_share(struct fair *f)
{
    bool flooded = f->strangers > FAIR_FLOOD * f->copies;
    bool standing = f->youngest_ns > FAIR_TARGET && !flooded;

    f->standing = standing ? f->standing + 1 : 0;
    f->calm = f->dropped == 0 && !standing ? f->calm + 1 : 0;
    if (f->share == FAIR_UNLIMITED) {
        if (f->standing >= FAIR_PATIENCE && f->sessions > 0)
            f->share = f->copies / f->sessions + 1;
    } else if (standing) {
        f->share -= f->share / 10;
    } else {
        f->share = f->calm < CALM_WINDOWS ? raised(f) : FAIR_UNLIMITED;
    }
}

void fair_block(struct fair *f, uint64_t now, uint64_t age_ns)
{
    if (age_ns < f->youngest_ns)
        f->youngest_ns = age_ns;
    if (now - f->began >= FAIR_WINDOW) {
        /* After a pause the queue is old without being too much to serve: no judgement. */
        if (now - f->began < 2 * FAIR_WINDOW)
            adjust_share(f);
        begin_window(f, now);
    }
    f->watching = f->share != FAIR_UNLIMITED || age_ns > FAIR_TARGET;
}

bool fair_admits_counted(struct fair *f, struct session *s)
{
    uint32_t copies = subscribers_served(load_acq(&s->subscribers));
    struct fair_use *use = &s->fair_use;

    if (use->window != f->window) {
        use->window = f->window;
        use->copies = 0;
        f->sessions++;
    }
    /* The first packet always passes, or a wide session might never have one. */
    if (use->copies > 0 && use->copies + copies > f->share) {
        counter_add(&use->dropped, 1);
        f->dropped++;
        return false;
    }
    use->copies += copies;
    f->copies += copies;
    return true;
}
