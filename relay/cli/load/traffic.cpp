#include "traffic.h"

#include <netinet/udp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "measures.h"

namespace radiotower::load {
namespace {

constexpr std::uint32_t batch = 32;  // messages sent before the receiving sockets are looked at
constexpr std::uint32_t receive_batch = 64;
constexpr std::uint32_t least_looks = 8;  // at clients' sockets in one turn
constexpr std::int64_t longest_spin = 20'000;
constexpr std::int64_t longest_await =
    100'000'000;  // a packet that takes longer is found by the look at all sockets in turn
constexpr std::int64_t quiet = 50'000'000, longest_emptying = 2'000'000'000;
constexpr std::int64_t progress_interval = 200'000'000;

// 0: the message is one datagram.
std::size_t segment_size(msghdr& message) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    int size = 0;
    if (c->cmsg_level != SOL_UDP || c->cmsg_type != UDP_GRO) continue;
    std::memcpy(&size, CMSG_DATA(c), sizeof size);
    return static_cast<std::size_t>(size);
  }
  return 0;
}

}  // namespace

void TrafficResult::merge(const TrafficResult& o) {
  sent += o.sent;
  delivered += o.delivered;
  arrived += o.arrived;
  wrong += o.wrong;
  send_errors += o.send_errors;
  own_drops += o.own_drops;
  elapsed_ns += o.elapsed_ns;
  server_cpu_ns += o.server_cpu_ns;
  load_cpu_ns += o.load_cpu_ns;
  machine_cpu_ns += o.machine_cpu_ns;
  softirq_cpu_ns += o.softirq_cpu_ns;
  latency.merge(o.latency);
  lateness.merge(o.lateness);
}

// Calls recvmmsg once and hands on each datagram. Messages are laid out once; what a call has changed is put back.
struct Traffic::Receiver {
  explicit Receiver(std::size_t size) : buffers(size * receive_batch) {
    for (std::uint32_t i = 0; i < receive_batch; ++i) {
      parts[i] = {buffers.data() + i * size, size};
      msghdr& m = messages[i].msg_hdr;
      m = {};
      m.msg_name = &sources[i].value;
      m.msg_iov = &parts[i];
      m.msg_iovlen = 1;
      m.msg_control = controls[i].bytes.data();
    }
    reset(receive_batch);
  }
  void reset(std::uint32_t used) {
    for (std::uint32_t i = 0; i < used; ++i) {
      messages[i].msg_hdr.msg_namelen = sizeof sources[i].value;
      messages[i].msg_hdr.msg_controllen = sizeof controls[i].bytes;
    }
  }
  template <typename Take>
  std::uint32_t receive(int socket, Take&& take) {
    const int n = recvmmsg(socket, messages.data(), receive_batch, MSG_DONTWAIT, nullptr);
    if (n <= 0) return 0;
    std::uint32_t datagrams = 0;
    for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(n); ++i) {
      Bytes all(static_cast<const std::uint8_t*>(parts[i].iov_base), messages[i].msg_len);
      const std::size_t cut = segment_size(messages[i].msg_hdr);
      do {
        const std::size_t size = cut == 0 ? all.size() : std::min(cut, all.size());
        take(all.first(size), sources[i]);
        ++datagrams;
        all = all.subspan(size);
      } while (!all.empty());
    }
    reset(static_cast<std::uint32_t>(n));
    return datagrams;
  }
  std::vector<std::uint8_t> buffers;
  std::array<mmsghdr, receive_batch> messages;
  std::array<iovec, receive_batch> parts;
  std::array<Name, receive_batch> sources;
  std::array<Control, receive_batch> controls;
};

Traffic::Traffic(Sessions& sessions)
    : sessions_(sessions),
      up_(-1, sessions.framing(), payload_),
      sessions_of_peer_(sessions.peers.size()),
      next_of_peer_(sessions.peers.size()),
      ring_(sessions.sessions.size()),
      awaited_(sessions.sessions.size()),
      awaited_since_(sessions.sessions.size()),
      receiver_(std::make_unique<Receiver>(sessions.options().receive_trains ? 65536 : 2048)) {
  for (int peer : sessions.peers) down_.emplace_back(peer, sessions.framing(), payload_);
}

