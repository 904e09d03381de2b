#include "allocation.h"

#include <algorithm>

#include "radiotower/net/hash.h"

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
  return sizeof *this + (mobility ? sizeof *mobility : 0) + username.capacity() + permissions.capacity() * sizeof(Permission) +
         channels.capacity() * sizeof(Channel) + connections.capacity() * sizeof(PeerConnection) + static_cast<std::size_t>(given) * sizeof(Given);
}

std::uint32_t AllocationTable::hash(const net::FiveTuple& t) const { return static_cast<std::uint32_t>(net::hash(key_, t)); }

std::size_t AllocationTable::find_place(const net::FiveTuple& t, std::uint32_t h) const {
  const std::size_t mask = index_.size() - 1;
  std::size_t i = h & mask;
  for (; index_[i].index != empty; i = (i + 1) & mask)
    if (index_[i].hash == h && slots_[index_[i].index].allocation->is_at(t)) break;
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
  slot.allocation->index = index;
  slot.allocation->generation = slot.generation;
  link(five_tuple, index);
  ++size_;
  return *slot.allocation;
}

void AllocationTable::link(const net::FiveTuple& t, std::uint32_t index) {
  if ((links_ + 1) * 2 > index_.size()) grow();
  const std::uint32_t h = hash(t);
  const std::size_t mask = index_.size() - 1;
  std::size_t i = h & mask;
  while (index_[i].index != empty) i = (i + 1) & mask;
  index_[i] = {h, index};
  ++links_;
}

/// Called while the allocation still says that it is at `t`.
void AllocationTable::unlink(const net::FiveTuple& t) {
  const std::size_t mask = index_.size() - 1;
  std::size_t hole = find_place(t, hash(t));
  assert(index_[hole].index != empty);
  // Close the gap instead of leaving a tombstone: probe lengths then depend on what is stored, not on what was.
  for (std::size_t i = (hole + 1) & mask; index_[i].index != empty; i = (i + 1) & mask) {
    const std::size_t home = index_[i].hash & mask;
    if (((i - home) & mask) >= ((i - hole) & mask)) {
      index_[hole] = index_[i];
      hole = i;
    }
  }
  index_[hole] = {};
  --links_;
}

void AllocationTable::begin_move(Allocation& allocation, const net::FiveTuple& next, SocketHandle socket) {
  assert(!allocation.is_moving && !allocation.is_at(next));
  link(next, allocation.index);
  allocation.mobility->next = next;
  allocation.mobility->next_socket = socket;
  allocation.is_moving = true;
}

void AllocationTable::complete_move(Allocation& allocation) {
  assert(allocation.is_moving);
  if (allocation.has_client) unlink(allocation.five_tuple);
  allocation.five_tuple = allocation.mobility->next;
  allocation.client_socket = allocation.mobility->next_socket;
  allocation.has_client = true;
  allocation.is_moving = false;
}

void AllocationTable::abandon_move(Allocation& allocation) {
  assert(allocation.is_moving);
  unlink(allocation.mobility->next);
  allocation.is_moving = false;
}

void AllocationTable::lose_client(Allocation& allocation) {
  assert(allocation.has_client && !allocation.is_moving);
  unlink(allocation.five_tuple);
  allocation.has_client = false;
  allocation.client_socket = no_socket;
}

void AllocationTable::erase(std::uint32_t index) {
  Slot& slot = slots_[index];
  assert(slot.allocation);
  if (slot.allocation->is_moving) abandon_move(*slot.allocation);
  if (slot.allocation->has_client) unlink(slot.allocation->five_tuple);
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
