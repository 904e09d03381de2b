// Mobility tickets (RFC 8016, 3.1.2): sealed, so that only this process can read or make one.
//
// A ticket is 32 characters of base64 of { 16 bytes of tag, 8 bytes of sealed place }, sealed with AES-256-SIV (RFC 5297): a place
// always gives the same ticket, so the answer to a retransmission needs no copy of it, and no two places are alike. Printable and
// short of 33 bytes because clients are about that keep it as a C string.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "radiotower/base/bytes.h"
#include "radiotower/base/random.h"

namespace radiotower::turn {

/// Where the allocation is that a ticket was issued for. `serial` is the ticket's own, and unique in its worker: of an allocation's tickets
/// none is like the one before, and an allocation that takes the place of another has none of its tickets.
struct TicketPlace {
  static constexpr unsigned most_workers = 1 << 10;
  static constexpr std::uint32_t most_indexes = 1 << 22;
  unsigned worker = 0;
  std::uint32_t index = 0;
  std::uint32_t serial = 0;
  friend bool operator==(const TicketPlace&, const TicketPlace&) = default;
};

class Ticket {
 public:
  static constexpr std::size_t size = 32;
  std::string_view text() const { return {text_.data(), size}; }

 private:
  friend class TicketMint;
  std::array<char, size> text_{};
};

/// One a process, shared by its workers: each must be able to read what another has issued. Thread-safe. Works on the control path alone: a
/// call allocates.
class TicketMint {
 public:
  explicit TicketMint(const RandomSource& random);  // a fresh key: tickets from before a restart are unknown
  ~TicketMint();
  TicketMint(const TicketMint&) = delete;
  TicketMint& operator=(const TicketMint&) = delete;

  Ticket make(const TicketPlace& place) const;
  /// nullopt: not one of ours, or changed by as little as a bit.
  std::optional<TicketPlace> open(Bytes ticket) const;

 private:
  struct Cipher;
  std::unique_ptr<Cipher> cipher_;
  std::array<std::uint8_t, 64> key_;
};

}  // namespace radiotower::turn
