// The clients of a worker that speak DTLS (RFC 7350): between its listeners, which receive and send their datagrams, and its turn::Server, which sees plain
// messages. Owns their sessions, and the bytes of a turn.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "radiotower/io/loop.h"
#include "radiotower/tls/dtls.h"
#include "radiotower/turn/actions.h"

namespace radiotower::daemon {

class DtlsClients {
 public:
  /// Who takes what comes out of the records.
  class Above {
   public:
    /// `train` lives until the end of the next turn, and may be written to as a received datagram may.
    virtual void dtls_message(const net::TransportAddress& client, io::SocketId listener, turn::Train train) = 0;
    /// A session that had been open is no more.
    virtual void dtls_gone(const net::TransportAddress& client, io::SocketId listener) = 0;

   protected:
    ~Above() = default;
  };

  /// `loop` and `above` outlive it.
  DtlsClients(std::shared_ptr<const tls::Identity> identity, RandomSource random, io::Loop& loop, Above& above);

  void set_identity(std::shared_ptr<const tls::Identity> identity) { endpoint_.set_identity(std::move(identity)); }

  /// Just before Loop::turn(): bytes of the turn before the last are not needed any more.
  void begin_turn();
  /// By its first byte (RFC 7983, 7).
  static bool takes(Bytes datagram) { return !datagram.empty() && tls::DtlsEndpoint::is_dtls(datagram[0]); }
  void on_datagram(const io::Datagram& datagram, Time now);
  /// To a client of ours: each datagram of it as a record.
  void send(const turn::Send& send);
  /// While its client has an allocation a session is not idle.
  void keep(const net::TransportAddress& client, io::SocketId listener, bool has_allocation, Time now) { endpoint_.keep({client, listener}, has_allocation, now); }

  void expire(Time now);
  Time next_expiry() const { return endpoint_.next_expiry(); }
  void close_all();

  void for_each_client(const std::function<void(const net::TransportAddress&)>& visit) const { endpoint_.for_each_client(visit); }
  const tls::DtlsCounters& counters() const { return endpoint_.counters(); }
  std::size_t bytes_kept() const { return endpoint_.bytes_kept(); }

 private:
  void send_datagrams();
  void hand_over();

  io::Loop& loop_;
  Above& above_;
  tls::DtlsEndpoint endpoint_;
  // What Loop::send() is given must live until the next turn has returned, and the plain messages are sent from where they lie: so two of them alternate.
  std::array<tls::DtlsOutput, 2> outputs_;
  std::size_t output_ = 0;
  std::vector<tls::DtlsOutput::Message> messages_;  // scratch
  std::vector<tls::DtlsPath> ended_;
  std::vector<std::uint8_t> plain_;  // one message of a train, with its prefix
};

}  // namespace radiotower::daemon
