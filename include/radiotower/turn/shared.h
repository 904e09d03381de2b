// The only protocol state that crosses workers: ports, reservations, quotas, live relayed ports. Touched on the control
// path alone, under one lock, save what the data path needs without: `reach`, `inside` and `outside` (a few loads)
// and Account::lease (one atomic exchange a few dozen times a second and user).
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "radiotower/base/bucket.h"
#include "radiotower/base/random.h"
#include "radiotower/base/siphash.h"
#include "radiotower/base/time.h"
#include "radiotower/net/address.h"
#include "radiotower/turn/address_book.h"
#include "radiotower/turn/port_pool.h"
#include "radiotower/turn/settings.h"

namespace radiotower::turn {

/// What one user holds of the relay, over all its allocations and workers.
class Account {
 public:
  /// `buckets`: where the limit is to be kept; nullptr, or none left there: in the account itself. Outlives the
  /// account.
  explicit Account(std::string name, BucketSource* buckets = nullptr, std::string realm = {});
  ~Account();
  Account(const Account&) = delete;
  Account& operator=(const Account&) = delete;
  const std::string& name() const { return name_; }
  const std::string& realm() const { return realm_; }

  /// Takes up to a hundredth of a second's budget (at least `need`) out of the user's bucket, which holds one second's worth.
  /// False: the user is over the limit, drop the packet. Unlimited kinds are granted amply. Thread-safe, lock-free.
  struct Lease {
    std::int64_t bytes = 0;
    std::int64_t packets = 0;
  };
  bool lease(std::size_t need, Time now, Lease& lease);

  void set_rates(std::uint64_t bytes_per_second, std::uint64_t packets_per_second);  // 0: no limit
  bool limited() const { return limited_.load(std::memory_order_relaxed); }
  /// The limit, where others than the core may take from it too; nullptr: it is the account's own.
  const Bucket* visible_bucket() const { return bucket_ == &own_ ? nullptr : bucket_; }

 private:
  friend class Shared;
  const std::string name_;
  const std::string realm_;
  std::uint32_t allocations_ = 0;  // under Shared's lock; an unclaimed reservation counts as one
  std::uint32_t allocations_limit_ = 0;
  bool own_rates_ = false;  // rates come from the user's own line: a reload of the limits leaves them
  bool rest_ = false;
  bool token_ = false;
  std::atomic<bool> limited_{false};
  BucketSource* const buckets_;
  Bucket own_;
  Bucket* const bucket_;
};

using ReservationToken = std::array<std::uint8_t, 8>;

class Shared {
 public:
  /// `settings` gives relay addresses and port range, until offer() changes them. `buckets`: where the limits of users are kept;
  /// outlives every Account. nullptr: the heap.
  Shared(const Settings& settings, const RandomSource& random, const HashKey& key, BucketSource* buckets = nullptr);

  enum class Want : std::uint8_t { any, even, even_pair };
  struct Port {
    std::uint32_t place = 0;  // of its address: see local() and told()
    std::uint16_t port = 0;
    ReservationToken token{};  // even_pair only: for port + 1
  };

  /// Quota first: counts one allocation of this user (two for even_pair: a reservation counts, X06). Creates the account.
  /// nullptr: the user's quota (`over_total` false), or the total of the relay or of `realm` (`over_total` true), is reached. Accounts are
  /// of one realm; `realm_allocations`: what that may have in all, 0: no limit of its own. `token`: the account of an access token (RFC 7635).
  std::shared_ptr<Account> admit(std::string_view account, std::optional<std::uint32_t> own_allocations,
                                 std::optional<std::uint64_t> own_bytes_per_second, bool rest, const Limits& limits,
                                 std::uint32_t count, bool& over_total, std::string_view realm = {}, std::uint32_t realm_allocations = 0,
                                 bool token = false);
  void leave(const std::shared_ptr<Account>& account, std::uint32_t count = 1);

