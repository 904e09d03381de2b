// Of a Worker: what the log is told of the server's events, each kind within a bound.
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "worker.h"

namespace radiotower::daemon {

namespace {

using turn::Event;

/// What an operator can do about a refused peer. `settings` are asked again, for an Event carries words and no verdict.
std::string_view hint(const turn::Settings& settings, const net::TransportAddress& peer) {
  const net::PeerJudgement judgement = settings.peers->judge(peer, peer.family(), peer.port != 0);
  switch (judgement.verdict) {
    case net::PeerVerdict::private_network:
    case net::PeerVerdict::not_in_allow_list:
    case net::PeerVerdict::reflection_port:
    case net::PeerVerdict::own_host: return judgement.reason == "own listener" ? "" : "; add it to peers.allow";
    case net::PeerVerdict::own_relayed: return "; if it is a media server on this host, add it to peers.allow, with its port";
    case net::PeerVerdict::always_denied: return R"(; only "unsafe" behind exactly this address in peers.allow opens it)";
    case net::PeerVerdict::denied_by_rule:
    case net::PeerVerdict::bad_spelling:
    case net::PeerVerdict::permitted: return "";
  }
  return "";
}

std::string relayed_text(const Event& event) {
  std::string text = event.relayed.text();
  if (event.relayed2.port != 0) text.append(1, ',').append(event.relayed2.text());
  return text;
}

}  // namespace

void Worker::note(const Event& event) {
  Log& log = world_.log;
  if (world_.sinks) world_.sinks->tell(options_.number, event);
  const Time now = now_.steady;
  std::uint64_t suppressed = 0;
  switch (event.kind) {
    case Event::Kind::allocation_made: keep_session(event.five_tuple, true); break;
    case Event::Kind::allocation_ended: keep_session(event.five_tuple, false); break;
    case Event::Kind::allocation_moved:  // what it has left may have one of its own meanwhile
      keep_session(event.five_tuple, true);
      keep_session(event.moved_from, server_->has_allocation(event.moved_from));
      break;
    default: break;
  }
  const std::string client = event.five_tuple.client.text();
  switch (event.kind) {
    case Event::Kind::allocation_made: {
      if (!log.wants(Priority::info) || !lives_.admit({}, now, suppressed)) return;
      log.write(Priority::info, "allocation made", "",
                {{"user", event.user}, Field::if_any("realm", event.realm), {"client", client}, {"transport", net::name(event.five_tuple.transport)},
                 {"relayed", relayed_text(event)}, {"listener", event.five_tuple.server.text()}, Field::if_any("suppressed", suppressed)});
      return;
    }
    case Event::Kind::allocation_ended:
      if (!log.wants(Priority::info)) return;
      if (event.end != turn::EndReason::shutdown && event.end != turn::EndReason::drained && !lives_.admit({}, now, suppressed)) return;
      log.write(Priority::info, "allocation ended", "",
                {{"user", event.user}, Field::if_any("realm", event.realm), {"client", client}, {"relayed", relayed_text(event)}, {"reason", turn::name(event.end)},
                 {"seconds", static_cast<std::uint64_t>(event.duration.count())},
                 {"bytes_to_peer", event.bytes_to_peer}, {"packets_to_peer", event.packets_to_peer},
                 {"bytes_to_client", event.bytes_to_client}, {"packets_to_client", event.packets_to_client},
                 Field::if_any("suppressed", suppressed)});
      return;
    case Event::Kind::allocation_moved:
      if (!log.wants(Priority::info) || !lives_.admit({}, now, suppressed)) return;
      log.write(Priority::info, "allocation moved", "",
                {{"user", event.user}, {"client", client}, {"was", event.moved_from.client.text()}, {"transport", net::name(event.five_tuple.transport)}, {"relayed", relayed_text(event)},
                 {"listener", event.five_tuple.server.text()}, Field::if_any("suppressed", suppressed)});
      return;
    case Event::Kind::peer_refused: {
      const std::string peer = event.peer.port == 0 ? event.peer.ip.text() : event.peer.text();
      if (!refused_.admit(as_bytes(peer), now, suppressed)) return;
      log.write(Priority::warning, "peer refused", fmt::format("{} ({}){}", peer, event.reason, hint(*world_.settings, event.peer)),
                {{"user", event.user}, Field::if_any("realm", event.realm), {"client", client}, Field::if_any("suppressed", suppressed)});
      return;
    }
    case Event::Kind::quota_reached:
      if (!quota_.admit(as_bytes(event.user), now, suppressed)) return;
      log.write(Priority::warning, "quota reached",
                event.realm.empty() ? std::string(event.reason) : fmt::format("{}, or the same of realms.\"{}\"", event.reason, event.realm),
                {{"user", event.user}, Field::if_any("realm", event.realm), {"client", client}, Field::if_any("suppressed", suppressed)});
      return;
    case Event::Kind::ports_exhausted:
      if (!resources_.admit(as_bytes("ports"), now, suppressed)) return;
      log.write(Priority::error, "ports exhausted", "no relay port is left; widen the port range or lower the quotas",
                {{"user", event.user}, Field::if_any("realm", event.realm), {"client", client}, Field::if_any("suppressed", suppressed)});
      return;
  }
}

}  // namespace radiotower::daemon
