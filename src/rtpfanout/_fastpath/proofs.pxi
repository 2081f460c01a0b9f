# What tells the packet path who is known from a stranger; part of _engine.pyx.

cdef const uint8_t *proof_key(bytes key) except NULL:
    if len(key) != core.RF_PROOF_KEY:
        raise ValueError(f"such a key has {core.RF_PROOF_KEY} bytes, not {len(key)}")
    return <const uint8_t *><const char *>key


def make_cookie(bytes key, address, uint64_t made_us):
    """What `Engine.set_cookie_key` of that key makes the packet path know the address by."""
    cdef core.rf_addr to
    cdef uint8_t cookie[core.RF_COOKIE]
    write_address(&to, address)
    core.rf_cookie_make(proof_key(key), &to, made_us, cookie)
    return (<const char *>cookie)[: core.RF_COOKIE]


def stamp_claims(bytes key, bytes claims):
    """The claims with the stamp that `Engine.set_stamp_key` of that key makes it look for."""
    cdef uint8_t stamped[core.RF_CLAIMS]
    if len(claims) != core.RF_CLAIMS:
        raise ValueError(f"claims have {core.RF_CLAIMS} bytes, not {len(claims)}")
    memcpy(stamped, <const char *>claims, core.RF_CLAIMS)
    core.rf_stamp_make(proof_key(key), stamped)
    return (<const char *>stamped)[: core.RF_CLAIMS]
