#include "fast_path.h"

#include <type_traits>
#include <utility>

#include <fmt/format.h>

namespace radiotower::daemon {

namespace {

turn::ShortcutCounts counts_of(const offload::Counts& c) {
  return {c.packets_to_peer, c.bytes_to_peer, c.packets_to_client, c.bytes_to_client, c.dropped_over_limit};
}

}  // namespace

static_assert(turn::no_shortcut == offload::no_flow && std::is_same_v<turn::ShortcutId, offload::FlowId>,
              "a shortcut's id is its flow's");

FastPath::FastPath(std::unique_ptr<offload::Offload> offload, std::function<void()> wake)
    : offload_(std::move(offload)), wake_(std::move(wake)) {}

turn::ShortcutId FastPath::give(const turn::Shortcut& s, Time until) {
  const offload::FlowId flow =
      offload_->add({s.five_tuple.client, s.five_tuple.server, s.relay, s.peer, s.channel, s.bucket}, until);
  if (flow != offload::no_flow && !beating_.exchange(true)) wake_();
  return flow;
}

void FastPath::move(turn::ShortcutId shortcut, Time until) { offload_->extend(shortcut, until); }
turn::ShortcutCounts FastPath::counts(turn::ShortcutId shortcut) { return counts_of(offload_->counts(shortcut)); }
turn::ShortcutCounts FastPath::take_back(turn::ShortcutId shortcut) { return counts_of(offload_->remove(shortcut)); }

void FastPath::beat(Time now, bool workers_alive) {
  if (!beating_.load() || (next_beat_ != never && now < next_beat_)) return;
  if (offload_->flows() == 0) {
    // Looked at again after the flag is down: a flow that comes in between is either seen here or finds the flag down
    // and wakes us.
    next_beat_ = never;
    beating_.store(false);
    if (offload_->flows() == 0) return;
    beating_.store(true);
  }
  if (workers_alive) offload_->keep_alive(now + beat_lasts);
  next_beat_ = now + beat_interval;
}

std::string FastPath::interfaces() const {
  std::string text;
  for (const auto& interface : offload_->attached())
    text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", interface.name, interface.native ? "native" : "generic");
  return text;
}

}  // namespace radiotower::daemon