Traffic::~Traffic() = default;

void Traffic::flush(Outbox& box) {
  const Outbox::Sent sent = box.flush();
  result_.sent += sent.packets;
  result_.send_errors += sent.failed;
}

void Traffic::send_up(std::uint32_t session, std::uint32_t packets, std::uint32_t size) {
  const Session& s = sessions_.sessions[session];
  up_.set_socket(s.socket);
  const Stamp stamp{.session = session,
                    .sent_at = steady_ns(),
                    .run = is_counting_ ? run_ : warm_run_,
                    .size = static_cast<std::uint16_t>(size),
                    .direction = Direction::up};
  for (std::uint32_t i = 0; i < packets; ++i) {
    if (up_.is_full()) flush(up_);
    up_.add(stamp, nullptr, &sessions_.peer_addresses[s.peer], i % plan_.train != 0);
  }
  flush(up_);
}

// Of one peer's sessions many may wait in its outbox: it is one socket, and one call sends them all.
void Traffic::send_down(std::uint32_t session, std::uint32_t packets, std::uint32_t size) {
  const Session& s = sessions_.sessions[session];
  Outbox& box = down_[s.peer];
  const Stamp stamp{.session = session,
                    .sent_at = steady_ns(),
                    .run = is_counting_ ? run_ : warm_run_,
                    .size = static_cast<std::uint16_t>(size),
                    .direction = Direction::down};
  for (std::uint32_t i = 0; i < packets; ++i) {
    if (box.is_full()) flush(box);
    box.add(stamp, &s.relayed, nullptr, i % plan_.train != 0);
  }
  await(session, packets);
}

void Traffic::await(std::uint32_t session, std::uint32_t packets) {
  if (awaited_[session] == 0) ring_[(ring_head_ + ring_count_++) % ring_.size()] = session;
  awaited_[session] += packets;
  awaited_since_[session] = now_;
}

std::uint32_t Traffic::send_due(std::int64_t since_start) {
  std::uint32_t events = 0;
  for (Line& line : lines_) {
    for (std::uint32_t i = 0; i < batch && line.next.at <= since_start; ++i) {
      if (line.stream.direction == Direction::up)
        send_up(line.next.session, line.next.packets, line.stream.size);
      else
        send_down(line.next.session, line.next.packets, line.stream.size);
      if (is_counting_) result_.lateness.add(since_start - line.next.at);
      line.next = line.stream.event(++line.number);
      ++events;
    }
  }
  return events;
}

std::uint32_t Traffic::send_all_we_can() {
  const bool is_up = plan_.ways == Ways::up || (plan_.ways == Ways::both && is_up_turn_);
  is_up_turn_ = !is_up_turn_;
  if (is_up) {
    for (std::uint32_t i = 0; i < batch; ++i) {
      send_up(next_up_, plan_.train, plan_.size);
      next_up_ = next_up_ + 1 == sessions_.sessions.size() ? 0 : next_up_ + 1;
    }
    return batch;
  }
  const std::uint32_t peer = next_down_;  // one after the other, so that a batch is one call
  next_down_ = next_down_ + 1 == sessions_.peers.size() ? 0 : next_down_ + 1;
  const auto& own = sessions_of_peer_[peer];
  for (std::uint32_t i = 0; i < batch && !own.empty(); ++i) {
    send_down(own[next_of_peer_[peer]], plan_.train, plan_.size);
    next_of_peer_[peer] = next_of_peer_[peer] + 1 == own.size() ? 0 : next_of_peer_[peer] + 1;
  }
  return batch;
}

void Traffic::take(Bytes payload, Direction direction, std::uint32_t at, const Name& source, std::int64_t now) {
  Stamp stamp;
  const bool whole =
      payload_.read(payload, stamp) && stamp.session < sessions_.sessions.size() && stamp.direction == direction;
  if (whole && stamp.run != run_ && stamp.run != warm_run_) return;
  bool is_right = whole;
  if (whole && direction == Direction::up) {
    const Session& s = sessions_.sessions[stamp.session];
    is_right = s.peer == at && s.relayed.is_same(source);
  } else if (whole) {
    is_right = stamp.session == at;
  }
  if (!is_right) {
    ++result_.wrong;
    return;
  }
  if (is_counting_) ++result_.delivered;
  if (stamp.run != run_) return;
  ++result_.arrived;
  result_.latency.add(now - stamp.sent_at);
}

