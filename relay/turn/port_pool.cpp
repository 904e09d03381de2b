#include "radiotower/turn/port_pool.h"

#include <cassert>

namespace radiotower::turn {

PortPool::PortPool(std::uint16_t first, std::uint16_t last, RandomSource random)
    : first_(first), last_(last), random_(std::move(random)), state_(range(), State::free), place_(range()) {
  free_.reserve(range());
  for (std::size_t i = 0; i < range(); ++i) {
    place_[i] = static_cast<std::uint16_t>(i);
    free_.push_back(static_cast<std::uint16_t>(first + i));
  }
}

void PortPool::make_free(std::uint16_t port) {
  state(port) = State::free;
  place_[port - first_] = static_cast<std::uint16_t>(free_.size());
  free_.push_back(port);
}

void PortPool::take_from_free(std::uint16_t port, State next) {
  assert(state(port) == State::free);
  const std::uint16_t hole = place_[port - first_];
  const std::uint16_t moved = free_.back();
  free_[hole] = moved;
  place_[moved - first_] = hole;
  free_.pop_back();
  state(port) = next;
  ++(next == State::used ? used_ : reserved_);
}

void PortPool::end_quarantines(Time now) {
  while (!waiting_.empty() && waiting_.front().until <= now) {
    --quarantined_;
    make_free(waiting_.front().port);
    waiting_.pop_front();
  }
}

std::optional<std::uint16_t> PortPool::take_any(Time now) {
  end_quarantines(now);
  if (free_.empty()) {
    if (waiting_.empty()) return std::nullopt;
    --quarantined_;  // dry: the one that has rested longest
    make_free(waiting_.front().port);
    waiting_.pop_front();
  }
  const std::uint16_t port = free_[random_below(random_, static_cast<std::uint32_t>(free_.size()))];
  take_from_free(port, State::used);
  return port;
}

std::optional<std::uint16_t> PortPool::take_even_matching(Time now, bool pair) {
  end_quarantines(now);
  const auto fits = [&](std::uint16_t port) {
    return port % 2 == 0 && state(port) == State::free && (!pair || (port < last_ && state(static_cast<std::uint16_t>(port + 1)) == State::free));
  };
  for (int round = 0; round < 2; ++round) {
    // A few throws of the dice nearly always do; then a walk from a random place, so that a port there is is found.
    for (int i = 0; i < 32 && !free_.empty(); ++i) {
      const std::uint16_t port = free_[random_below(random_, static_cast<std::uint32_t>(free_.size()))];
      if (fits(port)) return port;
    }
    const auto start = random_below(random_, static_cast<std::uint32_t>(range()));
    for (std::size_t i = 0; i < range(); ++i) {
      const auto port = static_cast<std::uint16_t>(first_ + (start + i) % range());
      if (fits(port)) return port;
    }
    if (round == 0) {  // dry: what rests is better than nothing
      while (!waiting_.empty()) {
        --quarantined_;
        make_free(waiting_.front().port);
        waiting_.pop_front();
      }
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
  if (port < first_ || port > last_ || state(port) != State::reserved) return false;
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
