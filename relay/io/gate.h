// The gate before a listener: a classic BPF filter that the kernel runs before a datagram takes room in the receive buffer, so that a
// flood costs no relayed packet its place. Needs no privilege. Knows addresses; what a stranger is, its user decides.
//
//   a known source (address and port)    passes
//   a suspect (address alone)            is dropped
//   anybody else                         passes with a given share, by chance
//
// Known sources are a set of hashes, so a stranger may share one: with 100 of them one in 160 does, with 16,000 three in five. The hash
// is keyed, so nobody can choose to.
#pragma once

#include <cstdint>
#include <vector>

#include "radiotower/io/loop.h"
#include "radiotower/net/address.h"

namespace radiotower::io {

class Gate {
 public:
  static constexpr std::size_t most_suspects = 64;

  /// A listener has one family. `key` from a random device. With all bits a program has up to 2,500 instructions; kernels before 6.7
  /// allow a socket's options 20 KiB (net.core.optmem_max), for the program before it and the new one together: then take fewer bits.
  static constexpr unsigned most_bits = 14, fewest_bits = 9;
  Gate(net::Family family, std::uint64_t key, unsigned bits = most_bits);

  void forget();  // the known and the suspects
  void know(const net::TransportAddress& source);
  /// An IPv6 suspect is its /64: whoever has one has all of it. False: there is room for no more.
  bool suspect(const net::IpAddress& ip);
  bool is_suspect(const net::IpAddress& ip) const;
  std::size_t suspects() const { return suspects_.size(); }

  /// `share` of the others passes, 0 to 1.
  std::vector<FilterInstruction> program(double share) const;

 private:
  std::uint32_t hash(const net::TransportAddress& source) const;

  net::Family family_;
  unsigned bits_;
  std::uint32_t port_factor_, address_factor_, last_factor_;
  std::vector<std::uint32_t> known_;  // a bit a hash
  std::vector<net::IpAddress> suspects_;
};

}  // namespace radiotower::io
