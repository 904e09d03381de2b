#include "allocation.h"

#include <algorithm>

namespace radiotower::turn {

Time Allocation::earliest_end() const {
  Time end = never;
  for (const auto& r : relays)
    if (r.state != Relay::State::none) end = std::min(end, r.expires_at);
  for (const auto& c : connections) end = std::min(end, c.until);
  return end;
}

std::size_t Allocation::bytes() const {
  const auto given = std::count_if(channels.begin(), channels.end(), [](const auto& c) { return c.given != nullptr; });
  return sizeof *this + username.capacity() + permissions.capacity() * sizeof(Permission) +
         channels.capacity() * sizeof(Channel) + connections.capacity() * sizeof(PeerConnection) + static_cast<std::size_t>(given) * sizeof(Given);
}

std::uint32_t AllocationTable::hash(const net::FiveTuple& t) const {
  std::array<std::uint8_t, 48> bytes;
  auto* p = bytes.data();
  for (const auto* a : {&t.client, &t.server}) {
    std::memcpy(p, a->ip.bytes.data(), 16);
    store_be16(p + 16, a->port);
    store_be32(p + 18, a->scope);
    p += 22;
  }
  store_be32(p, static_cast<std::uint32_t>(t.transport));
  return static_cast<std::uint32_t>(siphash13(key_, bytes));
}

std::size_t AllocationTable::find_place(const net::FiveTuple& t, std::uint32_t h) const {
  const std::size_t mask = index_.size() - 1;
  std::size_t i = h & mask;
  for (; index_[i].index != empty; i = (i + 1) & mask)
    if (index_[i].hash == h && slots_[index_[i].index].allocation->five_tuple == t) break;
  return i;
}

Allocation* AllocationTable::find(const net::FiveTuple& five_tuple) {
  const Place& place = index_[find_place(five_tuple, hash(five_tuple))];
  return place.index == empty ? nullptr : slots_[place.index].allocation.get();
}

Allocation* AllocationTable::find(std::uint32_t index, std::uint32_t generation) {
  if (index >= slots_.size() || slots_[index].generation != generation) return nullptr;
  return slots_[index].allocation.get();
}

std::uint32_t AllocationTable::index_of(const Allocation& allocation) {
  return index_[find_place(allocation.five_tuple, hash(allocation.five_tuple))].index;
}

void AllocationTable::grow() {
  std::vector<Place> old(index_.size() * 2);
  old.swap(index_);
  const std::size_t mask = index_.size() - 1;
  for (const Place& place : old) {
    if (place.index == empty) continue;
    std::size_t i = place.hash & mask;
    while (index_[i].index != empty) i = (i + 1) & mask;
    index_[i] = place;
  }
}

Allocation& AllocationTable::insert(const net::FiveTuple& five_tuple, std::uint32_t& index) {
  if ((size_ + 1) * 2 > index_.size()) grow();
  if (free_.empty()) {
    index = static_cast<std::uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    index = free_.back();
    free_.pop_back();
  }
  Slot& slot = slots_[index];
  slot.allocation = std::make_unique<Allocation>();
  slot.allocation->five_tuple = five_tuple;
  slot.allocation->generation = slot.generation;
  const std::uint32_t h = hash(five_tuple);
  const std::size_t mask = index_.size() - 1;
  std::size_t i = h & mask;
  while (index_[i].index != empty) i = (i + 1) & mask;
  index_[i] = {h, index};
  ++size_;
  return *slot.allocation;
}

void AllocationTable::erase(std::uint32_t index) {
  Slot& slot = slots_[index];
  assert(slot.allocation);
  const std::size_t mask = index_.size() - 1;
  std::size_t hole = find_place(slot.allocation->five_tuple, hash(slot.allocation->five_tuple));
  assert(index_[hole].index == index);
  // Close the gap instead of leaving a tombstone: probe lengths then depend on what is stored, not on what was.
  for (std::size_t i = (hole + 1) & mask; index_[i].index != empty; i = (i + 1) & mask) {
    const std::size_t home = index_[i].hash & mask;
    if (((i - home) & mask) >= ((i - hole) & mask)) {
      index_[hole] = index_[i];
      hole = i;
    }
  }
  index_[hole] = {};
  slot.allocation.reset();
  slot.generation = (slot.generation + 1) & 0x7FFFFFFF;  // RelayId has 31 bits for it
  free_.push_back(index);
  --size_;
}

std::size_t AllocationTable::bytes() const {
  std::size_t sum = slots_.capacity() * sizeof(Slot) + free_.capacity() * sizeof(std::uint32_t) + index_.capacity() * sizeof(Place);
  for (const auto& slot : slots_)
    if (slot.allocation) sum += slot.allocation->bytes();
  return sum;
}

}  // namespace radiotower::turn