std::uint32_t Traffic::receive_at_peers() {
  std::uint32_t datagrams = 0;
  for (std::uint32_t p = 0; p < sessions_.peers.size(); ++p) {
    std::int64_t now = 0;
    datagrams += receiver_->receive(sessions_.peers[p], [&](Bytes datagram, const Name& source) {
      if (now == 0) now = steady_ns();
      take(datagram, Direction::up, p, source, now);
    });
  }
  return datagrams;
}

std::uint32_t Traffic::receive_at_client(std::uint32_t session) {
  std::int64_t now = 0;
  const Session& s = sessions_.sessions[session];
  return receiver_->receive(s.socket, [&](Bytes datagram, const Name& source) {
    if (now == 0) now = steady_ns();
    const auto payload = sessions_.framing().unwrap(datagram, sessions_.peer_addresses[s.peer]);
    take(payload.value_or(Bytes{}), Direction::down, session, source, now);
  });
}

std::uint32_t Traffic::receive_awaited(std::uint32_t budget) {
  std::uint32_t all = 0;
  for (std::size_t looks = std::min<std::size_t>(budget, ring_count_); looks > 0; --looks) {
    const std::uint32_t session = ring_[ring_head_];
    ring_head_ = (ring_head_ + 1) % ring_.size();
    --ring_count_;
    const std::uint32_t got = receive_at_client(session);
    all += got;
    awaited_[session] -= std::min(got, awaited_[session]);
    if (got > 0) awaited_since_[session] = now_;
    if (now_ - awaited_since_[session] > longest_await) awaited_[session] = 0;  // lost
    if (awaited_[session] > 0) ring_[(ring_head_ + ring_count_++) % ring_.size()] = session;
  }
  const std::uint32_t other = next_looked_at_;
  next_looked_at_ = other + 1 == sessions_.sessions.size() ? 0 : other + 1;
  return all + receive_at_client(other);
}

std::uint32_t Traffic::receive(std::uint32_t sent) {
  std::uint32_t received = 0;
  if (sends_up_) received += receive_at_peers();
  if (sends_down_) received += receive_awaited(std::max(sent, least_looks));
  return received;
}

// What an overloaded server still holds would be counted in nobody's favour by the next run.
void Traffic::empty_queues() {
  const std::int64_t ended = steady_ns();
  for (std::int64_t last = ended, t = ended; t - last < quiet && t - ended < longest_emptying; t = steady_ns()) {
    std::uint32_t received = sends_up_ ? receive_at_peers() : 0;
    if (sends_down_)
      for (std::uint32_t i = 0; i < sessions_.sessions.size(); ++i) received += receive_at_client(i);
    if (received > 0) last = t;
  }
  std::fill(awaited_.begin(), awaited_.end(), 0);
  ring_count_ = 0;
}

