#include "metrics_counters.h"

namespace radiotower::daemon {

namespace {

using Kind = Exposition::Kind;

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
constexpr std::string_view elsewhere{};

const CounterFamily families[] = {
    {dropped, Kind::counter, "Packets and messages that were neither relayed nor answered, by reason."},
    {"radiotower_allocations_made_total", Kind::counter, "Allocations that were made."},
    {"radiotower_allocations_moved_total", Kind::counter, "Clients that came back from another address with their ticket (RFC 8016)."},
    {"radiotower_handed_over_total", Kind::counter, "Messages that belonged to another worker's allocation."},
    {"radiotower_offload_refused_channels_total", Kind::counter, "Channels that found no place in the offload's tables; user space relays them."},
    {icmp, Kind::counter, "ICMP messages about packets that were sent to peers (RFC 8656, 11.5), by what became of them."},
    {peers, Kind::counter, "TCP connections with peers (RFC 6062), by event."},
    {"radiotower_datagrams_received_total", Kind::counter, "Datagrams that workers took from the kernel, on listeners and relay ports."},
    {"radiotower_datagrams_sent_total", Kind::counter, "Datagrams that workers gave to the kernel."},
    {trains, Kind::counter, "Runs of datagrams of one flow that crossed the kernel as one (UDP_GRO, UDP_SEGMENT)."},
    {"radiotower_stream_received_bytes_total", Kind::counter, "Bytes taken from TCP connections, encrypted where they are."},
    {"radiotower_stream_sent_bytes_total", Kind::counter, "Bytes given to TCP connections, encrypted where they are."},
    {loop, Kind::counter, "What happened in the workers' loops."},
    {"radiotower_connections_accepted_total", Kind::counter, "TCP connections of clients that were accepted."},
    {refused, Kind::counter, "TCP connections of clients that were closed as soon as they came, by reason."},
    {closed, Kind::counter, "TCP and TLS connections of clients that ended, by reason."},
    {"radiotower_client_connections", Kind::gauge, "TCP and TLS connections of clients now."},
    {"radiotower_client_connections_in_handshake", Kind::gauge, "Of these: those whose TLS handshake or PROXY header is not done."},
    {"radiotower_stream_queued_bytes", Kind::gauge, "Bytes that wait for clients over TCP and TLS to take them."},
    {handshakes, Kind::counter, "TLS and DTLS handshakes, by outcome."},
    {"radiotower_dtls_sessions", Kind::gauge, "DTLS sessions of clients now."},
    {stream, Kind::counter, "What happened on clients' TCP and TLS connections."},
    {dtls, Kind::counter, "What happened before and in DTLS sessions."},
    {moved, Kind::counter, "Datagrams of clients that came to another worker than the one that holds their allocation (RFC 8016)."},
    {"radiotower_moved_clients", Kind::gauge, "Clients that moved (RFC 8016), by how their datagrams come to their worker."},
};

const CounterRow rows[] = {
    {"turn", "packets_to_peer", elsewhere, "radiotower_relayed_packets_total"},
    {"turn", "bytes_to_peer", elsewhere, "radiotower_relayed_bytes_total"},
    {"turn", "packets_to_client", elsewhere, "radiotower_relayed_packets_total"},
    {"turn", "bytes_to_client", elsewhere, "radiotower_relayed_bytes_total"},
    {"turn", "stun_requests", elsewhere, "radiotower_requests_total"},
    {"turn", "binding_answers", elsewhere, "radiotower_requests_total"},
    {"turn", "error_answers", elsewhere, "radiotower_requests_total"},
    {"turn", "redirects", elsewhere, "radiotower_requests_total"},
    {"turn", "allocations_made", "radiotower_allocations_made_total", ""},
    {"turn", "allocations_ended", elsewhere, "radiotower_allocations_ended_total"},
    {"turn", "allocations_moved", "radiotower_allocations_moved_total", ""},
    {"turn", "shortcut_packets_to_peer", elsewhere, "radiotower_relayed_packets_total"},
    {"turn", "shortcut_packets_to_client", elsewhere, "radiotower_relayed_packets_total"},
    {"turn", "shortcuts_refused", "radiotower_offload_refused_channels_total", ""},
    {"turn", "dropped_not_ours", dropped, R"(reason="not_ours")"},
    {"turn", "dropped_bad_source", dropped, R"(reason="bad_source")"},
    {"turn", "dropped_malformed", dropped, R"(reason="malformed")"},
    {"turn", "dropped_bad_fingerprint", dropped, R"(reason="bad_fingerprint")"},
    {"turn", "dropped_unknown_method", dropped, R"(reason="unknown_method")"},
    {"turn", "dropped_bad_indication", dropped, R"(reason="bad_indication")"},
    {"turn", "dropped_bad_channel_data", dropped, R"(reason="bad_channel_data")"},
    {"turn", "dropped_no_allocation", dropped, R"(reason="no_allocation")"},
    {"turn", "dropped_no_channel", dropped, R"(reason="no_channel")"},
    {"turn", "dropped_no_permission", dropped, R"(reason="no_permission")"},
    {"turn", "dropped_peer_no_permission", dropped, R"(reason="peer_no_permission")"},
    {"turn", "dropped_peer_forbidden", dropped, R"(reason="peer_denied")"},
    {"turn", "dropped_no_client", dropped, R"(reason="no_client")"},
    {"turn", "dropped_dead_relay_port", dropped, R"(reason="dead_relay_port")"},
    {"turn", "dropped_user_limit", dropped, R"(reason="user_limit")"},
    {"turn", "dropped_answer_limit", dropped, R"(reason="answer_limit")"},
    {"turn", "dropped_answer_too_large", dropped, R"(reason="answer_too_large")"},
    {"turn", "icmp_to_client", icmp, R"(outcome="told_to_client")"},
    {"turn", "icmp_ignored", icmp, R"(outcome="ignored")"},
    {"turn", "peer_connects", peers, R"(event="connect")"},
    {"turn", "peer_connects_failed", peers, R"(event="connect_failed")"},
    {"turn", "peer_accepts", peers, R"(event="accept")"},
    {"turn", "peers_turned_away", peers, R"(event="turned_away")"},
    {"turn", "peer_connections_joined", peers, R"(event="joined")"},
    {"turn", "peer_connections_ended", peers, R"(event="ended")"},
    {"turn", "handed_over", "radiotower_handed_over_total", ""},

    {"loop", "turns", elsewhere, "radiotower_worker_turns_total"},
    {"loop", "gathered", loop, R"(event="gathered_turn")"},
    {"loop", "received", "radiotower_datagrams_received_total", ""},
    {"loop", "sent", "radiotower_datagrams_sent_total", ""},
    {"loop", "trains_received", trains, R"(event="received")"},
    {"loop", "trains_sent", trains, R"(event="sent")"},
    {"loop", "trains_refused", trains, R"(event="refused")"},
    {"loop", "kernel_drops", dropped, R"(reason="kernel_receive_buffer")"},
    {"loop", "truncated", dropped, R"(reason="oversize")"},
    {"loop", "out_of_buffers", loop, R"(event="out_of_buffers")"},
    {"loop", "rearmed", loop, R"(event="rearmed")"},
    {"loop", "completion_overflow", loop, R"(event="completion_overflow")"},
    {"loop", "send_full", dropped, R"(reason="kernel_send_queue")"},
    {"loop", "send_too_large", dropped, R"(reason="larger_than_path")"},
    {"loop", "send_retried", loop, R"(event="send_retried")"},
    {"loop", "send_unreachable", dropped, R"(reason="unreachable")"},
    {"loop", "send_failed", dropped, R"(reason="send_failed")"},
    {"loop", "accepted", loop, R"(event="accepted")"},
    {"loop", "accept_failed", loop, R"(event="accept_failed")"},
    {"loop", "chunks_received", loop, R"(event="chunk_received")"},
    {"loop", "stream_bytes_received", "radiotower_stream_received_bytes_total", ""},
    {"loop", "stream_writes", loop, R"(event="stream_write")"},
    {"loop", "stream_bytes_sent", "radiotower_stream_sent_bytes_total", ""},
    {"loop", "stream_writes_short", loop, R"(event="stream_write_short")"},
    {"loop", "receive_failed", loop, R"(event="receive_failed")"},

    {"streams", "connections_accepted", "radiotower_connections_accepted_total", ""},
    {"streams", "refused_total_cap", refused, R"(reason="limit_of_all")"},
    {"streams", "refused_source_cap", refused, R"(reason="limit_of_source")"},
    {"streams", "refused_denied", refused, R"(reason="denied")"},
    {"streams", "refused_duplicate", refused, R"(reason="duplicate")"},
    {"streams", "refused_no_room", refused, R"(reason="no_room")"},
    {"streams", "proxy_headers", stream, R"(event="proxy_header")"},
    {"streams", "tls_handshakes", handshakes, R"(protocol="tls",outcome="done")"},
    {"streams", "tls_failed", handshakes, R"(protocol="tls",outcome="failed")"},
    {"streams", "closed_by_client", closed, R"(reason="client")"},
    {"streams", "closed_error", closed, R"(reason="error")"},
    {"streams", "closed_bad_message", closed, R"(reason="bad_message")"},
    {"streams", "closed_bad_first_byte", closed, R"(reason="bad_first_byte")"},
    {"streams", "closed_bad_proxy_header", closed, R"(reason="bad_proxy_header")"},
    {"streams", "closed_silent", closed, R"(reason="silent")"},
    {"streams", "closed_slow_message", closed, R"(reason="slow_message")"},
    {"streams", "closed_slow_handshake", closed, R"(reason="slow_handshake")"},
    {"streams", "closed_idle", closed, R"(reason="idle")"},
    {"streams", "closed_crowded_out", closed, R"(reason="crowded_out")"},
    {"streams", "closed_stalled", closed, R"(reason="stalled")"},
    {"streams", "closed_overflow", closed, R"(reason="overflow")"},
    {"streams", "closed_hung_up", closed, R"(reason="hung_up")"},
    {"streams", "closed_denied", closed, R"(reason="denied")"},
    {"streams", "messages", stream, R"(event="message")"},
    {"streams", "trains", stream, R"(event="train")"},
    {"streams", "messages_pieced", stream, R"(event="message_pieced")"},
    {"streams", "chunks_put_off", stream, R"(event="chunk_put_off")"},
    {"streams", "writes", stream, R"(event="write")"},
    {"streams", "queued", stream, R"(event="queued")"},
    {"streams", "media_dropped", dropped, R"(reason="queue_full")"},
    {"streams", "moved_out", stream, R"(event="moved_out")"},
    {"streams", "moved_in", stream, R"(event="moved_in")"},
    {"streams", "connections", "radiotower_client_connections", ""},
    {"streams", "in_handshake", "radiotower_client_connections_in_handshake", ""},
    {"streams", "bytes_queued", "radiotower_stream_queued_bytes", ""},
    {"streams", "bytes_queued_at_most", elsewhere, "radiotower_stream_queued_bytes"},  // Prometheus finds the highest by itself

    {"dtls", "dtls_sessions", "radiotower_dtls_sessions", ""},
    {"dtls", "dtls_handshakes", handshakes, R"(protocol="dtls",outcome="done")"},
    {"dtls", "dtls_failed", handshakes, R"(protocol="dtls",outcome="failed")"},
    {"dtls", "dtls_timed_out", handshakes, R"(protocol="dtls",outcome="timed_out")"},
    {"dtls", "dtls_refused", handshakes, R"(protocol="dtls",outcome="refused")"},
    {"dtls", "dtls_closed", dtls, R"(event="closed")"},
    {"dtls", "dtls_cookies_sent", dtls, R"(event="cookie_sent")"},
    {"dtls", "dtls_cookies_wrong", dtls, R"(event="cookie_wrong")"},
    {"dtls", "dtls_dropped_stranger", dropped, R"(reason="dtls_stranger")"},
    {"dtls", "dtls_dropped_version", dropped, R"(reason="dtls_version")"},
    {"dtls", "dtls_dropped_limit", dropped, R"(reason="dtls_limit")"},
    {"dtls", "dtls_dropped_too_large", dropped, R"(reason="dtls_too_large")"},

    {"moved", "passed_on", moved, R"(event="passed_on")"},
    {"moved", "passed_on_lost", dropped, R"(reason="other_worker_busy")"},
    {"moved", "taken_in", moved, R"(event="taken_in")"},
    {"moved", "sockets_opened", moved, R"(event="socket_opened")"},
    {"moved", "sockets_refused", moved, R"(event="socket_refused")"},
    {"moved", "sockets", "radiotower_moved_clients", R"(way="own_socket")"},
    {"moved", "passing_on", "radiotower_moved_clients", R"(way="passed_on")"},
};

}  // namespace

std::span<const CounterFamily> counter_families() { return families; }
std::span<const CounterRow> counter_rows() { return rows; }

}  // namespace radiotower::daemon
