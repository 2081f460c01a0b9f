# The C core as core.h declares it; the only `cdef extern` of the package. Counters are
# reached by rf_*_name and position, so that they stay declared once, in stats_fields.h.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "core.h" nogil:
    ctypedef bint rf_bool "bool"
    const uint64_t RF_IDLE_FOREVER

    struct rf_engine:
        pass

    struct rf_addr:
        uint8_t ip[16]
        uint32_t scope
        uint16_t port

    struct rf_network:
        rf_addr addr
        uint8_t prefix
        rf_bool anybody

    enum rf_source_policy:
        RF_EXACT
        RF_NETWORK
        RF_LATCH

    enum rf_ssrc_policy:
        RF_SSRC_EXACT
        RF_SSRC_FOLLOW
        RF_SSRC_ANY

    struct rf_source:
        rf_source_policy policy
        rf_addr exact
        rf_network network
        uint64_t relatch_after_ns
        rf_bool own_port
        rf_ssrc_policy ssrc_policy
        uint64_t followed
        rf_bool pins

    enum rf_notice_kind:
        RF_NOTICE_DATAGRAM
        RF_NOTICE_SOURCE
        RF_NOTICE_SSRC

    enum rf_queue:
        RF_QUEUE_KNOWN
        RF_QUEUE_STRANGERS

    struct rf_notice:
        rf_notice_kind kind
        uint16_t len
        uint64_t handle
        rf_addr source
        uint8_t local[16]
        uint8_t *data

    struct rf_config:
        rf_addr bind
        uint32_t max_sessions
        uint32_t max_subscribers
        uint32_t receive_queue_packets
        uint32_t workers
        uint32_t split_threshold
        uint64_t busy_poll_ns
        const int *sockets
        uint32_t socket_count
        const int *in_hand
        uint8_t egress[16]
        rf_bool check_padding
        rf_bool discover_path_mtu
        rf_bool no_segmentation

    struct rf_socket_info:
        rf_addr bound
        uint32_t receive_buffer
        uint32_t requested_receive_buffer
        uint32_t send_buffer
        uint32_t requested_send_buffer
        rf_bool sends_ipv4
        rf_bool sends_ipv6
        rf_bool gso
        rf_bool gro
        uint32_t lanes
        uint32_t receiving

    struct rf_stats:
        uint64_t packets_received  # the first counter; the others follow

    struct rf_session_stats:
        uint64_t handle
        uint64_t packets_received  # the first counter; the others follow
        uint64_t created_ns
        uint64_t last_packet_ns
        double packets_per_second
        uint32_t subscribers

    struct rf_terms:
        uint32_t lease_until
        uint8_t subscriber_class
        uint8_t withheld
        uint8_t rtcp
        uint8_t from_ "from"[16]

    struct rf_report:
        uint64_t at_ns
        double fraction
        int64_t lost
        double jitter_secs
        double round_trip_secs

    struct rf_feedback:
        uint64_t handle
        uint64_t sender_reports  # the first counter; the others follow
        uint64_t sender_report_ns
        uint32_t reporters

    enum rf_rtcp:
        RF_RTCP_OFF
        RF_RTCP_MUX
        RF_RTCP_NEXT_PORT

    struct rf_subscriber_stats:
        rf_addr addr
        uint64_t since_ns
        uint64_t packets_sent
        uint64_t send_failures
        rf_terms terms
        rf_report report

    struct rf_health:
        uint64_t alive_ns
        uint64_t busy_ns
        uint64_t cpu_ns

    struct rf_latency:
        uint64_t *count  # RF_LATENCY_BOUNDS + 1 of them
        uint64_t sum_ns

    enum rf_encoding:
        RF_ENCODING_UNKNOWN  # the others follow, by rf_encoding_name

    enum rf_condition:
        RF_CONDITION_flowing

    enum rf_origin:
        RF_ORIGIN_NONE
        RF_ORIGIN_ASSUMED
        RF_ORIGIN_MEASURED
        RF_ORIGIN_SNIFFED
        RF_ORIGIN_STATIC
        RF_ORIGIN_GIVEN

    struct rf_media:
        rf_encoding encoding
        uint8_t payload_type
        uint32_t clock_rate
        uint32_t assumed_clock_rate
        rf_bool sealed
        rf_bool has_parameter_sets

    struct rf_reception:
        uint64_t handle
        int64_t received  # the first figure; the others follow
        double bitrate_bps
        double frame_rate
        uint32_t ssrc
        uint32_t clock_rate
        rf_origin encoding_from
        rf_origin clock_from
        rf_encoding encoding
        uint8_t encoding_sureness
        uint8_t payload_type
        uint8_t payload_type_count
        uint8_t *payload_types
        rf_condition condition

    struct rf_reception_figures:
        float bitrate_bps

    struct rf_condition_change:
        uint64_t handle
        rf_condition condition
        rf_bool active
        uint32_t restarts

    int64_t RF_ABSENT

    enum:
        RF_ANY_PAYLOAD_TYPE
        RF_PARAMETER_BYTES
        RF_CLASS_PILOT
        RF_CLASS_RECORDER
        RF_CLASS_MONITOR
        RF_CLASSES
        RF_KEYFRAME_PLI
        RF_KEYFRAME_FIR
        RF_WITHHELD_CONSENT
        RF_WITHHELD_SHED
        RF_WITHHELD_REFUSED
        RF_GROUP_SOURCES
        RF_LATENCY_BOUNDS
        RF_MAX_WORKERS
        RF_PROOF_KEY
        RF_COOKIE
        RF_CLAIMS

    int rf_in_hand_open(uint32_t count)
    int rf_sockets_open(const rf_addr *bind, uint32_t count, uint32_t receive_queue_packets,
                        int *fds)
    int rf_socket_open(const rf_addr *bind, uint32_t receive_queue_packets)
    uint32_t rf_sockets_receiving(const int *fds, uint32_t count)
    int rf_engine_new(const rf_config *config, rf_engine **out)
    void rf_engine_free(rf_engine *e)
    int rf_engine_run(rf_engine *e, uint32_t worker)
    void rf_engine_stop(rf_engine *e)
    void rf_engine_leave(rf_engine *e)
    int rf_group_join(rf_engine *e, const rf_addr *group, const rf_addr *sources, uint32_t count,
                      uint32_t interface)
    int rf_group_leave(rf_engine *e, const rf_addr *group, uint32_t interface)
    void rf_groups_of_others(rf_engine *e, rf_bool taken)
    int rf_rtcp_port(rf_engine *e, int fd)
    int rf_session_ports(rf_engine *e, uint64_t handle, int rtp, int rtcp)
    void rf_engine_socket(const rf_engine *e, rf_socket_info *out)
    void rf_engine_stats(rf_engine *e, rf_stats *out)
    int rf_engine_health(rf_engine *e, uint32_t worker, uint64_t now, rf_health *out)
    void rf_engine_latency(rf_engine *e, rf_latency *first, rf_latency *last)

    int rf_session_add(rf_engine *e, const rf_source *source, uint32_t ssrc, uint64_t now,
                       uint64_t *handle)
    int rf_session_move(rf_engine *e, uint64_t handle, const rf_source *source, uint64_t now)
    int rf_session_retune(rf_engine *e, uint64_t handle, const rf_source *source, uint32_t ssrc,
                          uint64_t now)
    int rf_session_pause(rf_engine *e, uint64_t handle, rf_bool paused)
    int rf_session_idle_timeout(rf_engine *e, uint64_t handle, uint64_t idle_timeout)
    int rf_session_limit(rf_engine *e, uint64_t handle, uint64_t bits_per_second)
    int rf_session_dscp(rf_engine *e, uint64_t handle, int dscp)
    int rf_session_remove(rf_engine *e, uint64_t handle)
    int session_stats "rf_session_stats"(rf_engine *e, uint64_t handle, uint64_t now,
                                         rf_session_stats *out)
    int rf_session_latency(rf_engine *e, uint64_t handle, rf_latency *first, rf_latency *last)
    size_t rf_sessions_stats(rf_engine *e, uint64_t now, rf_session_stats *out, size_t capacity)
    int rf_subscribers_add(rf_engine *e, uint64_t handle, const rf_addr *addrs, size_t n,
                           const rf_terms *terms, uint64_t now, rf_bool *added)
    int rf_subscribers_withhold(rf_engine *e, uint64_t handle, const rf_addr *addrs, size_t n,
                                uint8_t reason, rf_bool on, size_t *changed)
    int rf_subscribers_find(rf_engine *e, uint64_t handle, const rf_addr *addrs, size_t n,
                            rf_terms *out, rf_bool *found)
    int rf_subscribers_deliver(rf_engine *e, uint64_t handle, const rf_addr *addrs, size_t n,
                               const uint8_t *from_)
    int rf_subscribers_rtcp(rf_engine *e, uint64_t handle, const rf_addr *addrs, size_t n,
                            rf_rtcp rtcp)
    int rf_session_feedback(rf_engine *e, uint64_t handle, rf_feedback *out)
    size_t rf_sessions_feedback(rf_engine *e, rf_feedback *out, size_t capacity)
    int rf_session_keyframe_format(rf_engine *e, uint64_t handle, unsigned format)
    int rf_session_report_class(rf_engine *e, uint64_t handle, unsigned subscriber_class)
    int rf_session_repair(rf_engine *e, uint64_t handle, rf_bool on)
    int rf_session_want_keyframe(rf_engine *e, uint64_t handle)
    void rf_follow_sources(rf_engine *e)
    int rf_subscribers_expired(rf_engine *e, uint64_t handle, uint32_t now_secs, rf_addr *out,
                               size_t capacity, size_t *count)
    int rf_subscribers_remove(rf_engine *e, uint64_t handle, const rf_addr *addrs, size_t n,
                              rf_bool *found)
    int rf_subscribers(rf_engine *e, uint64_t handle, uint64_t after, rf_subscriber_stats *out,
                       size_t capacity, size_t *count)
    int rf_local_addresses(rf_engine *e, const rf_addr *addrs, size_t n)
    int rf_notice_fd(const rf_engine *e, rf_queue queue)
    size_t rf_notices(rf_engine *e, rf_queue queue, rf_notice *out, size_t capacity)
    void rf_cookie_key(rf_engine *e, const uint8_t *key)
    void rf_await(rf_engine *e, const rf_addr *addrs, size_t n, rf_bool on)
    void rf_stamp_key(rf_engine *e, const uint8_t *key)
    void rf_cookie_make(const uint8_t *key, const rf_addr *to, uint64_t made_us, uint8_t *cookie)
    void rf_stamp_make(const uint8_t *key, uint8_t *claims)
    int rf_send(rf_engine *e, const rf_addr *to, const uint8_t *from_, const void *data,
                size_t len)
    size_t rf_engine_tick(rf_engine *e, uint64_t now, uint64_t idle_timeout, uint64_t *idle,
                          size_t capacity)

    int rf_session_media(rf_engine *e, uint64_t handle, const rf_media *media)
    int session_reception "rf_session_reception"(rf_engine *e, uint64_t handle, uint64_t now,
                                                 rf_reception *out)
    size_t rf_sessions_reception(rf_engine *e, uint64_t now, rf_reception *out, size_t capacity)
    size_t rf_sessions_figures(rf_engine *e, uint64_t now, uint64_t *handles,
                               rf_reception_figures *out, size_t capacity)
    int rf_session_parameter_sets(rf_engine *e, uint64_t handle, uint8_t *out, size_t *len)
    void rf_receptions_sum(rf_engine *e, uint64_t now, rf_reception *out)
    size_t rf_conditions(rf_engine *e, uint64_t now, uint64_t lately, rf_condition_change *out,
                         size_t capacity)

    const char *rf_encoding_name(size_t i)
    const char *rf_condition_name(size_t i)
    const char *rf_condition_help(size_t i)
    const char *rf_reception_field_name(size_t i)
    const char *rf_reception_field_help(size_t i)
    const char *rf_stats_field_name(size_t i)
    const char *rf_stats_field_help(size_t i)
    const char *rf_session_field_name(size_t i)
    const char *rf_session_field_help(size_t i)
    const char *rf_feedback_field_name(size_t i)
    const char *rf_feedback_field_help(size_t i)
    const char *rf_rtcp_kind_name(size_t i)
    const char *rf_rtcp_drop_name(size_t i)
    const char *rf_drop_reason_name(size_t i)
    const char *rf_send_failure_name(size_t i)
    uint64_t rf_latency_bound(size_t i)


cdef extern from "core_senders.h" nogil:
    struct rf_source_ssrc:
        uint32_t ssrc
        uint8_t payload_type
        uint64_t since_ns
        uint64_t last_ns

    struct rf_knock:
        rf_addr source
        uint32_t ssrc
        uint8_t payload_type
        uint8_t reason
        bint by_feeder
        uint64_t handle
        uint64_t packets
        uint64_t first_ns
        uint64_t last_ns

    enum:
        RF_KNOCKS
        RF_READ_PADDING
        RF_READ_NO_PADDING
        RF_READ_NO_RTCP
        RF_READ_SRTP
        RF_SOURCE_SSRCS

    int rf_session_ssrcs(rf_engine *e, uint64_t handle, rf_source_ssrc *out)
    int rf_session_read(rf_engine *e, uint64_t handle, unsigned how)
    int rf_session_wrong_source(rf_engine *e, uint64_t handle, rf_addr *out)
    int rf_knocks(rf_engine *e, rf_knock *out, size_t capacity)
