#include "metrics_counters.h"

namespace radiotower::daemon {

namespace {

constexpr std::string_view dropped = "radiotower_dropped_packets_total";
constexpr std::string_view icmp = "radiotower_icmp_messages_total";
constexpr std::string_view peers = "radiotower_peer_connections_total";
constexpr std::string_view handshakes = "radiotower_handshakes_total";
constexpr std::string_view refused = "radiotower_connections_refused_total";
constexpr std::string_view closed = "radiotower_connections_closed_total";
constexpr std::string_view loop = "radiotower_loop_events_total";
constexpr std::string_view stream = "radiotower_stream_events_total";
constexpr std::string_view dtls = "radiotower_dtls_events_total";
constexpr std::string_view moved = "radiotower_moved_clients_events_total";
constexpr std::string_view trains = "radiotower_trains_total";

const CounterFamily families[] = {
    {dropped, MetricType::Counter, "Packets and messages that were neither relayed nor answered, by reason."},
    {"radiotower_allocations_made_total", MetricType::Counter, "Allocations that were made."},
    {"radiotower_allocations_moved_total", MetricType::Counter, "Clients that came back from another address with their ticket (RFC 8016)."},
    {"radiotower_handed_over_total", MetricType::Counter, "Messages that belonged to another worker's allocation."},
    {"radiotower_offload_refused_channels_total", MetricType::Counter, "Channels that found no place in the offload's tables; user space relays them."},
    {icmp, MetricType::Counter, "ICMP messages about packets that were sent to peers (RFC 8656, 11.5), by what became of them."},
    {peers, MetricType::Counter, "TCP connections with peers (RFC 6062), by event."},
    {"radiotower_datagrams_received_total", MetricType::Counter, "Datagrams that workers took from the kernel, on listeners and relay ports."},
    {"radiotower_datagrams_sent_total", MetricType::Counter, "Datagrams that workers gave to the kernel."},
    {trains, MetricType::Counter, "Runs of datagrams of one flow that crossed the kernel as one (UDP_GRO, UDP_SEGMENT)."},
    {"radiotower_stream_received_bytes_total", MetricType::Counter, "Bytes taken from TCP connections, encrypted where they are."},
    {"radiotower_stream_sent_bytes_total", MetricType::Counter, "Bytes given to TCP connections, encrypted where they are."},
    {loop, MetricType::Counter, "What happened in the workers' loops."},
    {"radiotower_connections_accepted_total", MetricType::Counter, "TCP connections of clients that were accepted."},
    {refused, MetricType::Counter, "TCP connections of clients that were closed as soon as they came, by reason."},
    {closed, MetricType::Counter, "TCP and TLS connections of clients that ended, by reason."},
    {"radiotower_client_connections", MetricType::Gauge, "TCP and TLS connections of clients now."},
    {"radiotower_client_connections_in_handshake", MetricType::Gauge, "Of these: those whose TLS handshake or PROXY header is not done."},
    {"radiotower_stream_queued_bytes", MetricType::Gauge, "Bytes that wait for clients over TCP and TLS to take them."},
    {handshakes, MetricType::Counter, "TLS and DTLS handshakes, by outcome."},
    {"radiotower_dtls_sessions", MetricType::Gauge, "DTLS sessions of clients now."},
    {stream, MetricType::Counter, "What happened on clients' TCP and TLS connections."},
    {dtls, MetricType::Counter, "What happened before and in DTLS sessions."},
    {moved, MetricType::Counter, "Datagrams of clients that came to another worker than the one that holds their allocation (RFC 8016)."},
    {"radiotower_moved_clients", MetricType::Gauge, "Clients that moved (RFC 8016), by how their datagrams come to their worker."},
};

const CounterRow rows[] = {
    {"turn", "packets_to_peer", {}, {}, {}, "radiotower_relayed_packets_total"},
    {"turn", "bytes_to_peer", {}, {}, {}, "radiotower_relayed_bytes_total"},
    {"turn", "packets_to_client", {}, {}, {}, "radiotower_relayed_packets_total"},
    {"turn", "bytes_to_client", {}, {}, {}, "radiotower_relayed_bytes_total"},
    {"turn", "stun_requests", {}, {}, {}, "radiotower_requests_total"},
    {"turn", "binding_answers", {}, {}, {}, "radiotower_requests_total"},
    {"turn", "error_answers", {}, {}, {}, "radiotower_requests_total"},
    {"turn", "redirects", {}, {}, {}, "radiotower_requests_total"},
    {"turn", "allocations_made", "radiotower_allocations_made_total"},
    {"turn", "allocations_ended", {}, {}, {}, "radiotower_allocations_ended_total"},
    {"turn", "allocations_moved", "radiotower_allocations_moved_total"},
    {"turn", "shortcut_packets_to_peer", {}, {}, {}, "radiotower_relayed_packets_total"},
    {"turn", "shortcut_packets_to_client", {}, {}, {}, "radiotower_relayed_packets_total"},
    {"turn", "shortcuts_refused", "radiotower_offload_refused_channels_total"},
    {"turn", "dropped_not_ours", dropped, {"reason", "not_ours"}},
    {"turn", "dropped_bad_source", dropped, {"reason", "bad_source"}},
    {"turn", "dropped_malformed", dropped, {"reason", "malformed"}},
    {"turn", "dropped_bad_fingerprint", dropped, {"reason", "bad_fingerprint"}},
    {"turn", "dropped_unknown_method", dropped, {"reason", "unknown_method"}},
    {"turn", "dropped_bad_indication", dropped, {"reason", "bad_indication"}},
    {"turn", "dropped_bad_channel_data", dropped, {"reason", "bad_channel_data"}},
    {"turn", "dropped_no_allocation", dropped, {"reason", "no_allocation"}},
    {"turn", "dropped_no_channel", dropped, {"reason", "no_channel"}},
    {"turn", "dropped_no_permission", dropped, {"reason", "no_permission"}},
    {"turn", "dropped_peer_no_permission", dropped, {"reason", "peer_no_permission"}},
    {"turn", "dropped_peer_denied", dropped, {"reason", "peer_denied"}},
    {"turn", "dropped_no_client", dropped, {"reason", "no_client"}},
    {"turn", "dropped_dead_relay_port", dropped, {"reason", "dead_relay_port"}},
    {"turn", "dropped_user_limit", dropped, {"reason", "user_limit"}},
    {"turn", "dropped_answer_limit", dropped, {"reason", "answer_limit"}},
    {"turn", "dropped_answer_too_large", dropped, {"reason", "answer_too_large"}},
    {"turn", "icmp_to_client", icmp, {"outcome", "told_to_client"}},
    {"turn", "icmp_ignored", icmp, {"outcome", "ignored"}},
    {"turn", "peer_connects", peers, {"event", "connect"}},
    {"turn", "peer_connects_failed", peers, {"event", "connect_failed"}},
    {"turn", "peer_accepts", peers, {"event", "accept"}},
    {"turn", "peers_turned_away", peers, {"event", "turned_away"}},
    {"turn", "peer_connections_joined", peers, {"event", "joined"}},
    {"turn", "peer_connections_ended", peers, {"event", "ended"}},
    {"turn", "handed_over", "radiotower_handed_over_total"},

    {"loop", "turns", {}, {}, {}, "radiotower_worker_turns_total"},
    {"loop", "gathered", loop, {"event", "gathered_turn"}},
    {"loop", "received", "radiotower_datagrams_received_total"},
    {"loop", "sent", "radiotower_datagrams_sent_total"},
    {"loop", "trains_received", trains, {"event", "received"}},
    {"loop", "trains_sent", trains, {"event", "sent"}},
    {"loop", "trains_refused", trains, {"event", "refused"}},
    {"loop", "kernel_drops", dropped, {"reason", "kernel_receive_buffer"}},
    {"loop", "truncated", dropped, {"reason", "oversize"}},
    {"loop", "out_of_buffers", loop, {"event", "out_of_buffers"}},
    {"loop", "rearmed", loop, {"event", "rearmed"}},
    {"loop", "completion_overflow", loop, {"event", "completion_overflow"}},
    {"loop", "send_full", dropped, {"reason", "kernel_send_queue"}},
    {"loop", "send_too_large", dropped, {"reason", "larger_than_path"}},
    {"loop", "send_retried", loop, {"event", "send_retried"}},
    {"loop", "send_unreachable", dropped, {"reason", "unreachable"}},
    {"loop", "send_failed", dropped, {"reason", "send_failed"}},
    {"loop", "accepted", loop, {"event", "accepted"}},
    {"loop", "accept_failed", loop, {"event", "accept_failed"}},
    {"loop", "chunks_received", loop, {"event", "chunk_received"}},
    {"loop", "stream_bytes_received", "radiotower_stream_received_bytes_total"},
    {"loop", "stream_writes", loop, {"event", "stream_write"}},
    {"loop", "stream_bytes_sent", "radiotower_stream_sent_bytes_total"},
    {"loop", "stream_writes_short", loop, {"event", "stream_write_short"}},
    {"loop", "receive_failed", loop, {"event", "receive_failed"}},

    {"streams", "connections_accepted", "radiotower_connections_accepted_total"},
    {"streams", "refused_total_cap", refused, {"reason", "limit_of_all"}},
    {"streams", "refused_source_cap", refused, {"reason", "limit_of_source"}},
    {"streams", "refused_denied", refused, {"reason", "denied"}},
    {"streams", "refused_duplicate", refused, {"reason", "duplicate"}},
    {"streams", "refused_no_room", refused, {"reason", "no_room"}},
    {"streams", "proxy_headers", stream, {"event", "proxy_header"}},
    {"streams", "tls_handshakes", handshakes, {"protocol", "tls"}, {"outcome", "done"}},
    {"streams", "tls_failed", handshakes, {"protocol", "tls"}, {"outcome", "failed"}},
    {"streams", "closed_by_client", closed, {"reason", "client"}},
    {"streams", "closed_error", closed, {"reason", "error"}},
    {"streams", "closed_bad_message", closed, {"reason", "bad_message"}},
    {"streams", "closed_bad_first_byte", closed, {"reason", "bad_first_byte"}},
    {"streams", "closed_bad_proxy_header", closed, {"reason", "bad_proxy_header"}},
    {"streams", "closed_silent", closed, {"reason", "silent"}},
    {"streams", "closed_slow_message", closed, {"reason", "slow_message"}},
    {"streams", "closed_slow_handshake", closed, {"reason", "slow_handshake"}},
    {"streams", "closed_idle", closed, {"reason", "idle"}},
    {"streams", "closed_crowded_out", closed, {"reason", "crowded_out"}},
    {"streams", "closed_stalled", closed, {"reason", "stalled"}},
    {"streams", "closed_overflow", closed, {"reason", "overflow"}},
    {"streams", "closed_hung_up", closed, {"reason", "hung_up"}},
    {"streams", "closed_denied", closed, {"reason", "denied"}},
    {"streams", "messages", stream, {"event", "message"}},
    {"streams", "trains", stream, {"event", "train"}},
    {"streams", "messages_pieced", stream, {"event", "message_pieced"}},
    {"streams", "chunks_put_off", stream, {"event", "chunk_put_off"}},
    {"streams", "writes", stream, {"event", "write"}},
    {"streams", "queued", stream, {"event", "queued"}},
    {"streams", "media_dropped", dropped, {"reason", "queue_full"}},
    {"streams", "moved_out", stream, {"event", "moved_out"}},
    {"streams", "moved_in", stream, {"event", "moved_in"}},
    {"streams", "connections", "radiotower_client_connections"},
    {"streams", "in_handshake", "radiotower_client_connections_in_handshake"},
    {"streams", "bytes_queued", "radiotower_stream_queued_bytes"},
    {"streams", "bytes_queued_at_most", {}, {}, {}, "radiotower_stream_queued_bytes"},  // Prometheus finds the highest by itself

    {"dtls", "dtls_sessions", "radiotower_dtls_sessions"},
    {"dtls", "dtls_handshakes", handshakes, {"protocol", "dtls"}, {"outcome", "done"}},
    {"dtls", "dtls_failed", handshakes, {"protocol", "dtls"}, {"outcome", "failed"}},
    {"dtls", "dtls_timed_out", handshakes, {"protocol", "dtls"}, {"outcome", "timed_out"}},
    {"dtls", "dtls_refused", handshakes, {"protocol", "dtls"}, {"outcome", "refused"}},
    {"dtls", "dtls_closed", dtls, {"event", "closed"}},
    {"dtls", "dtls_cookies_sent", dtls, {"event", "cookie_sent"}},
    {"dtls", "dtls_cookies_wrong", dtls, {"event", "cookie_wrong"}},
    {"dtls", "dtls_dropped_stranger", dropped, {"reason", "dtls_stranger"}},
    {"dtls", "dtls_dropped_version", dropped, {"reason", "dtls_version"}},
    {"dtls", "dtls_dropped_limit", dropped, {"reason", "dtls_limit"}},
    {"dtls", "dtls_dropped_too_large", dropped, {"reason", "dtls_too_large"}},

    {"moved", "passed_on", moved, {"event", "passed_on"}},
    {"moved", "passed_on_lost", dropped, {"reason", "other_worker_busy"}},
    {"moved", "taken_in", moved, {"event", "taken_in"}},
    {"moved", "sockets_opened", moved, {"event", "socket_opened"}},
    {"moved", "sockets_refused", moved, {"event", "socket_refused"}},
    {"moved", "sockets", "radiotower_moved_clients", {"way", "own_socket"}},
    {"moved", "passing_on", "radiotower_moved_clients", {"way", "passed_on"}},
};

}  // namespace

std::span<const CounterFamily> counter_families() { return families; }
std::span<const CounterRow> counter_rows() { return rows; }

}  // namespace radiotower::daemon
