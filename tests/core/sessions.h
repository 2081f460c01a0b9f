/* Sessions with subscribers, outside an engine. */
#ifndef TEST_SESSIONS_H
#define TEST_SESSIONS_H

#include "calls.h"
#include "endpoints.h"
#include "table.h"

/* The 127.0.0.0/8 address number i, all of which a socket bound to 0.0.0.0 receives. */
static inline struct rf_addr loopback_address(uint32_t i, uint16_t port)
{
    struct rf_addr a = address("127.0.0.1", port);

    a.ip[14] = (uint8_t)(i / 250);
    a.ip[15] = (uint8_t)(1 + i % 250);
    return a;
}

/* Not yet in any table. */
static inline struct session *session_make(struct session_pool *pool, struct rf_addr source,
                                           uint32_t ssrc, const struct rf_addr *subscribers,
                                           uint32_t n)
{
    struct subscriber_list *old, *list;
    bool *added = malloc(n + 1);
    struct session *s;

    CHECK(added != NULL);
    CHECK_EQ(session_new(pool, &source, ssrc, 0, &s), 0);
    old = load_rlx(&s->subscribers);
    struct joining joining = {AF_INET, n, 0, &usual_terms};

    CHECK_EQ(subscriber_list_add(old, subscribers, n, &joining, added, &list), 0);
    if (list != old)
        free(old);
    store_rlx(&s->subscribers, list);
    free(added);
    return s;
}

/* As table_find, by what is in the key. */
static inline struct session *find_session(const struct table *t, uint32_t ssrc,
                                           const struct rf_addr *source, bool *ssrc_known)
{
    struct table_key key = table_key(t, ssrc, source);
    struct session *s = table_find(t, &key), *late = NULL;

    if (!s)
        *ssrc_known = table_namesake(t, &key, &late) != NULL;
    return s ? s : late;
}

#endif
