#include "connection_settings.h"

#include <algorithm>

namespace radiotower::daemon {

bool ConnectionCounts::enter(std::uint32_t limit) {
  if (total_.fetch_add(1, std::memory_order_relaxed) < (limit == 0 ? most_ : std::min<std::size_t>(limit, most_))) return true;
  leave();
  return false;
}

void ConnectionCounts::leave() { total_.fetch_sub(1, std::memory_order_relaxed); }

bool ConnectionCounts::enter(const net::IpAddress& source, std::uint32_t limit) {
  const std::lock_guard lock(mutex_);
  std::uint32_t& count = sources_[source.as_source()];
  if (limit != 0 && count >= limit) return false;
  ++count;
  return true;
}

void ConnectionCounts::leave(const net::IpAddress& source) {
  const std::lock_guard lock(mutex_);
  const auto found = sources_.find(source.as_source());
  if (found != sources_.end() && --found->second == 0) sources_.erase(found);
}

std::size_t ConnectionCounts::sources() const {
  const std::lock_guard lock(mutex_);
  return sources_.size();
}

}  // namespace radiotower::daemon
