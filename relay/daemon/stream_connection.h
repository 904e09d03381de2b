// One connection of a client. Private to StreamClients (stream_clients.h), which owns it; it moves whole from worker to worker.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "radiotower/io/loop.h"
#include "radiotower/net/address.h"
#include "radiotower/tls/session.h"
#include "radiotower/turn/actions.h"
#include "stream_queue.h"

namespace radiotower::daemon {

struct StreamConnection {
  static constexpr std::uint32_t none = 0xFFFFFFFF;

  enum class Stage : std::uint8_t {
    proxy_header,  // the front end has still to say who comes
    first_byte,    // nothing of the client yet
    handshake,     // TLS
    open,          // STUN and ChannelData
    joined,        // bytes to and from a peer (RFC 6062)
    leaving,       // for another worker
    ending,        // looked at once more at the end of the turn
    draining,      // what is queued leaves, then it closes
    closed,
  };
  enum class End : std::uint8_t {
    by_client, error, bad_message, bad_first_byte, bad_proxy_header, tls_failed, silent, slow_message, slow_handshake, idle,
    crowded_out, stalled, overflow, hung_up, denied, duplicate, refused_source_cap, no_room, broken
  };

  net::FiveTuple five_tuple;
  net::IpAddress source;      // what it counts for; once `counted`
  io::SocketId socket = io::no_socket;
  turn::SocketHandle handle = turn::no_socket;
  Stage stage = Stage::first_byte;
  End end{};
  bool counted = false;       // with its source
  bool known = false;         // the server has been given something of it
  bool proved = false;        // a request of it has succeeded that needs credentials
  bool tls_alone = false;     // of a listener that takes nothing else
  bool input_ended = false;
  bool blocked = false;       // on_writable() will come
  bool dirty = false;         // in the list of those with something to write
  bool paused = false;
  bool broken = false;        // takes nothing any more
  bool encrypts = false;      // TLS: the handshake is done
  bool said_goodbye = false;  // TLS: close_notify
  bool joined = false;        // Above has still to hear of its end
  bool is_bytes = false;      // joined, or was: what waits is no messages, of which some could go
  bool finishing = false, finished = false;  // joined: the peer has ended; the FIN is behind all that it had sent
  bool wants_room = false;    // joined: the peer's side waits for room
  std::size_t pending = 0;    // joined: bytes of this turn
  std::uint32_t first_node = none, last_node = none;  // what this turn has for it
  std::uint32_t worker = 0;   // leaving: for that one

  // The front of a message, or of a PROXY header, that is not whole yet: at most one.
  std::vector<std::uint8_t> partial;
  std::size_t wanted = 0;     // bytes of it that are needed to know more

  // What came when the turn had no more time for it, from later_at on; it is not read from meanwhile.
  std::vector<std::uint8_t> later;
  std::size_t later_at = 0;
  bool later_ended = false;   // and its FIN is behind that

  std::unique_ptr<tls::Session> session;
  StreamQueue queue;               // plain; encrypted when the socket takes it
  std::vector<std::uint8_t> wire;  // TLS: encrypted and not taken yet, from wire_at on
  std::size_t wire_at = 0;

  // leaving: the message that is about another worker, what has come behind it, and of TLS what has not been decrypted.
  std::vector<std::uint8_t> message, behind, undecrypted;

  // Deadlines; see StreamClients::deadline(). `never`: none.
  Time since{};              // accepted
  Time heard{};              // the last message, or accepted
  Time message_began{};      // of `partial`
  Time took{};               // blocked: when the socket last took something
  Time drained_by{};
  // Its place in the wheel, and among those in the handshake.
  Time looked_at = never;
  std::uint32_t wheel_next = none, wheel_previous = none, slot = none;
  std::uint32_t young_next = none, young_previous = none;
  bool young = false;
};

}  // namespace radiotower::daemon
