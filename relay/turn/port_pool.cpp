#include "radiotower/turn/port_pool.h"

#include <cassert>

namespace radiotower::turn {

PortPool::PortPool(std::uint16_t first, std::uint16_t last, RandomSource random) : random_(std::move(random)), state_(65536, State::none), place_(65536) {
  set_range(first, last);
}

void PortPool::set_range(std::uint16_t first, std::uint16_t last) {
  if (first == first_ && last == last_) return;
  first_ = first;
  last_ = last;
  free_.clear();
  free_.reserve(width());
  outside_ = 0;
  for (std::uint32_t i = 0; i < state_.size(); ++i) {
    const auto port = static_cast<std::uint16_t>(i);
    const bool is_held = state_[i] != State::none && state_[i] != State::free;
    if (is_held) outside_ += in_range(port) ? 0 : 1;
    else if (in_range(port)) make_free(port);
    else state_[i] = State::none;
  }
}

void PortPool::make_free(std::uint16_t port) {
  if (!in_range(port)) {
    state(port) = State::none;
    --outside_;
    return;
  }
  state(port) = State::free;
  place_[port] = static_cast<std::uint16_t>(free_.size());
  free_.push_back(port);
}

void PortPool::end_one_quarantine() {
  --quarantined_;
  make_free(waiting_.front().port);
  waiting_.pop_front();
}

void PortPool::take_from_free(std::uint16_t port, State next) {
  assert(state(port) == State::free);
  const std::uint16_t hole = place_[port];
  const std::uint16_t moved = free_.back();
  free_[hole] = moved;
  place_[moved] = hole;
  free_.pop_back();
  state(port) = next;
  ++(next == State::used ? used_ : reserved_);
}

void PortPool::end_quarantines(Time now) {
  while (!waiting_.empty() && waiting_.front().until <= now) end_one_quarantine();
}

std::optional<std::uint16_t> PortPool::take_any(Time now) {
  end_quarantines(now);
  if (width() == 0) return std::nullopt;
  while (free_.empty()) {  // dry: the one that has rested longest
    if (waiting_.empty()) return std::nullopt;
    end_one_quarantine();
  }
  const std::uint16_t port = free_[random_below(random_, static_cast<std::uint32_t>(free_.size()))];
  take_from_free(port, State::used);
  return port;
}

std::optional<std::uint16_t> PortPool::take_even_matching(Time now, bool pair) {
  end_quarantines(now);
  if (width() == 0) return std::nullopt;
  const auto fits = [&](std::uint16_t port) {
    return port % 2 == 0 && state(port) == State::free && (!pair || (port < last_ && state(static_cast<std::uint16_t>(port + 1)) == State::free));
  };
  for (int round = 0; round < 2; ++round) {
    // A few throws of the dice nearly always do; then a walk from a random place, so that a port there is is found.
    for (int i = 0; i < 32 && !free_.empty(); ++i) {
      const std::uint16_t port = free_[random_below(random_, static_cast<std::uint32_t>(free_.size()))];
      if (fits(port)) return port;
    }
    const auto start = random_below(random_, static_cast<std::uint32_t>(width()));
    for (std::size_t i = 0; i < width(); ++i) {
      const auto port = static_cast<std::uint16_t>(first_ + (start + i) % width());
      if (fits(port)) return port;
    }
    if (round == 0) {  // dry: what rests is better than nothing
      while (!waiting_.empty()) end_one_quarantine();
    }
  }
  return std::nullopt;
}

std::optional<std::uint16_t> PortPool::take_even(Time now) {
  const auto port = take_even_matching(now, false);
  if (port) take_from_free(*port, State::used);
  return port;
}

std::optional<std::uint16_t> PortPool::take_pair(Time now) {
  const auto port = take_even_matching(now, true);
  if (port) {
    take_from_free(*port, State::used);
    take_from_free(static_cast<std::uint16_t>(*port + 1), State::reserved);
  }
  return port;
}

bool PortPool::claim(std::uint16_t port) {
  if (state(port) != State::reserved) return false;
  state(port) = State::used;
  --reserved_;
  ++used_;
  return true;
}

void PortPool::release(std::uint16_t port, Time now) {
  const State was = state(port);
  assert(was == State::used || was == State::reserved);
  --(was == State::used ? used_ : reserved_);
  state(port) = State::quarantined;
  ++quarantined_;
  waiting_.push_back({port, now + quarantine});
}

}  // namespace radiotower::turn
