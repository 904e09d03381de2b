// Clients over TCP and TLS on real loops, without a server: with a clock of the test's own, so that no deadline is waited for.
#pragma once

#include <doctest/doctest.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "daemon/stream_clients.h"
#include "radiotower/stun/message.h"

namespace radiotower::daemon::streams_test {

using namespace std::chrono_literals;

inline const net::TransportAddress listener{*net::IpAddress::parse("127.0.0.1"), 3478};

/// A certificate for the process, made once.
inline std::shared_ptr<const tls::Identity> identity() {
  static const std::shared_ptr<const tls::Identity> made = [] {
    std::string folder = (std::filesystem::temp_directory_path() / "radiotower-streams-XXXXXX").string();
    REQUIRE(mkdtemp(folder.data()) != nullptr);
    const std::string certificate = folder + "/certificate.pem", key = folder + "/key.pem";
    const std::string command = "umask 077; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=turn.example.org "
                                "-addext subjectAltName=DNS:turn.example.org -keyout " + key + " -out " + certificate + " 2>/dev/null";
    REQUIRE(std::system(command.c_str()) == 0);
    std::string why;
    std::vector<std::string> warnings;
    auto loaded = tls::Identity::load({{certificate, key}}, why, warnings);
    std::filesystem::remove_all(folder);
    REQUIRE_MESSAGE(loaded, why);
    return loaded;
  }();
  return made;
}

inline std::vector<std::uint8_t> bytes_of(std::string_view text) { return {text.begin(), text.end()}; }

inline std::vector<std::uint8_t> binding(std::uint8_t id = 1) {
  std::vector<std::uint8_t> space(128);
  stun::TransactionId transaction{};
  transaction[0] = id;
  stun::Writer writer(space, stun::Class::request, stun::Method::binding, transaction);
  space.resize(writer.bytes().size());
  return space;
}
inline std::vector<std::uint8_t> channel_data(std::string_view payload, std::uint16_t channel = 0x4000) {
  std::vector<std::uint8_t> bytes(4 + (payload.size() + 3) / 4 * 4);
  store_be16(bytes.data(), channel);
  store_be16(bytes.data() + 2, static_cast<std::uint16_t>(payload.size()));
  std::copy(payload.begin(), payload.end(), bytes.begin() + 4);
  return bytes;
}

/// A worker without a server: notes what comes, and answers as the test says.
struct Station final : io::Receiver, StreamClients::Above {
  Station(bool uring, bool with_tls, std::shared_ptr<ConnectionCounts> shared = nullptr)
      : counts(shared ? shared : std::make_shared<ConnectionCounts>(HashKey{3, 4})), log({LogFormat::text, Priority::error, 2, 64}) {
    std::string why;
    loop = uring ? io::make_uring_loop({256, 64}, why) : io::make_epoll_loop({256, 64}, why);
    if (!loop) {
      MESSAGE("left out: ", why);
      return;
    }
    int error = 0;
    io::Socket acceptor = io::open_tcp_listener({*net::IpAddress::parse("127.0.0.1"), 0}, {}, error);
    REQUIRE(acceptor);
    address = io::local_address(acceptor);
    REQUIRE(loop->add_acceptor(std::move(acceptor), client_acceptor_bit) != io::no_socket);
    connections.per_source = 0;
    if (with_tls) connections.identity = identity();
    settings = std::make_shared<turn::Settings>();
    start();
  }
  void start() {
    clients = std::make_unique<StreamClients>(*loop, static_cast<StreamClients::Above&>(*this), log, HashKey{1, 2}, counts,
                                              std::make_shared<ConnectionSettings>(connections), settings);
  }
  void turn() {
    clients->begin_turn();
    REQUIRE(loop->turn(1ms, *this));
    clients->end_of_turn();
  }
  /// Turns until it is so; a test that fails says which.
  void until(const std::function<bool()>& so) {
    for (const auto end = std::chrono::steady_clock::now() + 30s; !so() && std::chrono::steady_clock::now() < end;) turn();
    REQUIRE(so());
  }
  void pass(nanoseconds time) { now.steady += time; }

  // io::Receiver
  void on_datagram(const io::Datagram&) override {}
  void on_socket_error(const io::SocketError&) override {}
  void on_wake() override {}
  void on_accept(io::SocketId, std::uint64_t, io::Socket socket, const net::TransportAddress& from) override {
    clients->on_accept(listener, false, std::move(socket), from);
  }
  void on_chunk(const io::Chunk& chunk) override { clients->on_chunk(chunk); }
  void on_end(io::SocketId, std::uint64_t cookie, int error) override { clients->on_end(cookie, error); }
  void on_writable(io::SocketId, std::uint64_t cookie) override { clients->on_writable(cookie); }
  void on_released(std::uint64_t cookie, io::Socket socket) override { clients->on_released(cookie, std::move(socket)); }

