// One worker: a thread that owns its loop, its listeners, its relay sockets and its turn::Server, and shares nothing while packets flow.
//
// The way of a ChannelData packet: Loop::turn -> Worker::on_datagram -> Server::from_client -> Loop::send. On it nothing is
// allocated, locked or logged, and no clock is read (`Now` is read once a turn, when the first thing arrives).
// The only place where the protocol core and the sockets meet. May not know: files, signals, systemd.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "connection_settings.h"
#include "dtls_clients.h"
#include "flood.h"
#include "hand_over.h"
#include "peer_streams.h"
#include "moved_clients.h"
#include "radiotower/io/loop.h"
#include "radiotower/io/socket.h"
#include "radiotower/service/log.h"
#include "radiotower/turn/server.h"
#include "stream_clients.h"

namespace radiotower::daemon {

enum class Backend : std::uint8_t { automatic, io_uring, epoll };

struct Listener {
  io::Socket socket;  // bound, and listening where it is for streams
  net::TransportAddress address;
  net::Transport transport = net::Transport::udp;  // tcp: TLS too, where there is a certificate; tls, dtls: that alone
  // Of the worker. Its place in the list is in the loop's cookies, so one that is closed leaves an empty place behind (port 0).
  bool retired = false;  // UDP: for the clients that have an allocation there, and nobody else
  bool guarded = false;  // UDP: retired, or of DTLS alone since it has been one of UDP
};

/// What a reload makes of a worker's listeners.
struct NextListeners {
  struct Entry {
    net::TransportAddress address;
    net::Transport transport = net::Transport::udp;
    bool retired = false;
  };
  std::vector<Entry> udp, streams;  // all there are to be; what is missing closes
  std::vector<Listener> opened;     // with its socket: those that the worker has not
  bool dtls = false;                // on the listeners of UDP too, for who has no session yet
};

struct WorkerOptions {
  unsigned number = 0;
  Backend backend = Backend::automatic;
  io::LoopSettings loop;
  int relay_receive_buffer = 1 << 20;  // bytes: a key frame of video comes as one burst
};

/// Cookies of relay sockets are RelayIds, whose index is far below 2^31; a listener's has the highest bit and its place in the list.
inline constexpr std::uint64_t listener_bit = std::uint64_t{1} << 63;

class EventSink;  // operations.h

/// Those who hear of events. Thread-safe; `any` is looked at first, so that nobody waits for a lock where nobody listens.
class EventSinks {
 public:
  void add(EventSink& sink);
  void remove(EventSink& sink);  // not called any more once this has returned
  void tell(unsigned worker, const turn::Event& event);

 private:
  std::atomic<bool> any_{false};
  std::mutex mutex_;
  std::vector<EventSink*> sinks_;
};

/// What every worker is given and none changes but through its own lock (turn::Shared).
struct WorkerWorld {
  std::shared_ptr<turn::Shared> shared;
  std::shared_ptr<const turn::Settings> settings;
  const turn::NonceMint& nonces;  // copied
  HashKey hash_key;
  Log& log;
  /// Called from the worker's thread when it ends, for whatever reason. Must only wake somebody.
  std::function<void()> ended;
  turn::Shortcuts* shortcuts = nullptr;  // thread-safe; nullptr: every packet is relayed here
  std::shared_ptr<const ConnectionSettings> connections = nullptr;  // null: the defaults
  std::shared_ptr<ConnectionCounts> connection_counts = nullptr;    // null: the worker's own
  /// Gives a client to the worker of that number. Thread-safe.
  std::function<void(unsigned worker, Parcel parcel)> hand_over = nullptr;
  std::shared_ptr<const turn::TicketMint> tickets = nullptr;  // null: the worker's own
  TellWorker tell_worker = nullptr;
  std::size_t moved_sockets = 0;  // see MovedClients
  EventSinks* sinks = nullptr;  // nullptr: nobody listens
  bool dtls = false;  // on every listener, by the first byte; needs an identity
};

/// How long authenticated requests took: from the moment the loop hands one over to the moment its answer is queued, opening of the relay port
/// included. A Connect (RFC 6062) is answered later: its time is that of setting out.
struct ControlTimes {
  static constexpr std::array<nanoseconds, 13> bounds{microseconds(10),  microseconds(25),  microseconds(50),   microseconds(100),   microseconds(250),
                                                      microseconds(500), milliseconds(1),   microseconds(2500), milliseconds(5),     milliseconds(10),
                                                      milliseconds(25),  milliseconds(50),  milliseconds(100)};
  turn::Histogram<bounds.size()> histogram;
};

struct WorkerReport {
  turn::Counters counters;
  io::LoopCounters loop;
  std::size_t sockets = 0;
  std::size_t armed = 0;
  std::size_t allocations = 0;
  std::size_t bytes_kept = 0;
  bool gate_is_up = false;
  std::vector<net::TransportAddress> listeners;   // of UDP, those that are retired too
  std::vector<std::uint64_t> drops_of_listeners;  // by the kernel, in the order of `listeners`
  StreamCounters streams;
  MovedCounters moved;
  tls::DtlsCounters dtls = {};
  std::uint64_t dropped_retired = 0;  // datagrams of nobody to a listener that a reload has taken away
  turn::Tallies tallies = {};
  turn::AllocationCounts allocation_counts = {};
  ControlTimes control_times = {};
  unsigned number = 0;  // of the worker
};

class Worker final : private io::Receiver, private StreamClients::Above, private DtlsClients::Above, private PeerStreams::Above {
 public:
  /// How the start went. `backend` is empty when the worker could not start; `why` then says it, and otherwise why not io_uring.
  struct Started {
    std::string backend;
    std::string why;
  };

