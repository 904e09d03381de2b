// Of a Worker: what it makes of a flood (flood.h), and the gate before its listeners (../io/gate.h).
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "../io/gate.h"
#include "clock.h"
#include "worker.h"

namespace radiotower::daemon {

void Worker::watch_for_floods() {
  const Now now = this_turn();
  if (flood_.wants_drops(now.steady))
    for (const io::SocketId id : listener_ids_) loop_->kernel_drops(id);
  carry_out(flood_.after_turn(now.steady, strangers(), loop_->counters().kernel_drops));
}

std::uint64_t Worker::strangers() const { return server_->counters().strangers() - stream_strangers_ + dropped_retired_ + (dtls_ ? dtls_->counters().strangers() : 0); }

void Worker::note_strangers(const net::IpAddress& source, std::uint64_t datagrams) {
  if (datagrams == 0) return;
  flood_.saw(source, datagrams);
  const std::uint64_t all = strangers();
  if (!flood_.is_sudden(all)) return;
  // The turn keeps its one time; how long it has taken so far is this question's alone.
  carry_out(flood_.amid_turn(steady_now(), now_.steady, all, loop_->counters().kernel_drops));
}

void Worker::carry_out(FloodWatch::Change change) {
  const Time now = now_.steady;
  switch (change) {
    case FloodWatch::Change::none: return;
    case FloodWatch::Change::renew: return set_gate(true);
    case FloodWatch::Change::raise: {
      kept_out_ = loop_->counters().kernel_drops;
      set_gate(true);
      std::uint64_t suppressed = 0;
      if (!floods_.admit({}, now, suppressed)) return;
      std::string from;
      for (const auto& ip : flood_.suspects()) {
        if (from.size() > 200) break;
        from.append(from.empty() ? "" : " ").append(ip.text());
      }
      world_.log.write(Priority::warning, "flood",
                       fmt::format("{} datagrams a second that belong to no allocation; known clients pass, new ones as far as there is room", flood_.rate()),
                       {{"worker", options_.number}, {"kept_out", from.empty() ? "nobody by address" : from}, Field::if_any("suppressed", suppressed)});
      return;
    }
    case FloodWatch::Change::lower: {
      set_gate(false);
      std::uint64_t suppressed = 0;
      if (!floods_.admit(as_bytes("over"), now, suppressed)) return;
      world_.log.write(Priority::notice, "flood over", "",
                       {{"worker", options_.number},
                        {"seconds", static_cast<std::uint64_t>(std::chrono::duration_cast<seconds>(now - flood_.raised_at()).count())},
                        {"datagrams_kept_out", loop_->counters().kernel_drops - kept_out_}, Field::if_any("suppressed", suppressed)});
      return;
    }
  }
}

/// On the control path: at most twenty times a second, and only while there is a flood.
void Worker::set_gate(bool up) {
  if (gate_bits_ == 0) return;
  for (const net::Family family : {net::Family::ipv4, net::Family::ipv6}) {
    if (std::none_of(listeners_.begin(), listeners_.end(), [&](const Listener& l) { return l.address.family() == family; })) continue;
    int error = ENOMEM;
    while (error == ENOMEM && gate_bits_ != 0) {
      std::vector<io::FilterInstruction> program;
      if (up) {
        io::Gate gate(family, gate_key_, gate_bits_);
        server_->for_each_client([&](const net::FiveTuple& five_tuple) { gate.know(five_tuple.client); });
        moved_->for_each_passed_on([&](const net::FiveTuple& five_tuple) { gate.know(five_tuple.client); });
        if (dtls_) dtls_->for_each_client([&](const net::TransportAddress& client) { gate.know(client); });
        for (const auto& ip : flood_.suspects()) gate.suspect(ip);
        program = gate.program(flood_.share());
      }
      error = 0;
      for (std::size_t i = 0; i < listeners_.size() && error == 0; ++i)
        if (listener_ids_[i] != io::no_socket && listeners_[i].address.family() == family) error = loop_->set_filter(listener_ids_[i], program);
      if (error == ENOMEM) gate_bits_ = gate_bits_ > io::Gate::fewest_bits ? gate_bits_ - 1 : 0;  // net.core.optmem_max
    }
    if (error == 0) continue;
    gate_bits_ = 0;
    world_.log.write(Priority::warning, "no gate", fmt::format("the kernel takes no filter on a listener: {}; a flood may cost calls their packets", std::strerror(error)),
                     {{"worker", options_.number}});
    return;
  }
}

}  // namespace radiotower::daemon
