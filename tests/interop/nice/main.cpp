// Two agents of libnice that may use relayed candidates only: one sends numbered datagrams, the other sends them back as they are. Prints
// what it measured as JSON; the judgement is calls.py's.
#include <netinet/in.h>
#include <nice/agent.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

constexpr guint component = 1;  // the only one
constexpr int window = 20;      // datagrams on their way at a time
constexpr std::size_t datagram_bytes = 200;

struct Call;

struct End {
  Call* call = nullptr;
  NiceAgent* agent = nullptr;
  guint stream = 0;
  bool gathered = false, ready = false;

  End() = default;
  End(const End&) = delete;
  End& operator=(const End&) = delete;
  ~End() {
    if (agent) g_object_unref(agent);
  }
};

struct Call {
  GMainLoop* loop = g_main_loop_new(nullptr, FALSE);
  End caller, callee;
  int messages = 0, sent = 0, echoed = 0, altered = 0;
  const char* error = nullptr;

  Call() { caller.call = callee.call = this; }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() { g_main_loop_unref(loop); }

  void fail(const char* why) {
    if (!error) error = why;
    g_main_loop_quit(loop);
  }
};

std::string text(int number) {
  std::string datagram = std::to_string(number);
  datagram.resize(datagram_bytes, ' ');
  return datagram;
}

bool send(const End& end, const char* data, guint size) {
  return nice_agent_send(end.agent, end.stream, component, size, data) == static_cast<gint>(size);
}

void send_next(Call& call) {
  if (call.sent == call.messages) return;
  const std::string datagram = text(call.sent++);
  if (!send(call.caller, datagram.data(), static_cast<guint>(datagram.size()))) call.fail("a datagram was not sent");
}

void received(NiceAgent*, guint, guint, guint size, gchar* data, gpointer context) {
  End& end = *static_cast<End*>(context);
  Call& call = *end.call;
  if (&end == &call.callee) {
    if (!send(end, data, size)) call.fail("a datagram was not sent back");
    return;
  }
  if (std::string(data, size) != text(call.echoed)) ++call.altered;
  ++call.echoed;
  send_next(call);
  if (call.echoed == call.messages) g_main_loop_quit(call.loop);
}

/// Descriptions carry all candidates, so that no order of messages matters.
void describe(const End& from, const End& to) {
  gchar* description = nice_agent_generate_local_sdp(from.agent);
  if (nice_agent_parse_remote_sdp(to.agent, description) <= 0) from.call->fail("no candidates");
  g_free(description);
}

void gathered(NiceAgent*, guint, gpointer context) {
  End& end = *static_cast<End*>(context);
  Call& call = *end.call;
  end.gathered = true;
  if (!call.caller.gathered || !call.callee.gathered) return;
  describe(call.caller, call.callee);
  describe(call.callee, call.caller);
}

void changed(NiceAgent*, guint, guint, guint state, gpointer context) {
  End& end = *static_cast<End*>(context);
  Call& call = *end.call;
  if (state == NICE_COMPONENT_STATE_FAILED) return call.fail("connection failed");
  if (state != NICE_COMPONENT_STATE_READY || end.ready) return;
  end.ready = true;
  if (!call.caller.ready || !call.callee.ready) return;
  for (int i = 0; i < window; ++i) send_next(call);
}

gboolean late(gpointer context) {
  static_cast<Call*>(context)->fail("not connected and echoed in time");
  return G_SOURCE_REMOVE;
}

struct Server {
  const char *address, *username, *credential;
  guint port;
  NiceRelayType transport;
};

bool open(End& end, const Server& server) {
  end.agent = nice_agent_new(nullptr, NICE_COMPATIBILITY_RFC5245);
  const bool controlling = &end == &end.call->caller;
  g_object_set(end.agent, "force-relay", TRUE, "ice-tcp", FALSE, "upnp", FALSE, "controlling-mode", controlling, nullptr);
  NiceAddress local;  // nothing leaves loopback
  nice_address_init(&local);
  if (!nice_address_set_from_string(&local, "127.0.0.1") || !nice_agent_add_local_address(end.agent, &local)) return false;
  g_signal_connect(end.agent, "candidate-gathering-done", G_CALLBACK(gathered), &end);
  g_signal_connect(end.agent, "component-state-changed", G_CALLBACK(changed), &end);
  end.stream = nice_agent_add_stream(end.agent, 1);
  return end.stream != 0 && nice_agent_set_stream_name(end.agent, end.stream, "application") &&
         nice_agent_set_relay_info(end.agent, end.stream, component, server.address, server.port, server.username, server.credential,
                                   server.transport) &&
         nice_agent_attach_recv(end.agent, end.stream, component, nullptr, received, &end) &&
         nice_agent_gather_candidates(end.agent, end.stream);
}

std::string selected_pair(const End& end) {
  NiceCandidate *local = nullptr, *remote = nullptr;
  if (!end.agent || !nice_agent_get_selected_pair(end.agent, end.stream, component, &local, &remote)) return "none";
  return std::string(nice_candidate_type_to_string(local->type)) + "/" + nice_candidate_type_to_string(remote->type);
}

/// Connections over TCP from this process to the relay: libnice does not tell which of its sockets belongs to which candidate.
int connections_to(guint port) {
  int found = 0;
  for (int number = 0; number < 256; ++number) {
    sockaddr_in peer{};
    socklen_t size = sizeof peer;
    int type = 0;
    socklen_t type_size = sizeof type;
    if (getsockopt(number, SOL_SOCKET, SO_TYPE, &type, &type_size) == 0 && type == SOCK_STREAM &&
        getpeername(number, reinterpret_cast<sockaddr*>(&peer), &size) == 0 && peer.sin_family == AF_INET && ntohs(peer.sin_port) == port)
      ++found;
  }
  return found;
}

}  // namespace

int main(int count, char** words) {
  if (count != 8) {
    std::fprintf(stderr, "usage: nice ADDRESS PORT udp|tcp USERNAME CREDENTIAL MESSAGES SECONDS\n");
    return 2;
  }
  const NiceRelayType type = std::string(words[3]) == "tcp" ? NICE_RELAY_TYPE_TURN_TCP : NICE_RELAY_TYPE_TURN_UDP;
  const Server server{words[1], words[4], words[5], static_cast<guint>(std::atoi(words[2])), type};
  Call call;
  call.messages = std::atoi(words[6]);
  g_timeout_add_seconds(static_cast<guint>(std::atoi(words[7])), late, &call);
  if (!open(call.caller, server) || !open(call.callee, server)) call.fail("libnice refused its settings");
  if (!call.error) g_main_loop_run(call.loop);
  const int over_tcp = connections_to(server.port);
  const char* transport = over_tcp == 2 ? "tcp" : over_tcp == 0 ? "udp" : "both";
  std::printf(R"({"pairs": ["%s", "%s"], "transports": ["%s", "%s"], "echoed": %d, "altered": %d, "error": "%s"})"
              "\n",
              selected_pair(call.caller).c_str(), selected_pair(call.callee).c_str(), transport, transport, call.echoed, call.altered,
              call.error ? call.error : "");
}
