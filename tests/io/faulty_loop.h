// A loop that fails on command, around a real one: what the layers above must survive, without waiting for a kernel to be in that mood.
// For faults below the loop (socket() out of descriptors, a send that is refused) see failing_calls.h.
#pragma once

#include <memory>
#include <set>
#include <utility>

#include "radiotower/io/loop.h"

namespace radiotower::io {

class FaultyLoop final : public Loop, private Receiver {
 public:
  explicit FaultyLoop(std::unique_ptr<Loop> real) : real_(std::move(real)) {}

  // Each counts down from n: 1 fails the next, 2 the one after; 0 fails none.
  void fail_add(int n) { fail_add_ = n; }    // no_socket, and the socket is closed
  void fail_send(int n) { fail_send_ = n; }  // dropped, counted as send_full
  void fail_turn(int n) { fail_turn_ = n; }  // false: the loop is broken beyond use
  /// A receive that ended and is not armed again: what arrives there is lost.
  void deafen(SocketId socket) { deaf_.insert(socket); }

  std::string_view name() const override { return real_->name(); }
  SocketId add(Socket socket, std::uint64_t cookie) override {
    return due(fail_add_) ? no_socket : real_->add(std::move(socket), cookie);
  }
  void remove(SocketId socket) override {
    deaf_.erase(socket);
    real_->remove(socket);
  }
  SocketId add_acceptor(Socket socket, std::uint64_t cookie) override { return real_->add_acceptor(std::move(socket), cookie); }
  SocketId add_stream(Socket socket, std::uint64_t cookie) override { return real_->add_stream(std::move(socket), cookie); }
  std::ptrdiff_t write(SocketId socket, const iovec* pieces, std::size_t count) override { return real_->write(socket, pieces, count); }
  void want_writable(SocketId socket) override { real_->want_writable(socket); }
  void pause(SocketId socket) override { real_->pause(socket); }
  void resume(SocketId socket) override { real_->resume(socket); }
  void release(SocketId socket) override { real_->release(socket); }
  void finish(SocketId socket) override { real_->finish(socket); }
  int stream_error(SocketId socket) override { return real_->stream_error(socket); }
  int set_filter(SocketId socket, const std::vector<FilterInstruction>& program) override { return real_->set_filter(socket, program); }
  void send(const Outgoing& outgoing) override {
    if (due(fail_send_)) ++dropped_;
    else real_->send(outgoing);
  }
  bool turn(nanoseconds timeout, Receiver& receiver) override {
    if (due(fail_turn_)) return false;
    receiver_ = &receiver;
    return real_->turn(timeout, *this);
  }
  void wake() override { real_->wake(); }
  const LoopCounters& counters() const override {
    counters_ = real_->counters();
    counters_.send_full += dropped_;
    return counters_;
  }
  std::uint64_t kernel_drops(SocketId socket) override { return real_->kernel_drops(socket); }
  void count_kernel_drops() override { real_->count_kernel_drops(); }
  std::optional<Refusal> first_refusal() override { return real_->first_refusal(); }
  std::size_t sockets() const override { return real_->sockets(); }
  std::size_t armed() const override { return real_->armed() - deaf_.size(); }

 private:
  static bool due(int& countdown) { return countdown > 0 && --countdown == 0; }
  void on_datagram(const Datagram& d) override {
    if (!deaf_.contains(d.socket)) receiver_->on_datagram(d);
  }
  void on_socket_error(const SocketError& e) override { receiver_->on_socket_error(e); }
  void on_wake() override { receiver_->on_wake(); }
  void on_accept(SocketId acceptor, std::uint64_t cookie, Socket socket, const net::TransportAddress& from) override {
    receiver_->on_accept(acceptor, cookie, std::move(socket), from);
  }
  void on_chunk(const Chunk& chunk) override { receiver_->on_chunk(chunk); }
  void on_end(SocketId socket, std::uint64_t cookie, int error) override { receiver_->on_end(socket, cookie, error); }
  void on_writable(SocketId socket, std::uint64_t cookie) override { receiver_->on_writable(socket, cookie); }
  void on_released(std::uint64_t cookie, Socket socket) override { receiver_->on_released(cookie, std::move(socket)); }

  std::unique_ptr<Loop> real_;
  Receiver* receiver_ = nullptr;
  std::set<SocketId> deaf_;
  int fail_add_ = 0, fail_send_ = 0, fail_turn_ = 0;
  std::uint64_t dropped_ = 0;
  mutable LoopCounters counters_;
};

}  // namespace radiotower::io
