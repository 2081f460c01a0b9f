#include "cut.h"

void cut_init(struct cut *c)
{
    *c = (struct cut){.most = CUT_COPIES};
}

void cut_add(struct cut *c, uint32_t subscribers, bool opens_group)
{
    c->copies += subscribers;
    if (opens_group)
        c->entries += subscribers;
}

bool cut_due(const struct cut *c)
{
    return c->entries >= CUT_ENTRIES || c->copies >= c->most;
}

void cut_begin(struct cut *c)
{
    c->timed = c->copies;
}

void cut_learn(struct cut *c, uint64_t took_ns)
{
    if (c->timed > 0) {
        bool cheap = took_ns * CUT_CHEAP_COPIES <= CUT_CHEAP_NS * c->timed;

        c->most = cheap ? CUT_CHEAP_COPIES : CUT_COPIES;
    }
    c->timed = 0;
}

void cut_done(struct cut *c)
{
    c->entries = c->copies = 0;
}

void cut_forget(struct cut *c)
{
    c->timed = 0;
}
