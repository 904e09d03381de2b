// Of Control: relay addresses that come and go, and external ones that change, by a reload or by themselves.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "clock.h"
#include "control.h"

namespace radiotower::daemon {

namespace {

constexpr nanoseconds held_interval = std::chrono::seconds(1);

const turn::RelayAddress* find(const std::vector<turn::RelayAddress>& addresses, const net::IpAddress& local) {
  const auto found = std::find_if(addresses.begin(), addresses.end(), [&](const auto& a) { return a.local == local; });
  return found == addresses.end() ? nullptr : &*found;
}

/// Those of `these` that `others` lack.
std::string only_in(const std::vector<turn::RelayAddress>& these, const std::vector<turn::RelayAddress>& others) {
  std::string text;
  for (const auto& a : these)
    if (!find(others, a.local)) text.append(text.empty() ? "" : " ").append(a.local.text());
  return text;
}

}  // namespace

/// What operators look for when a call was cut: said where an address, an external form or the range of ports has changed.
void Control::tell_addresses(const turn::Settings& before, const turn::Settings& now) {
  const auto& old = before.relay_addresses;
  const auto& fresh = now.relay_addresses;
  const std::string came = only_in(fresh, old), went = only_in(old, fresh);
  if (!came.empty() || !went.empty()) {
    std::size_t held = 0;
    for (const auto& a : old)
      if (!find(fresh, a.local)) held += relay_.shared().ports_held(a.local);
    const std::string sentence = held == 0 ? "" : "allocations on what went are kept until they run out, in case it comes back";
    log_.write(Priority::notice, "relay addresses changed", sentence,
               {Field::if_any("came", std::string_view(came)), Field::if_any("went", std::string_view(went)), Field::if_any("ports_held", std::uint64_t{held})});
    // The list of the XDP program is of the start.
    if (relay_.fast_path() && !came.empty())
      log_.write(Priority::notice, "offload", fmt::format("calls on {} are relayed by user space until the next restart", came));
  }
  for (const auto& a : fresh) {
    const turn::RelayAddress* was = find(old, a.local);
    const net::IpAddress& from = was ? was->external : a.local;
    if (a.external == from) continue;
    log_.write(Priority::notice, "external address changed", fmt::format("{} -> {}; what clients were told before stays valid for them", from.text(), a.external.text()),
               {{"local", a.local.text()}});
  }
  if (before.first_port != now.first_port || before.last_port != now.last_port)
    log_.write(Priority::notice, "relay ports changed", fmt::format("{}-{} -> {}-{}; live allocations keep theirs", before.first_port, before.last_port, now.first_port, now.last_port));
}

/// Settings that are good become those in force.
void Control::put_in_force(NextSettings next) {
  const auto before = configured_;
  configured_ = next.settings;
  if (draining_) {
    auto settings = std::make_shared<turn::Settings>(*configured_);
    settings->draining = true;
    next.settings = std::move(settings);
  }
  relay_.apply(std::move(next.settings), std::move(next.connections));
  tell_addresses(*before, *configured_);
}

/// The host's addresses or the external one may have changed. Not a reload: nothing is read, and nothing is said where nothing has changed.
void Control::follow_addresses(Time now) {
  if (now - held_looked_at_ >= held_interval) {
    held_looked_at_ = now;
    if (relay_.holds_less()) apply_drain();  // an address that nobody has any more is not guarded any more
  }
  if (!addresses_ || !addresses_->due(now)) return;
  std::vector<std::string> errors;
  auto next = addresses_->rebuild(errors);
  for (const auto& error : errors)
    log_.write(Priority::error, "addresses changed", fmt::format("{}; the relay goes on with those it had", error));
  if (!next) return;
  // "Every address of the host" is meant of listeners too. One that cannot be opened keeps no relay address from coming or going.
  std::string why;
  const bool listens = relay_.open_listeners({next->listeners, next->dtls, next->tcp, next->tls}, why);
  if (!listens)
    log_.write(Priority::error, "addresses changed", fmt::format("{}; the relay goes on with the listeners it had", why));
  put_in_force(std::move(*next));
  if (listens)
    for (const auto& change : relay_.listener_changes()) log_.write(Priority::notice, "changed", change);
  update_standing();
}

}  // namespace radiotower::daemon
