#include "radiotower/turn/actions.h"

#include <cassert>

namespace radiotower::turn {

std::string_view name(EndReason reason) {
  switch (reason) {
    case EndReason::refreshed_to_zero: return "refreshed to zero";
    case EndReason::expired: return "expired";
    case EndReason::relay_failed: return "relay failed";
    case EndReason::shutdown: return "shutdown";
    case EndReason::credentials_gone: return "credentials gone";
    case EndReason::client_denied: return "client denied";
    case EndReason::connection_closed: return "connection closed";
    case EndReason::killed: return "killed";
    case EndReason::drained: return "drained";
  }
  return "";
}

Actions::Actions() : space_(128 * reply_size) {
  sends.reserve(1024);
  opens.reserve(16);
  closes.reserve(16);
  events.reserve(16);
}

MutableBytes Actions::reply_space() {
  // The caller clears while reply_room_low() says so; one that does not would get bytes of an answer still to be sent.
  assert(used_ + reply_size <= space_.size());
  return {space_.data() + used_, reply_size};
}

void Actions::reply_used(std::size_t size) { used_ += (size + 63) & ~std::size_t{63}; }

void Actions::clear() {
  sends.clear();
  opens.clear();
  closes.clear();
  hang_ups.clear();
  connects.clear();
  joins.clear();
  peer_closes.clear();
  hand_overs.clear();
  carries.clear();
  events.clear();
  used_ = 0;
}

void Actions::to_client(SocketHandle socket, const net::FiveTuple& client, MutableBytes bytes) {
  Send& send = sends.emplace_back();
  send.socket = socket;
  send.to = client.client;
  send.transport = client.transport;
  send.bytes = bytes;
}

void Actions::to_peer(SocketHandle socket, const net::PermittedPeer&, const net::TransportAddress& send_to, MutableBytes bytes) {
  Send& send = sends.emplace_back();
  send.socket = socket;
  send.to = send_to;
  send.bytes = bytes;
}

}  // namespace radiotower::turn
