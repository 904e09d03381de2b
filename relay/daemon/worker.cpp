#include "worker.h"

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <exception>
#include <utility>

#include <fmt/format.h>

#include "../io/gate.h"
#include "clock.h"

namespace radiotower::daemon {

namespace {

using namespace std::chrono_literals;
using turn::Event;

constexpr int peers_at_once = 64;  // backlog of a relayed address of TCP
constexpr nanoseconds longest_turn = 1s;
constexpr seconds log_window{10};
constexpr std::size_t most_ended_at_once = 64;  // answers that there is room for when things run out; what is due beyond waits for the next turn
constexpr std::size_t most_mail = 1024;  // datagrams that other workers have passed on and nobody has looked at

HashKey random_key(const RandomSource& random) {
  HashKey key;
  random({reinterpret_cast<std::uint8_t*>(&key), sizeof key});
  return key;
}

}  // namespace

Worker::Worker(WorkerOptions options, std::vector<Listener> listeners, WorkerWorld world, std::vector<Listener> acceptors)
    : options_(std::move(options)),
      world_(std::move(world)),
      listeners_(std::move(listeners)),
      acceptors_(std::move(acceptors)),
      nonces_(world_.nonces),
      refused_(world_.hash_key, log_window, 30),
      quota_(world_.hash_key, log_window, 30),
      resources_(world_.hash_key, log_window, 5),
      lives_(world_.hash_key, log_window, 5000),
      floods_(world_.hash_key, log_window, 2) {
  for (auto& arena : arenas_) arena.actions.push_back(std::make_unique<turn::Actions>());
}

Worker::~Worker() {
  stop();
  join();
}

void Worker::join() {
  if (thread_.joinable()) thread_.join();
}

Worker::Started Worker::start() {
  thread_ = std::thread([this] { run(); });
  pthread_setname_np(thread_.native_handle(), fmt::format("worker-{}", options_.number).c_str());
  std::unique_lock lock(mutex_);
  answered_.wait(lock, [&] { return start_done_; });
  return started_;
}

void Worker::apply(std::shared_ptr<const turn::Settings> settings, std::shared_ptr<const ConnectionSettings> connections,
                   std::optional<NextListeners> listeners) {
  const std::lock_guard lock(mutex_);
  next_ = std::move(settings);
  if (connections) next_connections_ = std::move(connections);
  if (listeners) next_listeners_.push_back(std::move(*listeners));
  mail_.store(true, std::memory_order_release);
  if (wakeable_) wakeable_->wake();
}

void Worker::change_listeners(NextListeners next) {
  const std::lock_guard lock(mutex_);
  next_listeners_.push_back(std::move(next));
  mail_.store(true, std::memory_order_release);
  if (wakeable_) wakeable_->wake();
}

void Worker::stop(turn::EndReason reason) {
  const std::lock_guard lock(mutex_);
  if (!stop_) stop_reason_ = reason;
  stop_ = true;
  mail_.store(true, std::memory_order_release);
  if (wakeable_) wakeable_->wake();
}

void Worker::hand_over(Parcel parcel) {
  const std::lock_guard lock(mutex_);
  if (!wakeable_) return;  // at the end of the process: the connection closes with the parcel
  parcels_.push_back(std::move(parcel));
  mail_.store(true, std::memory_order_release);
  wakeable_->wake();
}

bool Worker::tell(ClientMail mail) {
  const std::lock_guard lock(mutex_);
  if (!wakeable_ || (mail.kind == ClientMail::Kind::datagram && client_mail_.size() >= most_mail)) return false;
  client_mail_.push_back(std::move(mail));
  if (!mail_.exchange(true, std::memory_order_release)) wakeable_->wake();
  return true;
}

std::optional<WorkerReport> Worker::report(milliseconds patience) {
  std::unique_lock lock(mutex_);
  if (!wakeable_) return std::nullopt;
  const std::uint64_t wanted = ++reports_wanted_;
  mail_.store(true, std::memory_order_release);
  wakeable_->wake();
  answered_.wait_for(lock, patience, [&] { return reports_made_ >= wanted || !wakeable_; });
  if (reports_made_ < wanted) return std::nullopt;
  return report_;
}

bool Worker::ask(Question question, milliseconds patience) {
  std::unique_lock lock(mutex_);
  if (!wakeable_) return false;
  const std::uint64_t number = ++questions_asked_;
  questions_.emplace_back(number, std::move(question));
  mail_.store(true, std::memory_order_release);
  wakeable_->wake();
  answered_.wait_for(lock, patience, [&] { return questions_answered_ >= number || !wakeable_; });
  return questions_answered_ >= number;
}

// ---------------------------------------------------------------------------------------------------------------------
// The thread.

bool Worker::start_on_this_thread(Started& started) {
  std::string why;
  if (options_.backend != Backend::epoll) loop_ = io::make_uring_loop(options_.loop, why);
  if (!loop_ && options_.backend != Backend::io_uring) {
    std::string why_not_epoll;
    loop_ = io::make_epoll_loop(options_.loop, why_not_epoll);
    if (!loop_) why.append(why.empty() ? "" : "; ").append(why_not_epoll);
  }
  started.why = why;
  if (!loop_) return false;

  std::vector<Listener> given = std::exchange(listeners_, {});
  for (auto& acceptor : std::exchange(acceptors_, {})) given.push_back(std::move(acceptor));
  for (Listener& listener : given) {
    const std::string text = fmt::format("{} ({})", listener.address.text(), net::name(listener.transport));
    if (add_listener(std::move(listener))) continue;
    started.why = fmt::format("no room in the {} loop for listener {}", loop_->name(), text);
    return false;
  }
  const RandomSource random = system_random();
  server_ = std::make_unique<turn::Server>(world_.shared, world_.settings, nonces_, random_key(random), random,
                                           world_.shortcuts);
  take_place();
  if (!world_.connections) world_.connections = std::make_shared<ConnectionSettings>();
  if (!world_.connection_counts) world_.connection_counts = std::make_shared<ConnectionCounts>(world_.hash_key);
  StreamClients::Above& self = *this;
  moved_ = std::make_unique<MovedClients>(*loop_, options_.number, world_.tell_worker, random_key(random), world_.moved_sockets);
  streams_ = std::make_unique<StreamClients>(*loop_, self, world_.log, random_key(random), world_.connection_counts, world_.connections, world_.settings);
  PeerStreams::Above& itself = *this;
  peers_ = std::make_unique<PeerStreams>(*loop_, *streams_, itself);
  dtls_is_open_ = world_.dtls && world_.connections->identity;
  if (dtls_is_open_)
    dtls_ = std::make_unique<DtlsClients>(world_.connections->identity, random, *loop_, static_cast<DtlsClients::Above&>(*this));
  random({reinterpret_cast<std::uint8_t*>(&gate_key_), sizeof gate_key_});
  gate_bits_ = io::Gate::most_bits;
  started.backend = loop_->name();
  return true;
}

void Worker::run() {
  Started started;
  bool good = false;
  try {
    good = start_on_this_thread(started);
  } catch (const std::exception& error) {  // none is thrown once the loop runs
    started.why = error.what();
  }
  {
    const std::lock_guard lock(mutex_);
    started_ = started;
    if (good) wakeable_ = loop_.get();
    start_done_ = true;
    state_ = good ? State::running : State::broken;
  }
  answered_.notify_all();

  read_clock();
  bool stopping = false;
  while (good && !stopping) {
    begin_arena();
    stale_ = true;
    good = loop_->turn(time_to_wait(), *this);
    const Now now = this_turn();
    heartbeat_.fetch_add(1, std::memory_order_relaxed);
    watch_for_floods();
    // Once a second in any case: reservations that nobody claimed have no allocation to wait for.
    if (server_->next_expiry() <= now.steady || now.steady - swept_ >= 1s) {
      swept_ = now.steady;
      turn::Actions& out = actions(most_ended_at_once);  // asked for once: when this one is full, the next call gives another
      server_->expire(now, out);
      carry_out(out);
      note_refused_train();
    }
    if (dtls_ && dtls_->next_expiry() <= now.steady) dtls_->expire(now.steady);
    if (now.steady - counted_ >= 1s) {
      counted_ = now.steady;
      server_->count_shortcuts(now.steady);
    }
    if (mail_.load(std::memory_order_relaxed) && mail_.exchange(false, std::memory_order_acquire)) {
      obey();
      const std::lock_guard lock(mutex_);
      stopping = stop_;
    }
    peers_->end_of_turn();
    streams_->end_of_turn();
  }
  if (!good && server_)
    world_.log.write(Priority::error, "worker broken", "the loop cannot go on", {{"worker", options_.number}, {"backend", started.backend}});
  if (server_) finish(good);
  end(good ? State::ended : State::broken);
}

void Worker::obey() {
  std::shared_ptr<const turn::Settings> next;
  std::shared_ptr<const ConnectionSettings> next_connections;
  std::vector<Parcel> parcels;
  std::uint64_t wanted = 0;
  bool asked = false;
  std::vector<NextListeners> next_listeners;
  std::vector<std::pair<std::uint64_t, Question>> questions;
  {
    const std::lock_guard lock(mutex_);
    next = std::exchange(next_, nullptr);
    next_connections = std::exchange(next_connections_, nullptr);
    next_listeners.swap(next_listeners_);
    parcels.swap(parcels_);
    questions.swap(questions_);
    mail_at_hand_[arena_].swap(client_mail_);
    wanted = reports_wanted_;
    asked = reports_made_ != wanted;
  }
  if (next) {
    world_.settings = next;
    if (next_connections) world_.connections = std::move(next_connections);
    if (dtls_ && world_.connections->identity) dtls_->set_identity(world_.connections->identity);
    streams_->apply(world_.connections, next);
    turn::Actions& out = actions();
    server_->apply(std::move(next), this_turn(), out);
    carry_out(out);
  }
  for (auto& listeners : next_listeners) take_in(std::move(listeners));
  for (Parcel& parcel : parcels) take_in(std::move(parcel));
  for (ClientMail& mail : mail_at_hand_[arena_]) take_in(mail);
  for (const auto& [number, question] : questions) {
    turn::Actions& out = actions();
    question(*server_, this_turn(), out);
    carry_out(out);
    const std::lock_guard lock(mutex_);
    questions_answered_ = number;
  }
  if (!questions.empty()) answered_.notify_all();
  if (!asked) return;
  WorkerReport report = make_report();
  {
    const std::lock_guard lock(mutex_);
    report_ = std::move(report);
    reports_made_ = wanted;
  }
  answered_.notify_all();
}

/// Made here rather than read by the other thread, so that the counters stay plain integers.
WorkerReport Worker::make_report() {
  server_->count_shortcuts(this_turn().steady);
  loop_->count_kernel_drops();
  WorkerReport report{server_->counters(), loop_->counters(), loop_->sockets(), loop_->armed(), server_->allocation_count(), server_->bytes_kept(),
                      flood_.is_up(), {}, {}, streams_->counters(), moved_->counters()};
  for (std::size_t i = 0; i < listeners_.size(); ++i) {
    if (listener_ids_[i] == io::no_socket) continue;
    report.listeners.push_back(listeners_[i].address);
    report.drops_of_listeners.push_back(loop_->kernel_drops(listener_ids_[i]));
  }
  report.dropped_retired = dropped_retired_;
  report.tallies = server_->tallies();
  report.allocation_counts = server_->count_allocations();
  report.control_times = control_times_;
  report.number = options_.number;
  if (dtls_) {
    report.dtls = dtls_->counters();
    report.bytes_kept += dtls_->bytes_kept();
  }
  return report;
}

/// Once a worker; the counter trains_refused has the rest.
void Worker::note_refused_train() {
  const auto refusal = loop_->first_refusal();
  if (!refusal) return;
  world_.log.write(Priority::notice, "train refused",
                   fmt::format("datagrams of {} bytes to {} cannot leave as one ({}); they leave one by one, at a higher cost", refusal->segment,
                               refusal->to.text(), std::strerror(refusal->error)),
                   {{"worker", options_.number}});
}

/// Tells the log what ended. Clients are told nothing: an allocation that we forget answers 437 to a successor's Refresh by itself.
void Worker::finish(bool loop_works) {
  begin_arena();
  turn::Actions& out = actions();
  turn::EndReason reason = turn::EndReason::shutdown;
  {
    const std::lock_guard lock(mutex_);
    reason = stop_reason_;
  }
  server_->end_all(reason, this_turn(), out);
  // Here alone a worker waits for the log, and not for long: everything is over, and the lines are what operators look for.
  const auto patience = std::chrono::steady_clock::now() + 300ms;
  for (const auto& event : out.events) {
    while (!world_.log.has_room(16) && std::chrono::steady_clock::now() < patience) std::this_thread::sleep_for(1ms);
    note(event);
  }
  if (dtls_) dtls_->close_all();
  // Answers that were queued in the last turn leave; what arrives is not looked at any more. The sockets end with the loop.
  finished_ = true;
  if (loop_works) loop_->turn(nanoseconds(0), *this);
}

void Worker::end(State state) {
  {
    const std::lock_guard lock(mutex_);
    wakeable_ = nullptr;
  }
  state_ = state;
  answered_.notify_all();
  world_.ended();
  peers_.reset();
  streams_.reset();
  moved_.reset();
  dtls_.reset();
  loop_.reset();  // on the thread that made it; with many sockets this takes longer than anybody should wait for the news
  server_.reset();
}

void Worker::read_clock() {
  now_ = {steady_now(), ::time(nullptr)};
  stale_ = false;
}

nanoseconds Worker::time_to_wait() const {
  const Time next = std::min({server_->next_expiry(), streams_->next_deadline(), peers_->next_deadline(), dtls_ ? dtls_->next_expiry() : never});
  if (next <= now_.steady) return nanoseconds(0);
  return next - now_.steady < longest_turn ? next - now_.steady : longest_turn;
}

void Worker::begin_arena() {
  arena_ ^= 1;
  Arena& arena = arenas_[arena_];
  for (std::size_t i = 0; i <= arena.in_use; ++i) arena.actions[i]->clear();
  arena.in_use = 0;
  if (streams_) streams_->begin_turn();
  mail_at_hand_[arena_].clear();
  if (dtls_) dtls_->begin_turn();
}

turn::Actions& Worker::actions(std::size_t datagrams) {
  Arena& arena = arenas_[arena_];
  if (!arena.actions[arena.in_use]->reply_room_low(datagrams + 1)) return *arena.actions[arena.in_use];
  // A turn hands over a bounded number of datagrams, so this list has a bound too; it is kept for the next flood.
  if (++arena.in_use == arena.actions.size()) arena.actions.push_back(std::make_unique<turn::Actions>());
  return *arena.actions[arena.in_use];
}

// ---------------------------------------------------------------------------------------------------------------------
// What arrives.

void Worker::on_datagram(const io::Datagram& datagram) {
  if (finished_) return;
  // Each datagram of a train may want an answer, or a Data indication, of its own.
  turn::Actions& out = actions(datagram.segment == 0 ? 1 : 1 + datagram.bytes.size() / datagram.segment);
  const turn::Train train{datagram.bytes, datagram.segment};
  if (datagram.cookie & listener_bit) {
    const std::size_t index = datagram.cookie & ~listener_bit;
    const Listener& listener = listeners_[index];
    const bool look = flood_.listening() || datagram.segment != 0;
    const std::uint64_t before = look ? strangers() : 0;
    // By the listener's own name: a socket of a client that has moved (moved_clients.h) goes with that client.
    if (dtls_ && ((listener.transport == net::Transport::dtls && !listener.guarded) || DtlsClients::takes(datagram.bytes))) {
      if ((listener.guarded || !dtls_is_open_) && !admits(listener, datagram, net::Transport::dtls)) return drop_retired(datagram);
      io::Datagram record = datagram;
      record.socket = listener_ids_[index];
      dtls_->on_datagram(record, this_turn().steady);
    } else {
      const net::FiveTuple five_tuple{datagram.from, listener.address, net::Transport::udp};
      if (moved_->pass_on(five_tuple, train)) return;
      if (listener.guarded && !admits(listener, datagram, net::Transport::udp)) return drop_retired(datagram);
      from_client(five_tuple, listener_ids_[index], train, out);
    }
    if (look) note_strangers(datagram.from.ip, strangers() - before);
  } else {
    server_->from_peer(turn::RelayId::from_u64(datagram.cookie), datagram.from, train, this_turn(), out);
    carry_out(out);
  }
}

std::optional<std::size_t> Worker::listener_at(const net::TransportAddress& address) const {
  const auto found = std::find_if(listeners_.begin(), listeners_.end(), [&](const Listener& l) { return l.address == address; });
  return found == listeners_.end() ? std::nullopt : std::optional(static_cast<std::size_t>(found - listeners_.begin()));
}

void Worker::take_in(ClientMail& mail) {
  const auto listener = listener_at(mail.five_tuple.server);
  if (!listener) return;
  if (mail.kind != ClientMail::Kind::datagram) return moved_->take_notice(mail);
  const turn::Train train{mail.datagram(), mail.segment};
  turn::Actions& out = actions(train.segment == 0 ? 1 : 1 + train.bytes.size() / train.segment);
  moved_->begin(mail);
  server_->from_client(mail.five_tuple, listener_ids_[*listener], train, this_turn(), out);
  carry_out(out);
  moved_->done();
}

void Worker::on_socket_error(const io::SocketError& error) {
  // A listener's errors are about answers to clients, and local ones (EMSGSIZE) are counted by the loop.
  if (finished_ || !error.from_icmp || error.cookie & listener_bit || error.destination.port == 0) return;
  turn::Actions& out = actions();
  server_->icmp_from_peer(turn::RelayId::from_u64(error.cookie), error.destination, {error.icmp_type, error.icmp_code, error.mtu},
                          this_turn(), out);
  carry_out(out);
}

// ---------------------------------------------------------------------------------------------------------------------
// What the server asks for.

void Worker::from_client_timed(const net::FiveTuple& five_tuple, turn::SocketHandle via, const turn::Train& train, turn::Actions& out) {
  const Time began = steady_now();
  const std::uint64_t before = server_->authenticated_requests();
  server_->from_client(five_tuple, via, train, this_turn(), out);
  carry_out(out);
  if (server_->authenticated_requests() != before) control_times_.histogram.add(steady_now() - began, ControlTimes::bounds);
}

/// Sends, hand-overs, closes, events, then opens, whose outcome makes new actions: until nothing is left. The lists are emptied one by one and not
/// by Actions::clear(), since the bytes of what was sent must stay.
void Worker::carry_out(turn::Actions& out) {
  for (;;) {
    for (const auto& send : out.sends) {
      if (net::is_stream(send.transport)) streams_->send(send);
      else if (send.transport == net::Transport::dtls) dtls_->send(send);
      else loop_->send({send.socket, send.to, send.bytes, send.stride, send.skip, send.trim, send.prefix_size, send.prefix, send.dont_fragment});
    }
    out.sends.clear();
    for (const auto client : out.hang_ups) streams_->hang_up(client);
    out.hang_ups.clear();
    for (const auto& order : out.hand_overs) {
      if (net::is_stream(order.five_tuple.transport)) streams_->hand_over(order.via, order.worker, order.message);
      else moved_->hand_over(order);
    }
    out.hand_overs.clear();
    for (const auto& join : out.joins) peers_->join(join);
    out.joins.clear();
    for (const auto& close : out.peer_closes) peers_->close(close.connection);
    out.peer_closes.clear();
    for (const auto& carry : out.carries)
      if (const auto listener = listener_at(carry.five_tuple.server)) moved_->carried(carry, listener_bit | *listener);
    out.carries.clear();
    for (const auto socket : out.closes) loop_->remove(socket);
    out.closes.clear();
    for (const auto& event : out.events) note(event);
    out.events.clear();
    if (out.opens.empty() && out.connects.empty()) return;
    opening_.swap(out.opens);
    connecting_.swap(out.connects);
    for (const auto& request : opening_) open_relay(request, out);
    opening_.clear();
    for (const auto& request : connecting_)
      if (!peers_->connect(request)) server_->peer_connect_failed(request.connection, this_turn(), out);
    connecting_.clear();
  }
}

void Worker::open_relay(const turn::OpenRelay& request, turn::Actions& out) {
  assert((request.relay.to_u64() & listener_bit) == 0);
  int error = 0;
  const bool tcp = request.transport == net::Transport::tcp;
  io::Socket socket = tcp ? io::open_tcp_listener(request.address, {true, peers_at_once}, error)
                          : io::open_udp(request.address, {false, true, options_.relay_receive_buffer, 0}, error);
  if (socket) {
    const io::SocketId id = tcp ? loop_->add_acceptor(std::move(socket), request.relay.to_u64()) : loop_->add(std::move(socket), request.relay.to_u64());
    if (id != io::no_socket) return server_->relay_opened(request.relay, id, this_turn(), out);
    error = ENOBUFS;
  }
  // A port that another program holds is the core's to get round. All else is our own want, which another port does not cure.
  if (error == EADDRINUSE) return server_->relay_failed(request.relay, turn::RelayFailure::port_in_use, this_turn(), out);
  std::uint64_t suppressed = 0;
  if (resources_.admit(request.address.ip.bytes, this_turn().steady, suppressed)) {
    const std::string_view advice = error == EMFILE ? "; raise LimitNOFILE=" : error == EADDRNOTAVAIL ? "; is the address still on this host?" : "";
    world_.log.write(Priority::error, "relay port not opened",
                     fmt::format("{}: {}{}", request.address.text(), std::strerror(error), advice), {Field::if_any("suppressed", suppressed)});
  }
  server_->relay_failed(request.relay, turn::RelayFailure::no_resources, this_turn(), out);
}

void Worker::keep_session(const net::FiveTuple& five_tuple, bool has_allocation) {
  if (!dtls_ || five_tuple.transport != net::Transport::dtls) return;
  if (const auto listener = listener_at(five_tuple.server)) dtls_->keep(five_tuple.client, listener_ids_[*listener], has_allocation, now_.steady);
}

}  // namespace radiotower::daemon
