#include "flood.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace radiotower::daemon {

namespace {

std::uint64_t a_second(std::uint64_t count, nanoseconds in) {
  return in.count() <= 0 ? 0 : static_cast<std::uint64_t>(static_cast<double>(count) * 1e9 / static_cast<double>(in.count()));
}

}  // namespace

FloodWatch::Change FloodWatch::after_turn(Time now, std::uint64_t strangers, std::uint64_t kept_out) {
  // Who they are is asked only when a turn has brought more of them than a quiet day does. A window begins with the last quiet turn.
  listening_ = up_ || strangers - turn_strangers_ > 32;
  turn_strangers_ = strangers;
  if (!listening_) {
    start_window(now, strangers, kept_out);
    return Change::none;
  }
  const nanoseconds window = now - window_;
  if (window < (up_ ? until_next_look(now) : first_look)) return Change::none;
  const std::uint64_t count = strangers - strangers_, out = kept_out - kept_out_;
  rate_ = a_second(count, window);
  const std::uint64_t with_those_kept_out = rate_ + a_second(out, window);

  if (!up_) {
    const bool flood = raise(now, count, window);
    start_window(now, strangers, kept_out);
    return flood ? Change::raise : Change::none;
  }

  if (with_those_kept_out >= calm_rate) busy_at_ = now;
  if (now - busy_at_ >= calm) {
    up_ = listening_ = false;
    share_ = 1;
    start_window(now, strangers, kept_out);
    return Change::lower;
  }
  settle_share(share_, count, window);
  start_window(now, strangers, kept_out);
  return Change::renew;  // in any case: clients that have come since are to be known
}

FloodWatch::Change FloodWatch::amid_turn(Time now, Time turn, std::uint64_t strangers, std::uint64_t kept_out) {
  if (!is_sudden(strangers)) return Change::none;
  const std::uint64_t count = strangers - turn_strangers_;
  turn_strangers_ = strangers;
  if (!raise(now, count, now - turn)) return Change::none;
  listening_ = true;
  start_window(now, strangers, kept_out);
  return Change::raise;
}

bool FloodWatch::raise(Time now, std::uint64_t count, nanoseconds window) {
  rate_ = a_second(count, window);
  if (count < flood_at_least || rate_ < flood_rate) return false;
  up_ = true;
  raised_at_ = busy_at_ = now;
  suspects_.clear();
  settle_share(1, count, window);
  return true;
}

FloodWatch::Sample& FloodWatch::sample_of(const net::IpAddress& ip) {
  std::uint64_t halves[2];
  std::memcpy(halves, ip.bytes.data(), sizeof halves);
  return samples_[((halves[0] ^ halves[1]) * 0x9E3779B97F4A7C15u) >> 56];
}

void FloodWatch::saw(const net::IpAddress& source, std::uint64_t datagrams) {
  const net::IpAddress ip = source.as_source();
  seen_ += datagrams;
  Sample& sample = sample_of(ip);
  if (sample.ip == ip || sample.datagrams == 0) {
    sample.ip = ip;
    sample.datagrams += datagrams;
  } else if (sample.datagrams <= datagrams) {
    sample = {ip, datagrams - sample.datagrams};
  } else {
    sample.datagrams -= datagrams;
  }
}

/// Finds whom to suspect, and lets of the others in what there is room for. What suspects have sent in this window does not count: the gate
/// keeps it out from now on.
void FloodWatch::settle_share(double share, std::uint64_t count, nanoseconds window) {
  std::uint64_t of_suspects = 0;
  for (const Sample& sample : samples_) {
    if (sample.datagrams == 0) continue;
    bool suspected = std::find(suspects_.begin(), suspects_.end(), sample.ip) != suspects_.end();
    if (!suspected && sample.datagrams >= 16 && a_second(sample.datagrams, window) >= suspect_rate && suspects_.size() < most_suspects) {
      suspects_.push_back(sample.ip);
      suspected = true;
    }
    if (suspected) of_suspects += sample.datagrams;
  }
  // Those of the window's first turn came before anybody listened: taken to be from the same senders as the rest.
  const double others = seen_ == 0 ? 1 : 1 - std::min(1.0, static_cast<double>(of_suspects) / static_cast<double>(seen_));
  const auto rest = static_cast<std::uint64_t>(static_cast<double>(a_second(count, window)) * others);
  // By eight at once when it grows: what comes in meanwhile is bounded by that, and the next look is near.
  share_ = std::clamp(share * static_cast<double>(wanted_rate) / static_cast<double>(std::max(rest, wanted_rate / 8)), 1e-4, 1.0);
}

void FloodWatch::start_window(Time now, std::uint64_t strangers, std::uint64_t kept_out) {
  window_ = now;
  strangers_ = strangers;
  kept_out_ = kept_out;
  if (std::exchange(seen_, 0) != 0)
    for (Sample& sample : samples_) sample.datagrams = 0;
}

}  // namespace radiotower::daemon
