// The program loaded into the kernel, and its maps as memory or as tables. Knows no flow.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "maps.h"
#include "radiotower/base/bucket.h"
#include "radiotower/base/time.h"
#include "radiotower/net/address.h"
#include "radiotower/offload/offload.h"

struct bpf_object;

namespace radiotower::offload {

/// The bytes of channels.bpf.o, in the binary.
std::span<const std::byte> program_bytes();

/// A map of one array that program and process both see. Only __s64 and so on inside: see `relaxed()`.
class SharedMemory {
 public:
  SharedMemory() = default;
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  bool map(int descriptor, std::size_t bytes);
  void* at() const { return at_; }

 private:
  void* at_ = nullptr;
  std::size_t bytes_ = 0;
};

class Program {
 public:
  struct Sizes {
    std::size_t flows, buckets, addresses, interfaces;
  };
  /// nullptr, and a sentence in `why`.
  static std::unique_ptr<Program> load(const Sizes& sizes, std::string& why);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  int descriptor() const { return descriptor_; }
  std::span<Slot> slots() const { return {static_cast<Slot*>(slots_.at()), sizes_.flows}; }
  std::span<Direction> directions() const { return {static_cast<Direction*>(directions_.at()), 2 * sizes_.flows}; }
  std::span<Bucket> buckets() const { return {static_cast<Bucket*>(buckets_.at()), sizes_.buckets}; }
  void keep_alive(Time until);
  void redirect_back(bool wanted);  // see Control

  bool add_address(const net::IpAddress& address);
  bool add_egress(unsigned interface_index);
  /// false when the table is full or has the key already.
  bool insert(const ClientKey& key, FlowWord id) const;
  bool insert(const Path& key, FlowWord id) const;
  void erase(const ClientKey& key) const;
  void erase(const Path& key) const;
  using OutcomeCounts = std::array<std::uint64_t, outcome_count>;
  OutcomeCounts outcomes() const;

 private:
  Program() = default;
  Control& control() { return *static_cast<Control*>(control_.at()); }

  Sizes sizes_{};
  bpf_object* object_ = nullptr;
  int descriptor_ = -1, from_client_ = -1, from_peer_ = -1, addresses_ = -1, egress_ = -1, outcomes_ = -1;
  SharedMemory slots_, directions_, buckets_, control_;
};

}  // namespace radiotower::offload