  // StreamClients::Above
  const Now& this_turn() override { return now; }
  void stream_message(const net::FiveTuple& five_tuple, turn::SocketHandle via, turn::Train train) override {
    five_tuples.push_back(five_tuple);
    last = via;
    messages.emplace_back(as_text(train.bytes));
    segments.push_back(train.segment);
    if (on_message) on_message(via, train);
  }
  void stream_gone(const net::FiveTuple&) override { ++gone; }
  bool has_allocation(const net::FiveTuple&) override { return allocated; }
  void hand_over(unsigned worker, Parcel parcel) override {
    went_to = worker;
    parcels.push_back(std::move(parcel));
  }
  void joined_bytes(turn::SocketHandle, MutableBytes bytes) override { joined += as_text(bytes); }
  void joined_room(turn::SocketHandle) override { ++rooms; }
  void joined_gone(turn::SocketHandle) override { ++joined_ends; }

  /// As the server answers: from a space that lives for the turn.
  void send(turn::SocketHandle client, std::vector<std::uint8_t> bytes, bool is_channel_data = false, net::Transport transport = net::Transport::tcp) {
    auto& kept = *space.emplace_back(std::make_unique<std::vector<std::uint8_t>>(4 + bytes.size() + 4));
    std::copy(bytes.begin(), bytes.end(), kept.begin() + 4);
    turn::Send send;
    send.socket = client;
    send.transport = transport;
    send.bytes = MutableBytes(kept).subspan(4, bytes.size());
    if (is_channel_data) {
      send.prefix_size = 4;
      store_be16(send.prefix.data(), 0x4000);
      store_be16(send.prefix.data() + 2, static_cast<std::uint16_t>(bytes.size()));
    }
    clients->send(send);
  }
  /// As when an Allocate has succeeded: from then on it may send ChannelData.
  void prove(turn::SocketHandle client) {
    send(client, {0x01, 0x03, 0, 0, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  }
  const StreamCounters& counters() { return clients->counters(); }

  std::shared_ptr<ConnectionCounts> counts;
  Log log;
  ConnectionSettings connections;
  std::shared_ptr<const turn::Settings> settings;
  net::TransportAddress address;
  std::unique_ptr<io::Loop> loop;
  std::unique_ptr<StreamClients> clients;
  Now now{Time(1h), 0};
  std::function<void(turn::SocketHandle, turn::Train)> on_message;
  std::vector<std::string> messages;
  std::vector<std::uint16_t> segments;
  std::vector<net::FiveTuple> five_tuples;
  std::vector<std::unique_ptr<std::vector<std::uint8_t>>> space;
  std::vector<Parcel> parcels;
  std::string joined;
  unsigned went_to = 0;
  int gone = 0, rooms = 0, joined_ends = 0;
  bool allocated = false;
  turn::SocketHandle last = turn::no_socket;
};

/// A client, which never waits.
class Client {
 public:
  explicit Client(const Station& station) {
    int error = 0;
    io::Socket socket = io::connect_tcp({*net::IpAddress::parse("127.0.0.1"), 0}, station.address, error);
    REQUIRE(socket);
    pollfd wait{socket.descriptor(), POLLOUT, 0};
    REQUIRE(poll(&wait, 1, 30'000) == 1);
    address = io::local_address(socket);
    socket_ = socket.release();
  }
  ~Client() {
    if (ssl_) SSL_free(ssl_);
    if (context_) SSL_CTX_free(context_);
    if (socket_ >= 0) close(socket_);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void begin_tls() {
    context_ = SSL_CTX_new(TLS_client_method());
    ssl_ = SSL_new(context_);
    SSL_set_fd(ssl_, socket_);
  }
  bool shakes_hands() { return SSL_connect(ssl_) == 1; }
  void send(Bytes bytes) {
    if (ssl_) REQUIRE(SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size())) == static_cast<int>(bytes.size()));
    else REQUIRE(::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size()));
  }
  /// What has come by now, appended; `ended` once nothing more will.
  const std::string& reads() {
    char buffer[65536];
    for (;;) {
      const ssize_t n = ssl_ ? SSL_read(ssl_, buffer, sizeof buffer) : recv(socket_, buffer, sizeof buffer, MSG_DONTWAIT);
      if (n <= 0) {
        if (ssl_ ? SSL_get_error(ssl_, static_cast<int>(n)) != SSL_ERROR_WANT_READ : n == 0 || (errno != EAGAIN && errno != EINTR)) ended = true;
        return got;
      }
      got.append(buffer, static_cast<std::size_t>(n));
    }
  }
  void half_closes() { shutdown(socket_, SHUT_WR); }
  void resets() {
    const linger now{1, 0};
    setsockopt(socket_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(std::exchange(socket_, -1));
  }

  net::TransportAddress address;
  std::string got;
  bool ended = false;

 private:
  int socket_ = -1;
  SSL_CTX* context_ = nullptr;
  SSL* ssl_ = nullptr;
};

inline void on_both(const std::function<void(bool uring)>& test) {
  for (const bool uring : {true, false}) {
    CAPTURE(uring);
    test(uring);
  }
}
inline void shake_hands(Station& station, Client& client) {
  client.begin_tls();
  station.until([&] { return client.shakes_hands(); });
}

}  // namespace radiotower::daemon::streams_test