  /// `listeners`: of UDP; `acceptors`: of TCP and TLS.
  Worker(WorkerOptions options, std::vector<Listener> listeners, WorkerWorld world, std::vector<Listener> acceptors = {});
  ~Worker();  // stop() and join()
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// Starts the thread and waits until its listeners receive.
  Started start();

  // From the control thread. Each is done between two turns of the loop.
  /// A later one replaces one not yet taken. No `connections`: they stay as they are.
  void apply(std::shared_ptr<const turn::Settings> settings, std::shared_ptr<const ConnectionSettings> connections = nullptr,
             std::optional<NextListeners> listeners = std::nullopt);
  /// One after the other, none is left out.
  void change_listeners(NextListeners next);
  /// Ends the allocations, for `reason`, then the thread.
  void stop(turn::EndReason reason = turn::EndReason::shutdown);
  void join();  // waits for its end, without limit
  /// The counters as they stand between two turns; nullopt when the worker does not answer within `patience`.
  std::optional<WorkerReport> report(milliseconds patience);

  /// Runs `question` on the worker's thread, between two turns. False: not within `patience`; it may run later still, so it owns what it
  /// touches.
  using Question = std::function<void(turn::Server& server, Now now, turn::Actions& out)>;
  bool ask(Question question, milliseconds patience);

  // From another worker's thread.
  /// A client over TCP or TLS that is to be served here from now on.
  void hand_over(Parcel parcel);
  /// Of clients over UDP: see TellWorker.
  bool tell(ClientMail mail);

  /// Grows with every turn, and a turn takes no longer than a second.
  std::uint64_t heartbeat() const { return heartbeat_.load(std::memory_order_relaxed); }
  enum class State : std::uint8_t { starting, running, ended, broken };
  State state() const { return state_.load(); }
  unsigned number() const { return options_.number; }

 private:
  // One turn's Actions: the first is enough but for a flood of requests, which continues in the next.
  struct Arena {
    std::vector<std::unique_ptr<turn::Actions>> actions;
    std::size_t in_use = 0;
  };

  void run();
  bool start_on_this_thread(Started& started);
  void obey();
  void finish(bool loop_works);
  void end(State state);

  void on_datagram(const io::Datagram& datagram) override;
  void on_socket_error(const io::SocketError& error) override;
  void on_wake() override {}
  void on_accept(io::SocketId acceptor, std::uint64_t cookie, io::Socket socket, const net::TransportAddress& from) override;
  void on_chunk(const io::Chunk& chunk) override;
  void on_end(io::SocketId socket, std::uint64_t cookie, int error) override;
  void on_writable(io::SocketId socket, std::uint64_t cookie) override;
  void on_released(std::uint64_t cookie, io::Socket socket) override;

  const Now& this_turn() override {
    if (stale_) read_clock();
    return now_;
  }
  void stream_message(const net::FiveTuple& five_tuple, turn::SocketHandle via, turn::Train train) override;
  void stream_gone(const net::FiveTuple& five_tuple) override;
  bool has_allocation(const net::FiveTuple& five_tuple) override;
  void hand_over(unsigned worker, Parcel parcel) override;
  // RFC 6062: between StreamClients, PeerStreams and the server.
  void joined_bytes(turn::SocketHandle client, MutableBytes bytes) override { peers_->on_client_bytes(client, bytes); }
  void joined_room(turn::SocketHandle client) override { peers_->on_client_room(client); }
  bool joined_ended(turn::SocketHandle client) override { return peers_->on_client_ended(client); }
  void joined_finished(turn::SocketHandle client) override { peers_->on_client_finished(client); }
  void joined_gone(turn::SocketHandle client) override { peers_->on_client_gone(client); }
  std::optional<turn::ConnectionId> peer_accepted(turn::RelayId relay, const net::TransportAddress& peer) override;
  void peer_connected(turn::ConnectionId connection) override;
  void peer_connect_failed(turn::ConnectionId connection) override;
  void peer_gone(turn::ConnectionId connection) override;
  bool charge_joined(turn::ConnectionId connection, std::size_t to_peer, std::size_t to_client) override;
  void dtls_message(const net::TransportAddress& client, io::SocketId listener, turn::Train train) override;
  void dtls_gone(const net::TransportAddress& client, io::SocketId listener) override;
  const net::TransportAddress* address_of(io::SocketId listener) const;  // nullptr: it is closed

