// Until when a connection may do what it does. A wheel of an eighth of a second a step: a connection stands where it is to be looked at next,
// and is moved when a deadline comes that is earlier; one that has become later is seen when it is looked at.
#include <algorithm>
#include <bit>

#include "stream_clients.h"

namespace radiotower::daemon {

namespace {

constexpr std::uint32_t none = StreamConnection::none;

}  // namespace

Time StreamClients::deadline(const Connection& c, End& reason) const {
  Time first = never;
  const auto until = [&](Time time, End end) {
    if (time < first) first = time, reason = end;
  };
  switch (c.stage) {
    case Stage::proxy_header:
    case Stage::handshake: until(c.since + limits_.handshake, End::slow_handshake); break;
    case Stage::first_byte: until(c.since + (c.tls_alone ? limits_.handshake : limits_.silence), End::silent); break;
    case Stage::open:
      if (!c.partial.empty()) until(c.message_began + limits_.message, End::slow_message);
      if (c.proved) until(c.heard + limits_.idle, End::idle);
      else until(c.heard + limits_.silence, End::silent);
      break;
    case Stage::draining:
    case Stage::leaving: until(c.drained_by, End::stalled); break;
    case Stage::joined:
    case Stage::ending:
    case Stage::closed: break;
  }
  if (c.blocked && c.stage != Stage::leaving) until(c.took + limits_.stall, End::stalled);
  return first;
}

void StreamClients::schedule(Connection& c) {
  End reason{};
  const Time at = deadline(c, reason);
  if (at >= c.looked_at) return;
  unschedule(c);
  // In the step after the one it falls into, so that it is never early; the farthest is looked at early, and once more.
  const std::int64_t last = wheel_at_ + static_cast<std::int64_t>(wheel_slots) - 1;
  const std::int64_t step = std::clamp<std::int64_t>(at.time_since_epoch() / wheel_step + 1, wheel_at_ + 1, last);
  c.looked_at = Time(step * wheel_step);
  c.slot = static_cast<std::uint32_t>(static_cast<std::size_t>(step) % wheel_slots);
  const std::uint32_t self = c.handle & index_mask;
  c.wheel_previous = none;
  c.wheel_next = wheel_[c.slot];
  if (c.wheel_next != none) slots_[c.wheel_next].connection->wheel_previous = self;
  wheel_[c.slot] = self;
  wheel_used_[c.slot / 64] |= std::uint64_t{1} << c.slot % 64;
}

void StreamClients::unschedule(Connection& c) {
  c.looked_at = never;
  if (c.slot == none) return;
  if (c.wheel_previous != none) slots_[c.wheel_previous].connection->wheel_next = c.wheel_next;
  else wheel_[c.slot] = c.wheel_next;
  if (c.wheel_next != none) slots_[c.wheel_next].connection->wheel_previous = c.wheel_previous;
  if (wheel_[c.slot] == none) wheel_used_[c.slot / 64] &= ~(std::uint64_t{1} << c.slot % 64);
  c.slot = none;
}

Time StreamClients::next_deadline() const {
  if (size_ == 0) return never;
  if (!backlog_.empty()) return Time{};
  for (std::size_t i = 1; i < wheel_slots;) {
    const std::size_t slot = static_cast<std::size_t>(wheel_at_ + static_cast<std::int64_t>(i)) % wheel_slots;
    const std::uint64_t word = wheel_used_[slot / 64] >> slot % 64;
    if (word == 0) {
      i += 64 - slot % 64;
      continue;
    }
    return Time((wheel_at_ + static_cast<std::int64_t>(i) + std::countr_zero(word)) * wheel_step);
  }
  return never;
}

void StreamClients::check_deadlines() {
  const Time now = above_.this_turn().steady;
  const std::int64_t step = now.time_since_epoch() / wheel_step;
  if (step <= wheel_at_) return;
  looking_.clear();
  const std::int64_t first = std::max(wheel_at_ + 1, step - static_cast<std::int64_t>(wheel_slots) + 1);
  for (std::int64_t s = first; s <= step && size_ != 0; ++s)
    for (std::uint32_t i = wheel_[static_cast<std::size_t>(s) % wheel_slots]; i != none; i = slots_[i].connection->wheel_next)
      looking_.push_back(slots_[i].connection->handle);
  wheel_at_ = step;
  for (const auto handle : looking_) {
    Connection& c = *find(handle);
    unschedule(c);
    End reason{};
    if (deadline(c, reason) > now) {
      schedule(c);
    } else if ((reason == End::idle || reason == End::silent) && c.stage == Stage::open && above_.has_allocation(c.five_tuple)) {
      c.heard = now;
      c.proved = true;
      schedule(c);
    } else {
      put_down(c, reason);
    }
  }
}

void StreamClients::enter_handshake(Connection& c) {
  if (c.young) return;
  c.young = true;
  c.young_next = none;
  c.young_previous = young_last_;
  const std::uint32_t self = c.handle & index_mask;
  if (young_last_ != none) slots_[young_last_].connection->young_next = self;
  else young_first_ = self;
  young_last_ = self;
  // T15: who came first has had the most time.
  if (++young_ > limits_.in_handshake) put_down(*slots_[young_first_].connection, End::crowded_out);
}

void StreamClients::leave_handshake(Connection& c) {
  if (!c.young) return;
  c.young = false;
  --young_;
  if (c.young_previous != none) slots_[c.young_previous].connection->young_next = c.young_next;
  else young_first_ = c.young_next;
  if (c.young_next != none) slots_[c.young_next].connection->young_previous = c.young_previous;
  else young_last_ = c.young_previous;
}

}  // namespace radiotower::daemon
