#include "flow_table.h"

#include <atomic>
#include <cstring>

#include "radiotower/base/bytes.h"

namespace radiotower::offload {

namespace {

/// A word that the program reads or adds to at the same time.
template <typename T>
std::atomic_ref<T> shared(T& word) {
  return std::atomic_ref<T>(word);
}

std::uint16_t to_network(std::uint16_t value) {
  std::uint16_t stored;
  store_be16(reinterpret_cast<std::uint8_t*>(&stored), value);
  return stored;
}

Path path(const net::TransportAddress& source, const net::TransportAddress& destination) {
  Path p{};
  std::memcpy(&p.source, source.ip.bytes.data(), sizeof p.source);
  std::memcpy(&p.destination, destination.ip.bytes.data(), sizeof p.destination);
  p.source_port = to_network(source.port);
  p.destination_port = to_network(destination.port);
  return p;
}

Path reversed(const Path& p) { return {p.destination, p.source, p.destination_port, p.source_port}; }

// The keys are what the directions say, the other way round: so they hold all that is needed to end a flow.
ClientKey client_key(const Direction& to_client) { return {reversed(to_client.path), to_client.channel, 0}; }
Path peer_key(const Direction& to_peer) { return reversed(to_peer.path); }

/// What no packet can come from or go to through a driver, or what the program would not tell apart.
bool usable(const net::TransportAddress& a) {
  return a.port != 0 && !a.ip.is_unspecified() && !a.ip.is_loopback() && !a.ip.is_multicast() && !a.ip.is_link_local();
}

bool usable(const Flow& flow) {
  constexpr std::uint16_t first_channel = 0x4000,
                          last_channel = 0x7FFF;  // of RFC 5766; which of them are served is turn's matter
  return usable(flow.client) && usable(flow.listener) && usable(flow.relay) && usable(flow.peer) &&
         flow.client.family() == flow.listener.family() && flow.relay.family() == flow.peer.family() &&
         flow.channel >= first_channel && flow.channel <= last_channel;
}

Direction direction(const Path& path, std::uint16_t channel) {
  Direction d{};
  d.path = path;
  d.channel = to_network(channel);
  return d;
}

constexpr auto relaxed = std::memory_order_relaxed;

}  // namespace

BucketPool::BucketPool(std::span<Bucket> buckets) : buckets_(buckets), free_(buckets.size()) {
  for (std::size_t i = 0; i < free_.size(); ++i) free_[i] = static_cast<std::uint32_t>(free_.size() - 1 - i);
}

Bucket* BucketPool::take() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) return nullptr;
  Bucket& bucket = buckets_[free_.back()];
  free_.pop_back();
  bucket.bytes_full_at.store(0, relaxed);
  bucket.packets_full_at.store(0, relaxed);
  bucket.byte_rate.store(0, relaxed);
  bucket.packet_rate.store(0, relaxed);
  return &bucket;
}

void BucketPool::give_back(Bucket* bucket) {
  const std::uint32_t index = index_of(bucket);
  if (index == RADIOTOWER_NO_BUCKET) return;
  const std::lock_guard lock(mutex_);
  free_.push_back(index);
}

std::uint32_t BucketPool::index_of(const Bucket* bucket) const {
  if (bucket < buckets_.data() || bucket >= buckets_.data() + buckets_.size()) return RADIOTOWER_NO_BUCKET;
  return static_cast<std::uint32_t>(bucket - buckets_.data());
}

FlowTable::FlowTable(const Program& program, const BucketPool& buckets)
    : program_(program), buckets_(buckets), slots_(program.slots()), directions_(program.directions()) {}

FlowId FlowTable::add(const Flow& flow, Time until, Time now) {
  if (!usable(flow)) return no_flow;
  const std::uint32_t bucket = flow.bucket ? buckets_.index_of(flow.bucket) : RADIOTOWER_NO_BUCKET;
  if (flow.bucket && bucket == RADIOTOWER_NO_BUCKET) return no_flow;

  const std::lock_guard lock(mutex_);
  std::uint32_t index = 0;
  const bool fresh = fresh_ < slots_.size();
  if (fresh)
    index = fresh_;
  else if (!resting_.empty() && now - resting_.front().since >= quarantine)
    index = resting_.front().index;
  else
    return no_flow;

  // The id last: a reader that has it sees all the rest.
  Slot& slot = slots_[index];
  slot.bucket = bucket;
  to_peer(index) = direction(path(flow.relay, flow.peer), flow.channel);
  to_client(index) = direction(path(flow.listener, flow.client), flow.channel);
  slot.generation = slot.generation + 1 == 0 ? 1 : slot.generation + 1;
  const FlowWord id = static_cast<FlowWord>(slot.generation) << 32 | index;
  shared(slot.until).store(until.time_since_epoch().count(), relaxed);
  shared(slot.id).store(id, std::memory_order_release);

  bool inserted = program_.insert(client_key(to_client(index)), id);
  if (inserted && !program_.insert(peer_key(to_peer(index)), id)) {
    program_.erase(client_key(to_client(index)));
    inserted = false;
  }
  // A slot whose first entry was there for a moment may be in a packet's hand: it rests like any other.
  if (fresh)
    ++fresh_;
  else
    resting_.pop_front();
  if (!inserted) {
    shared(slot.until).store(0, relaxed);
    shared(slot.id).store(0, relaxed);
    resting_.push_back({index, now});
    return no_flow;
  }
  ++size_;
  return id;
}

Slot* FlowTable::find(FlowId flow) const {
  const auto index = static_cast<std::uint32_t>(flow);
  if (flow == no_flow || index >= slots_.size()) return nullptr;
  Slot& slot = slots_[index];
  return shared(slot.id).load(std::memory_order_acquire) == flow ? &slot : nullptr;
}

void FlowTable::extend(FlowId flow, Time until) {
  // Should remove() come in between, the id is gone, and the moment in a free slot means nothing.
  if (Slot* slot = find(flow)) shared(slot->until).store(until.time_since_epoch().count(), relaxed);
}

Counts FlowTable::counts(FlowId flow) const {
  Slot* slot = find(flow);
  if (!slot) return {};
  Direction& out = to_peer(static_cast<std::uint32_t>(flow));
  Direction& back = to_client(static_cast<std::uint32_t>(flow));
  const Counts counts{shared(out.packets).load(relaxed), shared(out.bytes).load(relaxed),
                      shared(back.packets).load(relaxed), shared(back.bytes).load(relaxed),
                      shared(out.dropped).load(relaxed) + shared(back.dropped).load(relaxed)};
  return shared(slot->id).load(std::memory_order_acquire) == flow ? counts : Counts{};
}

Counts FlowTable::remove(FlowId flow, Time now) {
  const std::lock_guard lock(mutex_);
  Slot* slot = find(flow);
  if (!slot) return {};
  shared(slot->until).store(0, std::memory_order_release);
  program_.erase(client_key(to_client(static_cast<std::uint32_t>(flow))));
  program_.erase(peer_key(to_peer(static_cast<std::uint32_t>(flow))));
  const Counts last = counts(flow);
  shared(slot->id).store(0, std::memory_order_release);
  resting_.push_back({static_cast<std::uint32_t>(flow), now});
  --size_;
  return last;
}

std::size_t FlowTable::size() const {
  const std::lock_guard lock(mutex_);
  return size_;
}

}  // namespace radiotower::offload
