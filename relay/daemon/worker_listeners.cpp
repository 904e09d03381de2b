// Of a Worker: its listeners, which a reload adds to and takes from while it runs.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "worker.h"

namespace radiotower::daemon {

namespace {

constexpr std::uint16_t refresh_request = 0x0004;

}  // namespace

/// Into an empty place, or behind all others. False: no room in the loop.
bool Worker::add_listener(Listener listener) {
  const bool stream = net::is_stream(listener.transport);
  auto& list = stream ? acceptors_ : listeners_;
  auto& ids = stream ? acceptor_ids_ : listener_ids_;
  const auto empty = std::find(ids.begin(), ids.end(), io::no_socket);
  const auto index = static_cast<std::size_t>(empty - ids.begin());
  const io::SocketId id = stream ? loop_->add_acceptor(std::move(listener.socket), client_acceptor_bit | index) : loop_->add(std::move(listener.socket), listener_bit | index);
  if (id == io::no_socket) return false;
  if (empty == ids.end()) {
    ids.push_back(id);
    list.push_back(std::move(listener));
  } else {
    ids[index] = id;
    list[index] = std::move(listener);
  }
  return true;
}

void Worker::close_listener(std::size_t index) {
  loop_->remove(std::exchange(listener_ids_[index], io::no_socket));
  listeners_[index] = {};
}

void Worker::take_in(NextListeners next) {
  const auto entry_of = [](const std::vector<NextListeners::Entry>& entries, const net::TransportAddress& address) {
    return std::find_if(entries.begin(), entries.end(), [&](const auto& entry) { return entry.address == address; });
  };
  for (std::size_t i = 0; i < listeners_.size(); ++i) {
    Listener& listener = listeners_[i];
    if (listener_ids_[i] == io::no_socket) continue;
    const auto entry = entry_of(next.udp, listener.address);
    if (entry == next.udp.end()) {
      close_listener(i);
      continue;
    }
    const bool was_udp = listener.transport == net::Transport::udp || listener.guarded;
    listener.retired = entry->retired;
    listener.transport = entry->transport;
    listener.guarded = entry->retired || (was_udp && entry->transport == net::Transport::dtls);
  }
  for (std::size_t i = 0; i < acceptors_.size(); ++i) {
    if (acceptor_ids_[i] == io::no_socket) continue;
    if (const auto entry = entry_of(next.streams, acceptors_[i].address); entry != next.streams.end()) {
      acceptors_[i].transport = entry->transport;
    } else {
      loop_->remove(std::exchange(acceptor_ids_[i], io::no_socket));
      acceptors_[i] = {};
    }
  }
  for (Listener& listener : next.opened) {
    const std::string text = listener.address.text();
    const net::Transport transport = listener.transport;
    if (add_listener(std::move(listener))) continue;
    world_.log.write(Priority::error, "listener not opened", "no room in the loop: too many sockets; restart the relay",
                     {{"worker", options_.number}, {"listener", text}, {"transport", net::name(transport)}});
  }
  dtls_is_open_ = next.dtls && world_.connections->identity;
  if (dtls_is_open_ && !dtls_)
    dtls_ = std::make_unique<DtlsClients>(world_.connections->identity, system_random(), *loop_, static_cast<DtlsClients::Above&>(*this));
  take_place();
  if (flood_.is_up()) set_gate(true);
}

/// What the server is to know of where it stands.
void Worker::take_place() {
  turn::Place place;
  place.worker = options_.number;
  place.tickets = world_.tickets;
  for (std::size_t i = 0; i < listeners_.size(); ++i) {
    const Listener& listener = listeners_[i];
    if (listener_ids_[i] == io::no_socket || listener.retired) continue;
    place.listeners.push_back({listener.address, listener.transport, listener.transport == net::Transport::udp ? listener_ids_[i] : turn::no_socket});
  }
  for (std::size_t i = 0; i < acceptors_.size(); ++i)
    if (acceptor_ids_[i] != io::no_socket) place.listeners.push_back({acceptors_[i].address, acceptors_[i].transport, turn::no_socket});
  server_->set_place(std::move(place));
}

/// At a guarded listener: who has an allocation there is served, and so is his Refresh from another address (RFC 8016). Nobody else is answered.
bool Worker::admits(const Listener& listener, const io::Datagram& datagram, net::Transport transport) const {
  if (!listener.retired && (transport == net::Transport::dtls ? dtls_is_open_ : listener.transport == net::Transport::udp)) return true;
  if (server_->has_allocation({datagram.from, listener.address, transport})) return true;
  return transport == net::Transport::udp && datagram.bytes.size() >= 20 && load_be16(datagram.bytes.data()) == refresh_request;
}

void Worker::drop_retired(const io::Datagram& datagram) {
  const std::uint64_t count = datagram.segment == 0 ? 1 : (datagram.bytes.size() + datagram.segment - 1) / datagram.segment;
  dropped_retired_ += count;
  if (flood_.listening() || datagram.segment != 0) note_strangers(datagram.from.ip, count);
}

}  // namespace radiotower::daemon