  void carry_out(turn::Actions& actions);
  /// Gives it to the server and carries out what comes of it. The clock is read for what may be an authenticated request alone: the data path and
  /// strangers' first tries cost a look at two bytes.
  void from_client(const net::FiveTuple& five_tuple, turn::SocketHandle via, const turn::Train& train, turn::Actions& actions) {
    constexpr std::size_t smallest_authenticated = 84;  // with USERNAME, REALM, NONCE and MESSAGE-INTEGRITY
    const bool is_request = train.segment == 0 && train.bytes.size() >= smallest_authenticated && train.bytes[0] == 0 && (train.bytes[1] & 0x10) == 0;
    if (is_request) return from_client_timed(five_tuple, via, train, actions);
    server_->from_client(five_tuple, via, train, this_turn(), actions);
    carry_out(actions);
  }
  void from_client_timed(const net::FiveTuple& five_tuple, turn::SocketHandle via, const turn::Train& train, turn::Actions& actions);
  void open_relay(const turn::OpenRelay& request, turn::Actions& actions);
  void note(const turn::Event& event);
  void keep_session(const net::FiveTuple& five_tuple, bool has_allocation);
  void note_refused_train();
  WorkerReport make_report();
  void watch_for_floods();
  std::uint64_t strangers() const;  // datagrams of theirs since the start
  void note_strangers(const net::IpAddress& source, std::uint64_t datagrams);
  void carry_out(FloodWatch::Change change);
  void set_gate(bool up);
  void take_in(Parcel parcel);
  void take_in(ClientMail& mail);
  void take_in(NextListeners next);
  bool add_listener(Listener listener);
  void close_listener(std::size_t index);
  void take_place();
  void drop_retired(const io::Datagram& datagram);
  bool admits(const Listener& listener, const io::Datagram& datagram, net::Transport transport) const;
  std::optional<std::size_t> listener_at(const net::TransportAddress& address) const;
  void read_clock();
  turn::Actions& actions(std::size_t datagrams = 1);  // with room for an answer to each
  void begin_arena();
  nanoseconds time_to_wait() const;

  WorkerOptions options_;
  WorkerWorld world_;
  std::vector<Listener> listeners_;  // sockets move into the loop; addresses stay
  std::vector<Listener> acceptors_;  // likewise
  std::vector<io::SocketId> listener_ids_, acceptor_ids_;
  turn::NonceMint nonces_;

  // The thread's own from here on.
  std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<turn::Server> server_;
  std::unique_ptr<StreamClients> streams_;
  std::unique_ptr<PeerStreams> peers_;
  std::unique_ptr<MovedClients> moved_;
  std::array<std::vector<ClientMail>, 2> mail_at_hand_;  // lives as long as an arena
  std::unique_ptr<DtlsClients> dtls_;  // null: never yet on
  bool dtls_is_open_ = false;          // for new sessions
  std::uint64_t dropped_retired_ = 0;
  Now now_;
  bool stale_ = true;
  bool finished_ = false;  // what arrives is not looked at any more
  ControlTimes control_times_;
  Time swept_{};
  Time counted_{};
  // Bytes handed to Loop::send must live until the *next* turn() has returned. So two arenas alternate: what was queued in and after
  // turn n lies in one of them, and that one is cleared just before turn n + 2 begins.
  std::array<Arena, 2> arenas_;
  std::size_t arena_ = 0;
  std::vector<turn::OpenRelay> opening_;  // scratch of carry_out()
  std::vector<turn::ConnectPeer> connecting_;  // likewise
  FloodWatch flood_;
  std::uint64_t stream_strangers_ = 0;
  std::uint64_t gate_key_ = 0;
  unsigned gate_bits_ = 0;  // 0: the kernel takes no filter
  std::uint64_t kept_out_ = 0;  // at the moment the gate went up
  LineLimit refused_;
  LineLimit quota_;
  LineLimit resources_;
  LineLimit lives_;  // allocations made and ended
  LineLimit floods_;

  // What crosses threads.
  std::atomic<std::uint64_t> heartbeat_{0};
  std::atomic<State> state_{State::starting};
  std::atomic<bool> mail_{false};  // something below waits
  std::mutex mutex_;
  std::condition_variable answered_;
  Started started_;                                  // under mutex_
  bool start_done_ = false;                          // under mutex_
  io::Loop* wakeable_ = nullptr;                     // under mutex_; null before the start and after the end
  std::shared_ptr<const turn::Settings> next_;       // under mutex_
  std::shared_ptr<const ConnectionSettings> next_connections_;  // under mutex_
  std::vector<NextListeners> next_listeners_;        // under mutex_
  std::vector<Parcel> parcels_;                      // under mutex_
  std::vector<ClientMail> client_mail_;              // under mutex_
  std::vector<std::pair<std::uint64_t, Question>> questions_;  // under mutex_
  std::uint64_t questions_asked_ = 0, questions_answered_ = 0;  // under mutex_
  bool stop_ = false;                                // under mutex_
  turn::EndReason stop_reason_ = turn::EndReason::shutdown;  // under mutex_
  std::uint64_t reports_wanted_ = 0, reports_made_ = 0;  // under mutex_
  WorkerReport report_;                              // under mutex_
  std::thread thread_;
};

}  // namespace radiotower::daemon
