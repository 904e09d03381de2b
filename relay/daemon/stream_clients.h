// The clients of one worker that come over TCP and TLS: owns their connections. Takes what the loop brings, cuts it into messages
// (stun/framing.h), hands whole ones on from where they lie, and gathers what leaves, so that a turn costs a connection one write.
//
// Who says nothing, not all of it, or takes nothing is closed by deadlines, and nobody is waited for. Nothing here calls turn::Server while its actions are
// carried out: a connection that is to end is put down, and ends in end_of_turn().
//
// One thread; allocates on the way of a packet only until its buffers are warm.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "byte_arena.h"
#include "connection_settings.h"
#include "hand_over.h"
#include "radiotower/base/siphash.h"
#include "radiotower/base/time.h"
#include "radiotower/io/loop.h"
#include "radiotower/service/log.h"
#include "radiotower/turn/actions.h"
#include "radiotower/turn/settings.h"
#include "stream_connection.h"

namespace radiotower::daemon {

// Cookies of the loop's streams. An acceptor of clients has `client_acceptor_bit` and its place in the list.
inline constexpr std::uint64_t client_stream_bit = std::uint64_t{1} << 63;
inline constexpr std::uint64_t peer_stream_bit = std::uint64_t{1} << 62;
inline constexpr std::uint64_t client_acceptor_bit = std::uint64_t{1} << 63;

/// Written by the worker's thread alone.
struct StreamCounters {
#define RADIOTOWER_STREAM_COUNTERS(X)                                                                    \
  X(connections_accepted)                                                                                \
  X(refused_total_cap) X(refused_source_cap) X(refused_denied) X(refused_duplicate) X(refused_no_room)   \
  X(proxy_headers) X(tls_handshakes) X(tls_failed)                                                       \
  X(closed_by_client)      /* FIN or close_notify */                                                     \
  X(closed_error)          /* RST, a timeout of TCP's */                                                 \
  X(closed_bad_message)    /* neither STUN nor ChannelData */                                            \
  X(closed_bad_first_byte) /* of a listener for TLS */                                                   \
  X(closed_bad_proxy_header)                                                                             \
  X(closed_silent)         /* said nothing */                                                            \
  X(closed_slow_message)   /* a message that was not whole in time */                                    \
  X(closed_slow_handshake)                                                                               \
  X(closed_idle)           /* without an allocation */                                                   \
  X(closed_crowded_out)    /* the oldest of too many in the handshake */                                 \
  X(closed_stalled)        /* took nothing */                                                            \
  X(closed_overflow)       /* asked without taking answers */                                            \
  X(closed_hung_up)        /* by the server */                                                           \
  X(closed_denied)         /* by a reload */                                                             \
  X(messages) X(trains)    /* from clients: STUN and single ChannelData; runs of ChannelData */          \
  X(messages_pieced)       /* that came in pieces */                                                     \
  X(chunks_put_off)        /* to a later turn */                                                         \
  X(writes) X(queued)      /* messages that had to wait */                                               \
  X(media_dropped)         /* of those, too old or too many */                                           \
  X(moved_out) X(moved_in) /* to and from other workers */
#define RADIOTOWER_X(name) std::uint64_t name = 0;
  RADIOTOWER_STREAM_COUNTERS(RADIOTOWER_X)
#undef RADIOTOWER_X
  // Not counts: what there is now.
  std::uint64_t connections = 0, in_handshake = 0, bytes_queued = 0, bytes_queued_at_most = 0;
  template <typename Visit>
  void for_each(Visit&& visit) const {
#define RADIOTOWER_X(name) visit(std::string_view(#name), name);
    RADIOTOWER_STREAM_COUNTERS(RADIOTOWER_X)
#undef RADIOTOWER_X
    visit(std::string_view("connections"), connections);
    visit(std::string_view("in_handshake"), in_handshake);
    visit(std::string_view("bytes_queued"), bytes_queued);
    visit(std::string_view("bytes_queued_at_most"), bytes_queued_at_most);
  }
};

class StreamClients {
 public:
  using Connection = StreamConnection;

  struct Limits {  // tests make them short
    seconds handshake{5};          // TLS and PROXY, from the connection's beginning (T15)
    seconds silence{15};           // nothing that succeeded with credentials: from the last message (T10)
    seconds message{10};           // from its first byte to its last (T07, T08, T11)
    seconds idle{60};              // without an allocation, from the last message
    seconds stall{30};             // the client takes nothing (T13)
    seconds drain{5};              // what is queued when a connection ends
    milliseconds media_age{1000};  // what waited longer is of no use to a call
    std::size_t queue = 512 << 10;           // bytes a connection: a key frame or two
    std::size_t queue_when_crowded = 64 << 10;  // once all of the worker's together are above
    std::size_t queues = 64 << 20;
    std::size_t in_handshake = 2000;
    // Of a turn, so that the calls of others need not wait for clients who send all they can: 64 KiB hold 600 requests to be authenticated. In bytes
    // received; what has to do with a handshake counts as `handshake_counts`.
    std::size_t at_once = 256 << 10;
    std::size_t of_later = 128 << 10;        // of what earlier turns have put off
    std::size_t handshake_counts = 16 << 10;
    std::size_t small = 4096;                // is not put off
    std::size_t put_off = 64 << 20;          // bytes of all connections together
  };

