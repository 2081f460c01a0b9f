/* A tc (clsact, ingress) program that copies each RTP packet to all subscribers with
 * bpf_clone_redirect, the way a hand-made in-kernel fan-out would. Compiled by inkernel.py for
 * one set of subscribers (consecutive ports, or with BY_ADDRESS consecutive addresses), so it
 * looks nothing up: the most that this way can do.
 *
 * Defined on the command line: INGRESS_PORT, EGRESS (interface index), COUNT, FIRST_ADDRESS,
 * SOURCE_ADDRESS (host order), FIRST_PORT, MACS (12 bytes: destination, source).
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

/* Helper numbers of linux/bpf.h; no libbpf is needed to compile this. */
static long (*store_bytes)(void *skb, __u32 at, const void *from, __u32 size, __u64 flags) =
    (void *)BPF_FUNC_skb_store_bytes;
static long (*l3_csum_replace)(void *skb, __u32 at, __u64 from, __u64 to, __u64 flags) =
    (void *)BPF_FUNC_l3_csum_replace;
static long (*l4_csum_replace)(void *skb, __u32 at, __u64 from, __u64 to, __u64 flags) =
    (void *)BPF_FUNC_l4_csum_replace;
static long (*clone_redirect)(void *skb, __u32 interface, __u64 flags) =
    (void *)BPF_FUNC_clone_redirect;

#define IP ETH_HLEN
#define UDP (ETH_HLEN + sizeof(struct iphdr))
#define CHECKSUM (UDP + __builtin_offsetof(struct udphdr, check))

#define be16 __builtin_bswap16
#define be32 __builtin_bswap32

static inline __attribute__((always_inline)) void set_address(struct __sk_buff *skb, __u32 field,
                                                              __u32 from, __u32 to)
{
    l4_csum_replace(skb, CHECKSUM, from, to, BPF_F_PSEUDO_HDR | sizeof(to));
    l3_csum_replace(skb, IP + __builtin_offsetof(struct iphdr, check), from, to, sizeof(to));
    store_bytes(skb, IP + field, &to, sizeof(to), 0);
}

static inline __attribute__((always_inline)) void set_port(struct __sk_buff *skb, __u32 field,
                                                           __u16 from, __u16 to)
{
    l4_csum_replace(skb, CHECKSUM, from, to, sizeof(to));
    store_bytes(skb, UDP + field, &to, sizeof(to), 0);
}

__attribute__((section("tc"), used)) int fan_out(struct __sk_buff *skb)
{
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct ethhdr *eth = data;
    struct iphdr *ip = data + IP;
    struct udphdr *udp = data + UDP;
    if ((void *)(udp + 1) > end || eth->h_proto != be16(ETH_P_IP) || ip->ihl != 5 ||
        ip->protocol != IPPROTO_UDP || udp->dest != be16(INGRESS_PORT))
        return TC_ACT_OK;
    __u32 from = ip->saddr, to = ip->daddr;
    __u16 source_port = udp->source, port = udp->dest;
    static const __u8 macs[] = {MACS};
    __u8 ethernet[sizeof(macs)];
#pragma unroll
    for (unsigned i = 0; i < sizeof(macs); i++)
        ethernet[i] = macs[i];

    /* What all copies have in common. */
    store_bytes(skb, 0, ethernet, sizeof(ethernet), 0);
    set_address(skb, __builtin_offsetof(struct iphdr, saddr), from, be32(SOURCE_ADDRESS));
    set_port(skb, __builtin_offsetof(struct udphdr, source), source_port, be16(INGRESS_PORT));
#ifdef BY_ADDRESS
    set_port(skb, __builtin_offsetof(struct udphdr, dest), port, be16(FIRST_PORT));
#else
    set_address(skb, __builtin_offsetof(struct iphdr, daddr), to, be32(FIRST_ADDRESS));
#endif
#pragma nounroll
    for (__u32 i = 0; i < COUNT; i++) {
#ifdef BY_ADDRESS
        __u32 next = be32(FIRST_ADDRESS + i);
        set_address(skb, __builtin_offsetof(struct iphdr, daddr), to, next);
        to = next;
#else
        __u16 next = be16(FIRST_PORT + i);
        set_port(skb, __builtin_offsetof(struct udphdr, dest), port, next);
        port = next;
#endif
        clone_redirect(skb, EGRESS, 0);
    }
    return TC_ACT_SHOT;
}

__attribute__((section("license"), used)) char _license[] = "GPL";
