// The seam to the operating system: one loop a worker thread that receives from and sends to thousands of UDP sockets and TCP connections.
// Knows no STUN. Two real sides: io_uring (uring_loop.cpp) and epoll (epoll_loop.cpp); tests add one that fails on command
// (tests/io/faulty_loop.h) and make single system calls fail (tests/io/failing_calls.h).
//
// A turn: everything queued by send() in the last turn leaves, then what has arrived is handed to the Receiver. What neighbours of one
// flow (a socket and a destination) queue within a turn leaves as one train where the path takes trains (UDP_SEGMENT), and the kernel
// hands in trains (UDP_GRO). Order is kept within a flow. Bytes of a
// received datagram stay valid and writable until the end of the *next* turn() call, so that they may be sent from where they lie.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/base/bytes.h"
#include "radiotower/base/time.h"
#include "radiotower/io/socket.h"
#include "radiotower/net/address.h"

struct iovec;

namespace radiotower::io {

/// Index and generation: a handle of a socket that has been removed is recognised and ignored.
using SocketId = std::uint32_t;
inline constexpr SocketId no_socket = 0xFFFFFFFF;

struct Datagram {
  SocketId socket = no_socket;
  std::uint64_t cookie = 0;    // as given to add()
  net::TransportAddress from;  // canonical; port 0 when the kernel gave no usable source
  MutableBytes bytes;          // at least 48 writable bytes in front, 4 behind
  std::uint16_t segment = 0;   // UDP GRO: length of each datagram but the last; 0: one datagram
};

/// From IP_RECVERR / IPV6_RECVERR (sockets opened with `report_errors`).
struct SocketError {
  SocketId socket = no_socket;
  std::uint64_t cookie = 0;
  bool from_icmp = false;            // else a local error (EMSGSIZE ...)
  std::uint8_t icmp_type = 0;
  std::uint8_t icmp_code = 0;
  std::uint32_t mtu = 0;             // of 3/4 and v6 2
  net::TransportAddress destination;  // of the datagram that failed; of a local error over IPv4 the kernel leaves the port 0
};

/// One datagram to send, or a train of them. Everything pointed to stays valid until the next turn() has returned.
struct Outgoing {
  SocketId socket = no_socket;
  net::TransportAddress to;
  MutableBytes bytes;
  std::uint16_t stride = 0;  // see turn::Send: a train in one action
  std::uint16_t skip = 0;
  std::uint16_t trim = 0;
  std::uint8_t prefix_size = 0;
  std::array<std::uint8_t, 4> prefix{};
  bool dont_fragment = false;
};

/// What has come on a stream. Valid and writable as the bytes of a datagram are, but nothing in front of or behind them is.
struct Chunk {
  SocketId socket = no_socket;
  std::uint64_t cookie = 0;
  MutableBytes bytes;  // never empty
};

/// Of a classic BPF program; laid out as struct sock_filter.
struct FilterInstruction {
  std::uint16_t code = 0;
  std::uint8_t if_true = 0, if_false = 0;
  std::uint32_t k = 0;
};

/// May send, add and remove from within any of these; may not call turn().
class Receiver {
 public:
  virtual void on_datagram(const Datagram& datagram) = 0;
  virtual void on_socket_error(const SocketError& error) = 0;
  virtual void on_wake() = 0;  // someone called Loop::wake()

  // Streams.
  /// A connection, non-blocking and close-on-exec, with TCP_NODELAY. `acceptor` is what it came to.
  virtual void on_accept(SocketId /*acceptor*/, std::uint64_t /*cookie*/, Socket /*socket*/, const net::TransportAddress& /*from*/) {}
  virtual void on_chunk(const Chunk& /*chunk*/) {}
  /// Nothing more will come: the other side has closed (0) or the connection is broken (an errno). Told once; the socket is still to be removed.
  virtual void on_end(SocketId /*socket*/, std::uint64_t /*cookie*/, int /*error*/) {}
  /// What want_writable() asked for: there is room again, or a connect has come to its end (see stream_error()).
  virtual void on_writable(SocketId /*socket*/, std::uint64_t /*cookie*/) {}
  /// What release() asked for: every byte that had been received has been handed over, and the loop knows the socket no more.
  virtual void on_released(std::uint64_t /*cookie*/, Socket /*socket*/) {}

 protected:
  ~Receiver() = default;
};

/// Written by the loop's thread alone; others read through std::atomic_ref, relaxed.
struct LoopCounters {
#define RADIOTOWER_LOOP_COUNTERS(X)                                                                            \
  X(turns) X(gathered) /* turns that let packets gather */ X(received) X(sent)     /* datagrams, each of a train counted */                                       \
  X(trains_received)                                                                                           \
  X(trains_sent)                                                                                               \
  X(trains_refused)       /* by a path whose MTU is smaller, or a device that cannot; sent one by one */       \
  X(kernel_drops)         /* receive buffers that were full, and filters; see count_kernel_drops() */                   \
  X(truncated)            /* datagram longer than a buffer, dropped */                                         \
  X(out_of_buffers)       /* a receive ended for want of a buffer; armed again */                              \
  X(rearmed)              /* multishot receives armed again, for whatever reason */                            \
  X(completion_overflow)                                                                                       \
  X(send_full)            /* EAGAIN, ENOBUFS: the kernel's queue was full, packet dropped */                   \
  X(send_too_large)       /* EMSGSIZE */                                                                       \
  X(send_retried)         /* a pending ICMP error hit a send; sent again */                                    \
  X(send_unreachable)     /* ENETUNREACH, EHOSTUNREACH, EACCES, EPERM ... */                                   \
  X(send_failed)          /* any other errno */                                                                \
  X(accepted)             /* connections */                                                                    \
  X(accept_failed)        /* out of descriptors or memory */                                                   \
  X(chunks_received) X(stream_bytes_received)                                                                  \
  X(stream_writes) X(stream_bytes_sent)                                                                        \
  X(stream_writes_short)  /* the kernel took less than all */                                                  \
  X(receive_failed)
#define RADIOTOWER_X(name) std::uint64_t name = 0;
  RADIOTOWER_LOOP_COUNTERS(RADIOTOWER_X)
#undef RADIOTOWER_X
  template <typename Visit>
  void for_each(Visit&& visit) const {
#define RADIOTOWER_X(name) visit(std::string_view(#name), name);
    RADIOTOWER_LOOP_COUNTERS(RADIOTOWER_X)
#undef RADIOTOWER_X
  }
};

class Loop {
 public:
  virtual ~Loop() = default;