  /// The worker, as seen from here.
  class Above {
   public:
    virtual const Now& this_turn() = 0;
    /// Whole messages of one connection: see turn::Server::from_client. Actions are carried out before it returns.
    virtual void stream_message(const net::FiveTuple& five_tuple, turn::SocketHandle via, turn::Train train) = 0;
    virtual void stream_gone(const net::FiveTuple& five_tuple) = 0;
    virtual bool has_allocation(const net::FiveTuple& five_tuple) = 0;
    virtual void hand_over(unsigned worker, Parcel parcel) = 0;
    // Joined connections (RFC 6062).
    virtual void joined_bytes(turn::SocketHandle /*client*/, MutableBytes /*bytes*/) {}  // valid as a chunk is
    virtual void joined_room(turn::SocketHandle /*client*/) {}                           // after write_joined() has said false
    /// Nothing more will come. True: close() will be called; false: it closes, when what is queued has left.
    virtual bool joined_ended(turn::SocketHandle /*client*/) { return false; }
    virtual void joined_finished(turn::SocketHandle /*client*/) {}                       // finish_joined() has come to its end
    virtual void joined_gone(turn::SocketHandle /*client*/) {}                           // closed; the handle is not used any more

   protected:
    ~Above() = default;
  };

  StreamClients(io::Loop& loop, Above& above, Log& log, const HashKey& key, std::shared_ptr<ConnectionCounts> counts,
                std::shared_ptr<const ConnectionSettings> settings, std::shared_ptr<const turn::Settings> turn_settings);
  ~StreamClients();
  StreamClients(const StreamClients&) = delete;
  StreamClients& operator=(const StreamClients&) = delete;

  void set_limits(const Limits& limits) { limits_ = limits; }

  // What the loop brings; see io::Receiver.
  void on_accept(const net::TransportAddress& listener, bool tls_alone, io::Socket socket, const net::TransportAddress& from);
  void on_chunk(const io::Chunk& chunk);
  void on_end(std::uint64_t cookie, int error);
  void on_writable(std::uint64_t cookie);
  void on_released(std::uint64_t cookie, io::Socket socket);

  // What the server asks for; callable while actions are carried out.
  void send(const turn::Send& send);
  void hang_up(turn::SocketHandle client);
  /// To another worker: the connection itself follows once the loop has let go of it.
  void hand_over(turn::SocketHandle client, unsigned worker, Bytes message);
  void receive(Parcel parcel);  // at the other end
  /// RFC 6062: from here on its bytes go to Above::joined_bytes(), those first that have come behind the ConnectionBind.
  bool join(turn::SocketHandle client);
  /// Takes all of them, after what send() has been given. False: more than a little is queued, so wait for joined_room() before the next.
  bool write_joined(turn::SocketHandle client, Bytes bytes);
  /// Nothing more will be written: what is queued leaves, then close_notify and FIN. The client may go on sending.
  void finish_joined(turn::SocketHandle client);
  void pause(turn::SocketHandle client);
  void resume(turn::SocketHandle client);
  void close(turn::SocketHandle client) { hang_up(client); }  // what is queued leaves first

  void begin_turn() { arena_.begin_turn(); }
  /// A copy that lives until the end of the next turn, with room round it as a received datagram has.
  MutableBytes keep_message(Bytes message);
  /// Writes what the turn has gathered, closes what is to be closed.
  void end_of_turn();
  Time next_deadline() const;  // `never`: none

  void apply(std::shared_ptr<const ConnectionSettings> settings, std::shared_ptr<const turn::Settings> turn_settings);
  const StreamCounters& counters();
  std::size_t size() const { return size_; }

 private:
  using Stage = Connection::Stage;
  using End = Connection::End;
  // A handle is a generation and a place: one that has gone is recognised.
  static constexpr unsigned index_bits = 20;
  static constexpr std::uint32_t index_mask = (1u << index_bits) - 1, most_generations = (1u << (32 - index_bits)) - 1;
  /// One turn::Send of this turn, in the list of its connection.
  struct Node {
    std::uint8_t* bytes = nullptr;
    std::uint32_t size = 0;
    std::uint32_t next = Connection::none;
    std::uint16_t stride = 0, skip = 0, trim = 0;
    std::uint8_t prefix_size = 0;
    bool media = false, padded = false;
    std::array<std::uint8_t, 4> prefix{};
  };
  /// A message on its way out.
  struct Piece {
    Bytes head, body;
    std::uint8_t padding = 0;
    bool media = false;
    std::size_t size() const { return head.size() + body.size() + padding; }
  };

