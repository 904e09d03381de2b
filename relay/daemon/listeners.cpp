#include "listeners.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include <fmt/format.h>

namespace radiotower::daemon {

namespace {

using namespace std::chrono_literals;

std::string bind_failure(const net::TransportAddress& address, int error, bool is_tcp = false) {
  const std::string text = address.text();
  switch (error) {
    case EADDRINUSE:
      return fmt::format("cannot listen on {}: another program has it; `ss -{}lpn 'sport = :{}'` says which", text, is_tcp ? 't' : 'u', address.port);
    case EADDRNOTAVAIL:
      return fmt::format("cannot listen on {}: this host has no such address (yet); `ip address` shows what it has", text);
    case EACCES:
      return fmt::format("cannot listen on {}: a port below 1024 needs CAP_NET_BIND_SERVICE, which the drop-in radiotower-relay-443.conf gives the service (docs/tls.md)", text);
    case EMFILE:
    case ENFILE: return fmt::format("cannot listen on {}: too many open files; raise LimitNOFILE=", text);
    default: return fmt::format("cannot listen on {}: {}", text, std::strerror(error));
  }
}

/// SO_REUSEPORT would let a second relay of the same user take half of our clients without a word: ask without it first. More than once,
/// since the kernel may hold the sockets of an io_uring for a moment after they were closed, by us or by the relay before us.
template <typename Open>
bool is_free(const Open& open, int& error) {
  nanoseconds pause = 1ms, waited{0};
  for (;;) {
    if (open(error)) return true;
    if (error != EADDRINUSE || waited >= 500ms) return false;
    std::this_thread::sleep_for(pause);
    waited += pause;
    pause = std::min<nanoseconds>(2 * pause, 50ms);
  }
}

template <typename Entries>
auto find_address(Entries& entries, const net::TransportAddress& address) {
  return std::find_if(entries.begin(), entries.end(), [&](const auto& entry) { return entry.address == address; });
}

bool is_in(const std::vector<net::TransportAddress>& list, const net::TransportAddress& address) {
  return std::find(list.begin(), list.end(), address) != list.end();
}

std::string socket_text(const io::BoundSocket& socket) { return fmt::format("{} {}", socket.is_stream ? "tcp" : "udp", socket.address.text()); }

}  // namespace

std::vector<std::pair<net::TransportAddress, net::Transport>> udp_listeners(const ListenPlan& plan) {
  std::vector<std::pair<net::TransportAddress, net::Transport>> all;
  for (const auto& address : plan.listeners) all.emplace_back(address, net::Transport::udp);
  for (const auto& address : plan.dtls)
    if (!is_in(plan.listeners, address)) all.emplace_back(address, net::Transport::dtls);
  return all;
}

Listeners::Listeners(unsigned workers, int receive_buffer, std::vector<std::shared_ptr<const io::BoundSocket>> inherited)
    : workers_(workers), receive_buffer_(receive_buffer), smallest_receive_buffer_(receive_buffer), inherited_(std::move(inherited)) {}

/// A socket of TCP may be of all addresses: whom it accepts says which one he came to. One of UDP must be of the very address, for an answer has
/// to leave from there.
const io::BoundSocket* Listeners::inherited_for(const net::TransportAddress& address, bool stream) const {
  for (const auto& socket : inherited_) {
    if (socket->is_stream != stream || socket->address.port != address.port) continue;
    const bool of_all = stream && socket->address.ip.is_unspecified() &&
                        (socket->address.family() == address.family() || (address.ip.is_v4() && !socket->v6_only));
    if (socket->address == address || of_all) return socket.get();
  }
  return nullptr;
}

/// One socket is there. Where it may be shared (ReusePort=yes, and a service of the same user), each worker gets another one beside it; else all
/// clients of that address are the first worker's, since they must not change theirs from one datagram to the next.
bool Listeners::inherit_udp(const io::BoundSocket& inherited, const net::TransportAddress& address, net::Transport transport, Sockets& to) {
  io::Socket first = io::duplicate(inherited.socket);
  if (!first) return false;
  io::adopt_udp(first, {true, false, receive_buffer_, 0});
  std::vector<io::Socket> more;
  int error = 0;
  while (more.size() + 1 < workers_) {
    io::Socket socket = io::open_udp(address, {true, false, receive_buffer_, 0}, error);
    if (!socket) break;
    more.push_back(std::move(socket));
  }
  smallest_receive_buffer_ = std::min(smallest_receive_buffer_, io::receive_buffer(first));
  to[0].push_back({std::move(first), address, transport});
  if (more.size() + 1 == workers_)
    for (unsigned i = 1; i < workers_; ++i) to[i].push_back({std::move(more[i - 1]), address, transport});
  return true;
}

bool Listeners::open_udp(const net::TransportAddress& address, net::Transport transport, Sockets& to, std::string& why) {
  if (const auto* inherited = inherited_for(address, false); inherited && inherit_udp(*inherited, address, transport, to)) return true;
  int error = 0;
  if (!is_free([&](int& e) { return static_cast<bool>(io::open_udp(address, {}, e)); }, error)) {
    why = bind_failure(address, error);
    return false;
  }
  for (auto& list : to) {
    io::Socket socket = io::open_udp(address, {true, false, receive_buffer_, 0}, error);
    if (!socket) {
      why = bind_failure(address, error);
      return false;
    }
    smallest_receive_buffer_ = std::min(smallest_receive_buffer_, io::receive_buffer(socket));
    list.push_back({std::move(socket), address, transport});
  }
  return true;
}

bool Listeners::open_tcp(const net::TransportAddress& address, net::Transport transport, Sockets& to, std::string& why) {
  if (const auto* inherited = inherited_for(address, true)) {
    for (auto& list : to) {  // all accept from the one queue
      io::Socket socket = io::duplicate(inherited->socket);
      if (!socket) {
        why = bind_failure(address, EMFILE, true);
        return false;
      }
      io::adopt_tcp_listener(socket);
      list.push_back({std::move(socket), inherited->address, transport});
    }
    return true;
  }
  int error = 0;
  // The first one hears nobody, since none is queued in so short a time.
  bool good = is_free([&](int& e) { return static_cast<bool>(io::open_tcp_listener(address, {}, e)); }, error);
  for (std::size_t i = 0; i < to.size() && good; ++i) {
    io::TcpOptions options;
    options.reuse_port = true;
    io::Socket socket = io::open_tcp_listener(address, options, error);
    good = static_cast<bool>(socket);
    to[i].push_back({std::move(socket), address, transport});
  }
  if (!good) why = bind_failure(address, error, true);
  return good;
}

bool Listeners::open(const ListenPlan& next, std::string& why) {
  pending_.reset();
  changes_.clear();
  Pending opened{next, {}, Sockets(workers_)};
  for (const auto& [address, transport] : udp_listeners(next))
    if (find_address(udp_, address) == udp_.end() && !open_udp(address, transport, opened.sockets, why)) return false;
  const auto open_streams = [&](const std::vector<net::TransportAddress>& addresses, net::Transport transport) {
    for (const auto& address : addresses) {
      const auto* inherited = inherited_for(address, true);
      const net::TransportAddress& bound = inherited ? inherited->address : address;
      if (find_address(opened.streams, bound) != opened.streams.end()) continue;
      if (find_address(streams_, bound) == streams_.end() && !open_tcp(address, transport, opened.sockets, why)) return false;
      opened.streams.push_back({bound, transport, false});
    }
    return true;
  };
  if (!open_streams(next.tcp, net::Transport::tcp) || !open_streams(next.tls, net::Transport::tls)) return false;
  pending_ = std::move(opened);
  return true;
}

std::vector<NextListeners> Listeners::settle() {
  Pending next = std::move(*pending_);
  pending_.reset();
  changes_.clear();
  const auto wanted = udp_listeners(next.plan);
  for (auto& entry : udp_) {
    const auto found = std::find_if(wanted.begin(), wanted.end(), [&](const auto& one) { return one.first == entry.address; });
    const bool retired = found == wanted.end();
    if (retired && !entry.retired)
      changes_.push_back(
          fmt::format("no longer listens on {} {}; calls there go on, and it closes with the last of them", net::name(entry.transport), entry.address.text()));
    if (!retired) entry.transport = found->second;
    if (!retired && entry.retired) changes_.push_back(fmt::format("listens on {} {} again", net::name(entry.transport), entry.address.text()));
    entry.retired = retired;
  }
  for (const auto& [address, transport] : wanted) {
    if (find_address(udp_, address) != udp_.end()) continue;
    changes_.push_back(fmt::format("listens on {} {}", net::name(transport), address.text()));
    udp_.push_back({address, transport, false});
  }
  for (const auto& entry : streams_)
    if (find_address(next.streams, entry.address) == next.streams.end())
      changes_.push_back(fmt::format("no longer listens on {} {}; its connections go on", net::name(entry.transport), entry.address.text()));
  for (const auto& entry : next.streams)
    if (find_address(streams_, entry.address) == streams_.end())
      changes_.push_back(fmt::format("listens on {} {}", net::name(entry.transport), entry.address.text()));
  streams_ = std::move(next.streams);
  plan_ = std::move(next.plan);
  return orders(std::move(next.sockets));
}

std::vector<NextListeners> Listeners::orders(Sockets sockets) {
  std::vector<NextListeners> orders;
  for (unsigned i = 0; i < workers_; ++i) orders.push_back({udp_, streams_, std::move(sockets[i]), !plan_.dtls.empty()});
  return orders;
}

std::vector<net::TransportAddress> Listeners::retired() const {
  std::vector<net::TransportAddress> addresses;
  for (const auto& entry : udp_)
    if (entry.retired) addresses.push_back(entry.address);
  return addresses;
}

std::vector<NextListeners> Listeners::close(const std::vector<net::TransportAddress>& retired) {
  std::erase_if(udp_, [&](const auto& entry) { return entry.retired && is_in(retired, entry.address); });
  return orders(Sockets(workers_));
}

std::vector<std::string> Listeners::drop_unused() {
  std::vector<std::string> said;
  std::erase_if(inherited_, [&](const auto& socket) {
    const auto& open = socket->is_stream ? streams_ : udp_;
    if (find_address(open, socket->address) != open.end()) return false;
    const bool of_all = !socket->is_stream && socket->address.ip.is_unspecified();
    said.push_back(of_all ? fmt::format("{} from the service manager is not used: an answer over UDP has to leave from the address that was asked, so write ListenDatagram= with each address",
                                        socket_text(*socket))
                          : fmt::format("{} from the service manager is not used: [listen] has no such address; add it there, or take it out of the .socket unit",
                                        socket_text(*socket)));
    return true;
  });
  return said;
}

std::vector<std::string> Listeners::inherited() const {
  std::vector<std::string> said;
  for (const auto& socket : inherited_) said.push_back(socket_text(*socket));
  return said;
}

}  // namespace radiotower::daemon