  virtual std::string_view name() const = 0;  // "io_uring" or "epoll"

  /// Takes the socket over and starts to receive on it. no_socket: out of resources (the socket is then closed).
  virtual SocketId add(Socket socket, std::uint64_t cookie) = 0;
  /// Stops receiving, sends what is queued on it, closes it. Nothing is reported of it afterwards. Of streams and acceptors too: what write()
  /// has taken the kernel goes on sending, unless bytes have come that were not received: then TCP resets the connection.
  virtual void remove(SocketId socket) = 0;

  /// A listening TCP socket: its connections come as on_accept(). Out of descriptors, it accepts again once some are free (it looks ten times a second at most).
  virtual SocketId add_acceptor(Socket socket, std::uint64_t cookie) = 0;
  /// A TCP connection, connected or on its way there: then want_writable(), called at once, tells the outcome, and on_end() comes only to who
  /// has not asked or keeps a failed one. What comes is handed over as on_chunk().
  virtual SocketId add_stream(Socket socket, std::uint64_t cookie) = 0;
  /// Takes what the kernel takes of these pieces, in order, now: the bytes are free afterwards. How many bytes that were, perhaps 0, or a negative errno when
  /// the connection is broken. Never raises SIGPIPE.
  virtual std::ptrdiff_t write(SocketId socket, const iovec* pieces, std::size_t count) = 0;
  /// One on_writable(), once the connection takes bytes again.
  virtual void want_writable(SocketId socket) = 0;
  /// Back-pressure: pause() stops receiving, though what is on its way to us, or an end, may still be told; resume() goes on. While paused, an end
  /// that comes is told after resume(), or met by a write().
  virtual void pause(SocketId socket) = 0;
  virtual void resume(SocketId socket) = 0;
  /// Gives the socket up to the receiver, for another loop: see on_released(), which comes in a turn(). An end is left for who reads next.
  /// Nothing but on_chunk() and on_released() is told of it from here on.
  virtual void release(SocketId socket) = 0;
  /// Sends a FIN behind what write() has taken; receiving goes on.
  virtual void finish(SocketId socket) = 0;
  /// SO_ERROR of a stream: 0, or why a connect failed. Once there was an error, it stays.
  virtual int stream_error(SocketId socket) = 0;

  /// What the kernel asks of each datagram before it takes room in the socket's receive buffer; replaces the one before, and an empty one
  /// takes it away. 0, or the errno.
  virtual int set_filter(SocketId socket, const std::vector<FilterInstruction>& program) = 0;

  /// Queues; a full queue is flushed at once, so this never fails. What the kernel refuses is counted.
  virtual void send(const Outgoing& outgoing) = 0;

  /// Sends what is queued, waits until something arrives or `timeout` has passed (zero: does not wait; negative: no limit),
  /// hands over a bounded number of datagrams. Returns false when the loop is broken beyond use.
  virtual bool turn(nanoseconds timeout, Receiver& receiver) = 0;

  /// From any thread or signal handler: makes turn() return soon and call on_wake().
  virtual void wake() = 0;

  virtual const LoopCounters& counters() const = 0;
  /// Datagrams that the kernel dropped since the socket was added: its receive buffer was full, or a filter refused them. A system call.
  virtual std::uint64_t kernel_drops(SocketId socket) = 0;
  /// Brings counters().kernel_drops up to date: a system call a socket.
  virtual void count_kernel_drops() = 0;
  /// What a train met when it was first refused, for a line in the log: an errno and its destination. Empty until then, and again once told.
  struct Refusal {
    int error = 0;
    net::TransportAddress to;
    std::uint16_t segment = 0;
  };
  virtual std::optional<Refusal> first_refusal() = 0;
  /// Sockets added and sockets on which a receive is armed: equal when quiet (tests assert it).
  virtual std::size_t sockets() const = 0;
  virtual std::size_t armed() const = 0;
};

struct LoopSettings {
  std::size_t max_sockets = 70000;
  unsigned buffers = 512;  // receive buffers of the loop, rounded up to a power of two; a turn hands over no more datagrams than that
  nanoseconds gather{0};   // how long packets may wait for others once they come by the thousand; see relay/io/gather.h
  unsigned completions = 16384;  // io_uring: length of the completion queue, which tests make short
};

/// nullptr when this kernel or container refuses, with a sentence in `why` ("io_uring_setup: Operation not permitted (kernel.io_uring_disabled = 2)").
/// Must be called, and the loop used, on the thread that will run it (IORING_SETUP_SINGLE_ISSUER).
std::unique_ptr<Loop> make_uring_loop(const LoopSettings& settings, std::string& why);
std::unique_ptr<Loop> make_epoll_loop(const LoopSettings& settings, std::string& why);

}  // namespace radiotower::io