  // stream_clients.cpp: from the beginning of a connection to its end
  Connection* find(turn::SocketHandle handle) const;
  Connection* find_cookie(std::uint64_t cookie) const { return find(static_cast<turn::SocketHandle>(cookie)); }
  Connection& make(std::unique_ptr<Connection> connection);
  bool open(Connection& connection);  // who it is is known now
  void put_down(Connection& connection, End reason);  // to be ended at the end of the turn
  void finish(Connection& connection);
  void say_goodbye(Connection& connection);
  void finish_writing(Connection& connection);
  void free(Connection& connection);
  void count(End reason);
  void note(const Connection& connection);

  // stream_input.cpp
  std::size_t cost(const Connection& connection, std::size_t size) const;
  void put_off(Connection& connection, Bytes bytes);
  void work_off();
  void drop_later(Connection& connection);
  void take(Connection& connection, MutableBytes bytes);
  void take_proxy_header(Connection& connection, MutableBytes& bytes);
  void take_first_byte(Connection& connection, MutableBytes bytes);
  void take_tls(Connection& connection, MutableBytes wire);
  void take_plain(Connection& connection, MutableBytes bytes);
  bool complete(Connection& connection, MutableBytes& bytes);
  void hand_on(Connection& connection, MutableBytes bytes, std::uint16_t segment);
  void keep_partial(Connection& connection, Bytes bytes);
  void drop_partial(Connection& connection);

  // stream_output.cpp
  void touch(Connection& connection);  // it has something to write
  void append(Connection& connection, const Node& node);
  void gather(Connection& connection);
  void flush(Connection& connection);
  void flush_plain(Connection& connection, std::size_t& done, std::size_t& part);
  void flush_tls(Connection& connection, std::size_t& done);
  std::size_t write(Connection& connection, const iovec* pieces, std::size_t count, std::size_t size);
  void drop_output(Connection& connection);
  void enqueue(Connection& connection, std::size_t from, std::size_t skip);
  void trim(Connection& connection);
  bool has_output(const Connection& connection) const;

  // stream_deadlines.cpp
  Time deadline(const Connection& connection, End& reason) const;
  void schedule(Connection& connection);
  void unschedule(Connection& connection);
  void check_deadlines();
  void enter_handshake(Connection& connection);
  void leave_handshake(Connection& connection);

  io::Loop& loop_;
  Above& above_;
  Log& log_;
  std::shared_ptr<ConnectionCounts> counts_;
  std::shared_ptr<const ConnectionSettings> settings_;
  std::shared_ptr<const turn::Settings> turn_settings_;
  Limits limits_;
  StreamCounters counters_;
  ByteArena arena_;

  struct Slot {
    std::unique_ptr<Connection> connection;
    std::uint32_t generation = 0;
  };
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::size_t size_ = 0;
  struct Ends {  // of a connection; a TCP connection and a TLS one cannot have the same
    net::TransportAddress client, server;
    friend bool operator==(const Ends&, const Ends&) = default;
  };
  struct Hash {
    HashKey key;
    std::size_t operator()(const Ends& ends) const;
  };
  std::unordered_map<Ends, turn::SocketHandle, Hash> by_ends_;

  std::vector<turn::SocketHandle> dirty_, ending_, looking_, rooms_;
  std::vector<Node> nodes_;        // of this turn
  std::vector<Piece> pieces_;      // scratch of one connection
  std::vector<iovec> iovecs_;      // likewise
  std::vector<std::uint8_t> plain_, cipher_;  // scratch of TLS
  std::vector<std::vector<std::uint8_t>> spare_;  // buffers for parts of messages
  std::size_t queued_ = 0;         // bytes, of all queues
  std::deque<turn::SocketHandle> backlog_;  // those with something for later
  std::size_t spent_ = 0;          // of Limits::at_once
  std::size_t put_off_ = 0;        // bytes, of all

  static constexpr std::size_t wheel_slots = 512;
  static constexpr nanoseconds wheel_step = milliseconds(125);
  std::array<std::uint32_t, wheel_slots> wheel_;  // the first connection of each
  std::array<std::uint64_t, wheel_slots / 64> wheel_used_{};
  std::int64_t wheel_at_ = 0;  // steps since the clock's beginning: everything before has been looked at
  std::uint32_t young_first_ = Connection::none, young_last_ = Connection::none;
  std::size_t young_ = 0;

  LineLimit closed_, refused_;
};

}  // namespace radiotower::daemon
