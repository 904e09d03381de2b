// Clients over UDP that have come to another worker than the one that holds their allocation (RFC 8016): the kernel spreads datagrams over the workers by their
// source, and a client that moves has a new one.
//
// The worker that gets a Refresh with another's ticket passes the datagram on, and the owner answers from its own socket of the same address. Once the
// owner's server has taken the 5-tuple, the owner opens a socket for it alone, bound to the listener's address and connected to the client,
// which the kernel prefers to those that the workers share: from there on the client's datagrams come to the owner like anybody's. There are few of
// them; for the rest, and where there can be none, the first worker passes on each datagram.
//
// Owned by one worker, of its thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "radiotower/base/siphash.h"
#include "radiotower/io/loop.h"
#include "radiotower/turn/actions.h"

namespace radiotower::daemon {

/// From worker to worker.
struct ClientMail {
  enum class Kind : std::uint8_t {
    datagram,  // take it as if it had come to you
    forward,   // pass on what comes from there, for it is mine ...
    stop       // ... and is no more
  };
  Kind kind{};
  unsigned from = 0;  // the worker
  net::FiveTuple five_tuple;
  std::vector<std::uint8_t> bytes;  // datagram: Train::headroom bytes, the datagram or train, 4 bytes
  std::uint16_t segment = 0;

  MutableBytes datagram() { return MutableBytes(bytes).subspan(turn::Train::headroom, bytes.size() - turn::Train::headroom - 4); }
};
/// Thread-safe. False: that worker has more waiting than it may, or has ended; the mail is lost, as a datagram may be.
using TellWorker = std::function<bool(unsigned worker, ClientMail mail)>;

/// Written by the worker's thread alone.
struct MovedCounters {
#define RADIOTOWER_MOVED_COUNTERS(X)                                                                 \
  X(passed_on)        /* datagrams and trains to the worker that holds the allocation */             \
  X(passed_on_lost)   /* that it had no room for */                                                  \
  X(taken_in)         /* from other workers */                                                       \
  X(sockets_opened) X(sockets_refused) /* by the kernel, or by the bound on them */
#define RADIOTOWER_X(name) std::uint64_t name = 0;
  RADIOTOWER_MOVED_COUNTERS(RADIOTOWER_X)
#undef RADIOTOWER_X
  std::uint64_t sockets = 0, passing_on = 0;  // not counts: what there is now
  template <typename Visit>
  void for_each(Visit&& visit) const {
#define RADIOTOWER_X(name) visit(std::string_view(#name), name);
    RADIOTOWER_MOVED_COUNTERS(RADIOTOWER_X)
#undef RADIOTOWER_X
    visit(std::string_view("sockets"), sockets);
    visit(std::string_view("passing_on"), passing_on);
  }
};

class MovedClients {
 public:
  /// `most_sockets`: the kernel walks through them for each datagram to a listener, so that they cost everybody. 0: none.
  MovedClients(io::Loop& loop, unsigned worker, TellWorker tell, const HashKey& key, std::size_t most_sockets)
      : loop_(loop), worker_(worker), tell_(std::move(tell)), most_sockets_(most_sockets), passing_on_(0, Hash{key}), carried_(0, Hash{key}) {}

  // At the worker where the client's datagrams come in.
  void hand_over(const turn::HandOver& order);
  /// True: it was for another worker, and is on its way. Costs a look at a size while there is nobody like that.
  bool pass_on(const net::FiveTuple& five_tuple, const turn::Train& train) { return !passing_on_.empty() && pass_on_to(five_tuple, train); }

  // At the worker that holds the allocation.
  /// `mail` of kind datagram has come; until done() the server's actions are its consequences.
  void begin(const ClientMail& mail) {
    at_hand_ = &mail;
    ++counters_.taken_in;
  }
  void done() { at_hand_ = nullptr; }
  /// What the server says of 5-tuples. `cookie`: that of the listener which the 5-tuple names.
  void carried(const turn::Carry& carry, std::uint64_t cookie);

  void take_notice(const ClientMail& mail);  // forward and stop

  template <typename Visit>
  void for_each_passed_on(Visit&& visit) const {
    for (const auto& [five_tuple, owner] : passing_on_) visit(five_tuple);
  }
  const MovedCounters& counters();

 private:
  struct Hash {
    HashKey key;
    std::size_t operator()(const net::FiveTuple& t) const;
  };
  struct Carried {
    io::SocketId socket = io::no_socket;  // no_socket: `from` passes on
    unsigned from = 0;
  };
  bool pass_on_to(const net::FiveTuple& five_tuple, const turn::Train& train);
  void send(unsigned worker, const net::FiveTuple& five_tuple, Bytes bytes, std::uint16_t segment);
  io::SocketId open(const net::FiveTuple& five_tuple, std::uint64_t cookie);

  io::Loop& loop_;
  const unsigned worker_;
  const TellWorker tell_;
  const std::size_t most_sockets_;
  const ClientMail* at_hand_ = nullptr;
  std::unordered_map<net::FiveTuple, unsigned, Hash> passing_on_;  // to the worker of that number
  std::unordered_map<net::FiveTuple, Carried, Hash> carried_;
  MovedCounters counters_;
};

}  // namespace radiotower::daemon
