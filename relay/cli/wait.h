// What the kinds of links share: a descriptor, a wait with a deadline, and the messages of a stream.
#pragma once

#include <unistd.h>

#include <array>
#include <utility>
#include <vector>

#include "link.h"

namespace radiotower::cli {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int number) : number_(number) {}
  Fd(Fd&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Fd() {
    if (number_ >= 0) ::close(number_);
  }
  int number() const { return number_; }

 private:
  int number_ = -1;
};

/// False: the deadline came first.
bool wait_for(int descriptor, short events, Clock::time_point deadline);
net::TransportAddress local_of(int descriptor);

/// Bytes of a stream, from which messages are taken.
class Frames {
 public:
  enum class Taken : std::uint8_t { message, nothing, wrong };  // wrong: what comes is neither STUN nor ChannelData
  void add(Bytes bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  Taken take(MutableBytes buffer, std::size_t& size);

 private:
  std::vector<std::uint8_t> bytes_;
  std::size_t start_ = 0;
};

/// A message as it stands on a stream: a multiple of four bytes (RFC 8656, 12.5).
std::vector<std::uint8_t> padded(Bytes message);

}  // namespace radiotower::cli
