/* addr.c: one form for both families, there and back. */
#include "endpoints.h"

static void test_ipv4_there_and_back(void)
{
    struct rf_addr a = address("192.0.2.7", 5004), back;
    union sockaddr_any name;

    CHECK(addr_is_ipv4(&a));
    CHECK_EQ(a.port, 5004);
    CHECK_EQ(a.ip[12], 192);
    CHECK_EQ(addr_to_sockaddr(&name, &a, AF_INET), sizeof(struct sockaddr_in));
    CHECK_EQ(name.v4.sin_family, AF_INET);
    CHECK_EQ(name.v4.sin_port, htons(5004));
    CHECK_EQ(name.v4.sin_addr.s_addr, htonl(0xc0000207));
    addr_from_sockaddr(&back, &name);
    CHECK(addr_equal(&a, &back));
}

static void test_ipv4_by_an_ipv6_socket(void)
{
    struct rf_addr a = address("192.0.2.7", 65535), back;
    union sockaddr_any name;

    CHECK_EQ(addr_to_sockaddr(&name, &a, AF_INET6), sizeof(struct sockaddr_in6));
    CHECK(IN6_IS_ADDR_V4MAPPED(&name.v6.sin6_addr));
    CHECK_EQ(name.v6.sin6_family, AF_INET6);
    CHECK_EQ(name.v6.sin6_port, 0xffff);
    addr_from_sockaddr(&back, &name);
    CHECK(addr_is_ipv4(&back) && addr_equal(&a, &back));
}

static void test_ipv6_with_scope(void)
{
    struct rf_addr a = address("fe80::1", 1), back;
    union sockaddr_any name;

    a.scope = 3;
    CHECK(!addr_is_ipv4(&a));
    CHECK_EQ(addr_to_sockaddr(&name, &a, AF_INET6), sizeof(struct sockaddr_in6));
    CHECK_EQ(name.v6.sin6_scope_id, 3);
    addr_from_sockaddr(&back, &name);
    CHECK(addr_equal(&a, &back));
    CHECK_EQ(addr_to_sockaddr(&name, &a, AF_INET), 0);
}

static void test_each_part_counts(void)
{
    const struct rf_addr a = address("2001:db8::1", 10);
    struct rf_addr b = a;

    CHECK(addr_equal(&a, &b));
    b.port = 11;
    CHECK(!addr_equal(&a, &b));
    b = a;
    b.scope = 1;
    CHECK(!addr_equal(&a, &b));
    for (unsigned i = 0; i < 16; i++) {
        b = a;
        b.ip[i] ^= 1;
        CHECK(!addr_equal(&a, &b));
    }
}

static void test_other_families_are_nobody(void)
{
    union sockaddr_any name;
    struct rf_addr a, nobody = {0};

    memset(&name, 0xff, sizeof name);
    name.any.sa_family = AF_UNIX;
    addr_from_sockaddr(&a, &name);
    CHECK(addr_equal(&a, &nobody));
}

/* subscriber lists compare names byte by byte. */
static void test_names_hold_no_stray_bytes(void)
{
    struct rf_addr a = address("192.0.2.7", 5004);
    union sockaddr_any one, two;

    memset(&one, 0xaa, sizeof one);
    memset(&two, 0x55, sizeof two);
    addr_to_sockaddr(&one, &a, AF_INET);
    addr_to_sockaddr(&two, &a, AF_INET);
    CHECK(memcmp(&one, &two, sizeof one) == 0);
    addr_to_sockaddr(&one, &a, AF_INET6);
    memset(&two, 0x55, sizeof two);
    addr_to_sockaddr(&two, &a, AF_INET6);
    CHECK(memcmp(&one, &two, sizeof one) == 0);
}

int main(void)
{
    RUN(test_ipv4_there_and_back);
    RUN(test_ipv4_by_an_ipv6_socket);
    RUN(test_ipv6_with_scope);
    RUN(test_each_part_counts);
    RUN(test_other_families_are_nobody);
    RUN(test_names_hold_no_stray_bytes);
    return 0;
}
