// The sockets that clients come in at: which there are, and how a reload changes them. Of the control thread alone; touches no packet.
//
// Each listener is opened once a worker (SO_REUSEPORT), here, before any worker hears of it: either all that a configuration asks for can be opened, or
// nothing changes. One of UDP that is no longer asked for is retired first: the kernel divides clients over the workers by how many sockets an
// address has, so they close together, when the last allocation there has ended.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "radiotower/io/socket.h"
#include "worker.h"

namespace radiotower::daemon {

/// What to listen on. Wildcards are expanded: one address of the host each.
struct ListenPlan {
  std::vector<net::TransportAddress> listeners;  // of UDP; each is opened once a worker (SO_REUSEPORT)
  std::vector<net::TransportAddress> dtls;       // of UDP too; one that `listeners` does not name takes DTLS alone. Not empty: all take it
  std::vector<net::TransportAddress> tcp, tls;   // likewise; `tcp` takes TLS too, where there is a certificate
};

/// The UDP sockets of a worker, in order, and what each takes: udp (DTLS too, where that is on), or dtls alone.
std::vector<std::pair<net::TransportAddress, net::Transport>> udp_listeners(const ListenPlan& plan);

class Listeners {
 public:
  /// `inherited`: sockets that the service manager has opened. They are used where a listener asks for their address, and kept for life.
  Listeners(unsigned workers, int receive_buffer, std::vector<std::shared_ptr<const io::BoundSocket>> inherited = {});

  /// Opens what `next` has and we have not. False with a sentence for the operator: one cannot be opened, so none is kept.
  bool open(const ListenPlan& next, std::string& why);
  /// True: open() has been called, and settle() not yet.
  bool is_pending() const { return pending_.has_value(); }
  /// Takes over what open() has opened: what each worker is to be told.
  std::vector<NextListeners> settle();
  /// What the last settle() has changed, a sentence for each address; nothing once open() has failed.
  const std::vector<std::string>& changes() const { return changes_; }

  /// Addresses that wait for their last allocation.
  std::vector<net::TransportAddress> retired() const;
  /// They are needed no more: what each worker is to be told.
  std::vector<NextListeners> close(const std::vector<net::TransportAddress>& retired);

  const ListenPlan& plan() const { return plan_; }
  /// The smallest that a listener of UDP got, in bytes.
  int smallest_receive_buffer() const { return smallest_receive_buffer_; }
  /// Those of the service manager that no listener has used: closed from here on. A sentence for each.
  std::vector<std::string> drop_unused();
  /// Likewise of those in use: "tcp 0.0.0.0:443".
  std::vector<std::string> inherited() const;

 private:
  using Sockets = std::vector<std::vector<Listener>>;  // by worker
  struct Pending {
    ListenPlan plan;
    std::vector<NextListeners::Entry> streams;  // by socket, which may be of several addresses
    Sockets sockets;
  };
  bool open_udp(const net::TransportAddress& address, net::Transport transport, Sockets& to, std::string& why);
  bool open_tcp(const net::TransportAddress& address, net::Transport transport, Sockets& to, std::string& why);
  bool inherit_udp(const io::BoundSocket& socket, const net::TransportAddress& address, net::Transport transport, Sockets& to);
  const io::BoundSocket* inherited_for(const net::TransportAddress& address, bool stream) const;
  std::vector<NextListeners> orders(Sockets sockets);

  const unsigned workers_;
  const int receive_buffer_;
  int smallest_receive_buffer_;
  std::vector<std::shared_ptr<const io::BoundSocket>> inherited_;
  ListenPlan plan_;
  std::vector<NextListeners::Entry> udp_, streams_;  // what is open
  std::optional<Pending> pending_;
  std::vector<std::string> changes_;
};

}  // namespace radiotower::daemon