  /// What new allocations get from here on: relay addresses, their external forms, and the range of ports. Live allocations and reservations keep
  /// address, port and the form that their clients were told until they end. To be called once, before the servers get the same settings.
  /// Returns what found no room (see AddressBook::offer); empty as a rule.
  std::vector<net::IpAddress> offer(const Settings& settings);
  /// The relayed address of a port that the caller holds: as it is bound, and as its client was told it.
  net::TransportAddress local(const Port& port) const { return {book_.local(port.place), port.port, 0}; }
  net::TransportAddress told(const Port& port) const { return {book_.told(port.place, port.port), port.port, 0}; }
  /// Ports of that local address that allocations hold or have reserved, also where it is no longer offered.
  std::size_t ports_held(const net::IpAddress& local) const;
  /// Local and external forms of all that is offered or that live allocations hold: what a peer must not be but as a live relayed address.
  std::vector<net::IpAddress> known_addresses() const;

  /// A port of that family; `preferred`: the address the client reached us on, used when it is one of ours.
  std::optional<Port> take_port(net::Family family, const net::IpAddress& preferred, Want want,
                                const std::shared_ptr<Account>& account, Time now);
  /// The port of a live reservation of the same account; the reservation is spent, its quota passes to the allocation. nullopt: 508.
  /// With `holder`, accounts of access tokens may claim for each other, since a client may have a fresh token for every allocation:
  /// *holder is then the account that goes on counting for the port.
  std::optional<Port> claim(Bytes token, const Account& account, Time now, std::shared_ptr<Account>* holder = nullptr);
  /// Bound: from here on peers may be told apart as "own relayed, live".
  void set_live(const Port& port, bool live, net::Transport transport = net::Transport::udp);
  /// Not live any more, into quarantine. Also for a port that another program has (it rests 30 s and is tried again).
  void release(const Port& port, Time now);
  /// Reservations that nobody claimed in 30 s go back (port to quarantine, quota to the user). Called on every control operation too.
  void expire(Time now);
  void apply_limits(const Limits& limits, std::string_view realm = {});  // of one realm, after a reload

  bool has_family(net::Family family) const;
  /// Data path: is this relay address and port held by a live allocation right now, in its local form or in the one its client was told?
  bool relayed_port_live(const net::TransportAddress& address, net::Transport transport = net::Transport::udp) const { return reach(address, transport).has_value(); }
  /// The same, and the local address to send to. nullopt: no live allocation has it.
  std::optional<net::TransportAddress> reach(const net::TransportAddress& peer, net::Transport transport = net::Transport::udp) const { return book_.reach(peer, transport); }
  /// A peer given as a live relayed address in its external form -> the local one to send to (hairpin); anything else unchanged.
  net::TransportAddress inside(const net::TransportAddress& peer) const { return book_.inside(peer); }
  /// The source of a datagram that came from one of our own relay sockets -> as what its client was told it.
  net::TransportAddress outside(const net::TransportAddress& source, net::Transport transport = net::Transport::udp) const { return book_.outside(source, transport); }
  bool maps_addresses() const { return book_.maps_addresses(); }

  /// A CONNECTION-ID (RFC 6062) that is no other's in the process and that nobody can guess, and the worker that has the connection.
  /// nullopt: there are too many.
  std::optional<std::uint32_t> register_connection(unsigned worker);
  std::optional<unsigned> worker_of(std::uint32_t connection) const;
  void forget_connection(std::uint32_t connection);

  struct Usage {
    std::size_t free = 0, used = 0, reserved = 0, quarantined = 0, range = 0, accounts = 0, allocations = 0;
  };
  Usage usage() const;

 private:
  struct Reservation {
    ReservationToken token;
    Port port;
    std::shared_ptr<Account> account;
    Time until;
  };
  void expire_locked(Time now);
  void release_locked(const Port& port, Time now);
  void leave_locked(Account& account, std::uint32_t count);

  mutable std::mutex mutex_;
  AddressBook book_;
  std::unordered_map<std::uint32_t, unsigned> connections_;  // CONNECTION-ID -> worker
  std::deque<Reservation> reservations_;          // oldest first; bounded by the number of ports
  struct Hash {
    HashKey key;
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return siphash13(key, as_bytes(text)); }
  };
  std::unordered_map<std::string, std::shared_ptr<Account>, Hash, std::equal_to<>> accounts_;
  std::uint32_t allocations_ = 0;
  std::unordered_map<std::string, std::uint32_t, Hash, std::equal_to<>> by_realm_;  // of those, how many are whose; no zeros
  RandomSource random_;
  BucketSource* buckets_;
};

}  // namespace radiotower::turn