TrafficResult Traffic::run(const Plan& plan, const Progress& progress) {
  plan_ = plan;
  run_ += 2;
  warm_run_ = run_ - 1;
  next_up_ = next_down_ = 0;
  for (auto& own : sessions_of_peer_) own.clear();
  for (std::uint32_t i = 0; i < sessions_.sessions.size(); ++i)
    sessions_of_peer_[sessions_.sessions[i].peer].push_back(i);
  std::fill(next_of_peer_.begin(), next_of_peer_.end(), 0);
  lines_.clear();
  for (const Stream& s : plan.schedule) lines_.push_back({s, 0, s.event(0)});
  const bool saturates = lines_.empty();
  sends_up_ = saturates && plan.ways != Ways::down;
  sends_down_ = saturates && plan.ways != Ways::up;
  for (const Line& line : lines_) (line.stream.direction == Direction::up ? sends_up_ : sends_down_) = true;

  result_ = {};
  is_counting_ = false;
  const pid_t server = sessions_.options().server_pid;
  std::int64_t idle = 0, server_cpu = 0, load_cpu = 0, machine_cpu = 0, softirq_cpu = 0;
  std::uint64_t drops = 0;
  const std::int64_t start = steady_ns(), opens = start + static_cast<std::int64_t>(plan.warm_up * 1e9),
                     closes = opens + static_cast<std::int64_t>(plan.seconds * 1e9);
  std::int64_t opened = start, told = start;
  now_ = start;
  while (now_ < closes) {
    if (!is_counting_ && now_ >= opens) {
      is_counting_ = true;
      result_ = {};
      idle = 0;
      drops = sessions_.own_drops();
      machine_cpu = machine_busy_ns();
      softirq_cpu = softirq_threads_cpu_ns();
      load_cpu = own_thread_cpu_ns();
      server_cpu = process_cpu_ns(server);
      opened = told = steady_ns();
    }
    const std::uint32_t sent = saturates ? send_all_we_can() : send_due(now_ - start);
    if (sends_down_ && sent > 0)
      for (Outbox& box : down_)
        if (!box.empty()) flush(box);
    const std::uint32_t received = receive(sent);
    if (progress && is_counting_ && now_ - told >= progress_interval) {
      told = now_;
      progress(static_cast<double>(now_ - opened) * 1e-9, result_);
    }
    const std::int64_t then = steady_ns();
    // A turn that took longer was not spinning: another program had the core.
    if (sent == 0 && received == 0) idle += std::min(then - now_, longest_spin);
    now_ = then;
  }
  const std::int64_t elapsed = steady_ns() - opened;
  const std::int64_t server_took = process_cpu_ns(server) - server_cpu;
  const std::int64_t load_took = own_thread_cpu_ns() - load_cpu - idle;
  const std::int64_t machine_took = machine_busy_ns() - machine_cpu - idle;
  const std::int64_t softirq_took = softirq_threads_cpu_ns() - softirq_cpu;
  is_counting_ = false;
  empty_queues();
  TrafficResult result = result_;
  result.elapsed_ns = elapsed;
  result.server_cpu_ns = server_took;
  result.load_cpu_ns = load_took;
  result.machine_cpu_ns = machine_took;
  result.softirq_cpu_ns = softirq_took;
  result.own_drops = sessions_.own_drops() - drops;
  return result;
}

SearchResult search(Traffic& traffic, Plan plan, double first_rate,
                    const std::function<void(double rate, const TrafficResult&)>& told) {
  constexpr double factor = 1.6, precise_enough = 1.04;
  constexpr unsigned max_steps = 24;
  constexpr std::int64_t useless =
      200'000'000;  // what a buffer has held for longer helps no call, and will overflow it soon
  SearchResult result;
  const Schedule as_given = plan.schedule;
  // Twice when the first time too many are lost: another program may have had the core for a moment.
  const auto holds = [&](double rate) {
    for (int attempt = 0; attempt < 2; ++attempt) {
      plan.schedule = as_given;
      stretch(plan.schedule, rate);
      const TrafficResult r = traffic.run(plan);
      ++result.steps;
      if (told) told(rate, r);
      const double sent = static_cast<double>(r.sent + r.send_errors) * 1e9 / static_cast<double>(r.elapsed_ns);
      if (sent < 0.95 * rate) {
        result.load_bound = true;
        return false;
      }
      if (r.loss() > tolerated_loss || r.send_errors > r.sent / 1000) continue;
      if (r.latency.percentile(1 - tolerated_loss) > useless) continue;
      result.load_bound = false;
      result.rate = rate;
      result.best = r;
      return true;
    }
    result.load_bound = false;
    return false;
  };
  double good = 0, bad = 0;
  for (double rate = first_rate; bad == 0 && result.steps < max_steps; rate *= factor)
    (holds(rate) ? good : bad) = rate;
  for (double low = first_rate / 2; good == 0 && low > 100 && result.steps < max_steps; low /= 2)
    (holds(low) ? good : bad) = low;
  bool is_bound = result.load_bound;
  while (bad > good * precise_enough && good > 0 && result.steps < max_steps) {
    const double rate = (good + bad) / 2;
    (holds(rate) ? good : bad) = rate;
    if (bad == rate) is_bound = result.load_bound;
  }
  result.load_bound = is_bound;
  return result;
}

}  // namespace radiotower::load
