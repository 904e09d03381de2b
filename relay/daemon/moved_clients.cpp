#include "moved_clients.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "../io/connected_udp.h"
#include "radiotower/net/hash.h"

namespace radiotower::daemon {

namespace {

constexpr int receive_buffer = 1 << 20;  // of one client

}  // namespace

std::size_t MovedClients::Hash::operator()(const net::FiveTuple& t) const { return net::hash(key, t); }

void MovedClients::send(unsigned worker, const net::FiveTuple& five_tuple, Bytes bytes, std::uint16_t segment) {
  ClientMail mail;
  mail.kind = ClientMail::Kind::datagram;
  mail.from = worker_;
  mail.five_tuple = five_tuple;
  mail.segment = segment;
  mail.bytes.resize(turn::Train::headroom + bytes.size() + 4);
  std::copy(bytes.begin(), bytes.end(), mail.bytes.begin() + turn::Train::headroom);
  if (tell_ && tell_(worker, std::move(mail))) ++counters_.passed_on;
  else ++counters_.passed_on_lost;
}

void MovedClients::hand_over(const turn::HandOver& order) {
  if (order.five_tuple.transport == net::Transport::udp) send(order.worker, order.five_tuple, order.message, 0);
}

bool MovedClients::pass_on_to(const net::FiveTuple& five_tuple, const turn::Train& train) {
  const auto found = passing_on_.find(five_tuple);
  if (found == passing_on_.end()) return false;
  send(found->second, five_tuple, train.bytes, train.segment);
  return true;
}

void MovedClients::carried(const turn::Carry& carry, std::uint64_t cookie) {
  if (carry.five_tuple.transport != net::Transport::udp) return;
  const auto found = carried_.find(carry.five_tuple);
  if (!carry.is_taken) {
    if (found == carried_.end()) return;
    if (found->second.socket != io::no_socket) {
      loop_.remove(found->second.socket);
      --counters_.sockets;
    } else {
      tell_(found->second.from, {ClientMail::Kind::stop, worker_, carry.five_tuple, {}, 0});
    }
    carried_.erase(found);
    return;
  }
  // What has come to us by itself goes on doing so.
  if (!at_hand_ || !(at_hand_->five_tuple == carry.five_tuple) || found != carried_.end()) return;
  const unsigned from = at_hand_->from;
  const io::SocketId socket = open(carry.five_tuple, cookie);
  if (socket == io::no_socket) tell_(from, {ClientMail::Kind::forward, worker_, carry.five_tuple, {}, 0});
  carried_.emplace(carry.five_tuple, Carried{socket, from});
}

io::SocketId MovedClients::open(const net::FiveTuple& five_tuple, std::uint64_t cookie) {
  int error = 0;
  io::SocketId id = io::no_socket;
  if (counters_.sockets < most_sockets_) {
    io::Socket socket = io::open_connected_udp(five_tuple.server, five_tuple.client, {true, false, receive_buffer, 0}, error);
    if (socket) id = loop_.add(std::move(socket), cookie);
  }
  if (id == io::no_socket) {
    ++counters_.sockets_refused;
  } else {
    ++counters_.sockets_opened;
    ++counters_.sockets;
  }
  return id;
}

void MovedClients::take_notice(const ClientMail& mail) {
  if (mail.kind == ClientMail::Kind::forward) {
    passing_on_[mail.five_tuple] = mail.from;
  } else {
    // The client may have moved on to a third worker meanwhile, and that one's word holds.
    const auto found = passing_on_.find(mail.five_tuple);
    if (found != passing_on_.end() && found->second == mail.from) passing_on_.erase(found);
  }
}

const MovedCounters& MovedClients::counters() {
  counters_.passing_on = passing_on_.size();
  return counters_;
}

}  // namespace radiotower::daemon
