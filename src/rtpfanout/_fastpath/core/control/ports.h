/* The sockets of sessions at ports of their own. */
#ifndef RF_PORTS_H
#define RF_PORTS_H

#include "engine.h"

struct session_ports {
    struct side_port *rtp, *rtcp; /* NULL: it has none */
};

/* Under `control`: nothing that comes is for the session any more. To be freed after a grace
 * period. */
struct session_ports ports_close(struct rf_engine *e, struct session *s);
void ports_free(struct session_ports had);

/* Under `control`. How its copies are marked, see session.mark. */
void ports_mark(struct rf_engine *e, struct session *s, uint16_t mark);

#endif
