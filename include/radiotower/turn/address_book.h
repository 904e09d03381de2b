// The relay addresses of the process, as they come and go: which of them new allocations get, their ports, and as what each allocation's
// client was told its address. All but the reads of the data path is under the lock of turn::Shared, which owns the only one.
//
// An allocation keeps its address, its port and the external form that its client was told for as long as it lives, whatever is
// offered meanwhile. So nothing is moved and nothing is freed while the process lives: a place that holds no port any more is
// used for another address, and one that comes back finds its place, and its quarantines, as it left them.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "radiotower/base/random.h"
#include "radiotower/net/address.h"
#include "radiotower/turn/port_pool.h"
#include "radiotower/turn/settings.h"

namespace radiotower::turn {

class AddressBook {
 public:
  static constexpr std::size_t most_addresses = 64;  // offered, or with ports that allocations still hold
  static constexpr std::size_t most_forms = 255;     // external addresses, likewise

  explicit AddressBook(RandomSource random) : random_(std::move(random)) {}

  /// From here on new allocations get these, of this range. Those that are not there any more keep what allocations hold of them.
  /// Returns what found no room: an address that cannot be offered, or an external form that cannot be told (the local one is then).
  std::vector<net::IpAddress> offer(const std::vector<RelayAddress>& addresses, std::uint16_t first_port, std::uint16_t last_port);

  struct Offered {
    std::uint32_t place = 0;
    std::uint8_t form = 0;
  };
  const std::vector<Offered>& offered() const { return offered_; }  // in order of preference
  PortPool& pool(std::uint32_t place) { return places_[place]->pool; }
  const PortPool& pool(std::uint32_t place) const { return places_[place]->pool; }
  std::uint32_t places() const { return places_made_.load(std::memory_order_relaxed); }
  /// Whoever gets this port is told this form of it. Once for each port taken from the pool, and untell() before it goes back.
  void tell(std::uint32_t place, std::uint16_t port, std::uint8_t form);
  void untell(std::uint32_t place, std::uint16_t port);
  /// Ports that allocations hold or have reserved there; 0 where we know no such address.
  std::size_t held(const net::IpAddress& local) const;
  /// Local and external forms that are offered, or that a live allocation was told.
  std::vector<net::IpAddress> known() const;

  // Without the lock. The first two are of a port that the caller holds.
  net::IpAddress local(std::uint32_t place) const { return locals_[place].get(); }
  net::IpAddress told(std::uint32_t place, std::uint16_t port) const;
  void set_live(std::uint32_t place, std::uint16_t port, bool live, net::Transport transport);
  net::TransportAddress inside(const net::TransportAddress& peer) const;
  std::optional<net::TransportAddress> reach(const net::TransportAddress& peer, net::Transport transport) const;
  net::TransportAddress outside(const net::TransportAddress& source, net::Transport transport) const;
  bool maps_addresses() const { return maps_addresses_.load(std::memory_order_relaxed); }

 private:
  /// Read while another address is being put there: then it matches neither, or a place none of whose ports are live.
  class SharedAddress {
   public:
    void set(const net::IpAddress& ip) {
      std::uint64_t words[2];
      std::memcpy(words, ip.bytes.data(), sizeof words);
      for (int i = 0; i < 2; ++i) words_[i].store(words[i], std::memory_order_relaxed);
    }
    net::IpAddress get() const {
      const std::uint64_t words[2] = {words_[0].load(std::memory_order_relaxed), words_[1].load(std::memory_order_relaxed)};
      net::IpAddress ip;
      std::memcpy(ip.bytes.data(), words, sizeof words);
      return ip;
    }

   private:
    std::atomic<std::uint64_t> words_[2] = {};
  };
  using PortSet = std::array<std::atomic<std::uint64_t>, 1024>;  // one bit a port
  struct Place {
    Place(std::uint16_t first, std::uint16_t last, const RandomSource& random) : pool(first, last, random) {}
    PortPool pool;
    // Apart: what a port of one transport is bound by says nothing about the other, which may be another program's.
    PortSet udp{}, tcp{};
    std::array<std::atomic<std::uint8_t>, 65536> form{};  // of each port that is held: into forms_; 0: told as it is
    const PortSet& ports(net::Transport transport) const { return transport == net::Transport::tcp ? tcp : udp; }
    bool has(std::uint16_t port, net::Transport transport) const {
      return ports(transport)[port / 64].load(std::memory_order_acquire) >> (port % 64) & 1;
    }
  };
  struct Form {
    SharedAddress external;
    std::atomic<std::uint32_t> place{0};
    std::uint32_t ports = 0;  // held ports whose clients were told this
    bool used = false;
  };
  std::uint32_t place_for(const net::IpAddress& local, std::uint16_t first, std::uint16_t last, const std::vector<RelayAddress>& wanted);
  std::uint8_t form_for(const net::IpAddress& external, std::uint32_t place);
  bool is_told(std::uint32_t form, const net::TransportAddress& address, net::Transport transport) const;
  bool is_offered(std::uint8_t form) const;
  void drop_unused_forms();

  RandomSource random_;
  std::array<SharedAddress, most_addresses> locals_;  // of each place, side by side: the data path looks through them
  std::array<std::unique_ptr<Place>, most_addresses> places_;
  std::atomic<std::uint32_t> places_made_{0};
  std::array<Form, most_forms + 1> forms_;   // the first is none
  std::atomic<std::uint32_t> forms_end_{1};  // behind the last that was ever used
  std::atomic<bool> maps_addresses_{false};
  std::vector<Offered> offered_;
};

}  // namespace radiotower::turn
