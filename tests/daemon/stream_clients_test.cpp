// Clients over TCP and TLS on real loops, with a clock of the test's own, so that no deadline is waited for.
#include <doctest/doctest.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "daemon/stream_clients.h"
#include "radiotower/stun/message.h"

using namespace radiotower;
using namespace radiotower::daemon;
using namespace std::chrono_literals;

namespace {

const net::TransportAddress listener{*net::IpAddress::parse("127.0.0.1"), 3478};

/// A certificate for the process, made once.
std::shared_ptr<const tls::Identity> identity() {
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

std::vector<std::uint8_t> bytes_of(std::string_view text) { return {text.begin(), text.end()}; }

std::vector<std::uint8_t> binding(std::uint8_t id = 1) {
  std::vector<std::uint8_t> space(128);
  stun::TransactionId transaction{};
  transaction[0] = id;
  stun::Writer writer(space, stun::Class::request, stun::Method::binding, transaction);
  space.resize(writer.bytes().size());
  return space;
}
std::vector<std::uint8_t> channel_data(std::string_view payload, std::uint16_t channel = 0x4000) {
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
    clients = std::make_unique<StreamClients>(*loop, static_cast<StreamClients::Above&>(*this), log, HashKey{1, 2}, counts, std::make_shared<ConnectionSettings>(connections), settings);
  }
  void turn() {
    clients->begin_turn();
    REQUIRE(loop->turn(1ms, *this));
    clients->end_of_turn();
  }
  /// Turns until it is so; a test that fails says which.
  void until(const std::function<bool()>& so) {
    for (int i = 0; i < 4000 && !so(); ++i) turn();
    REQUIRE(so());
  }
  void pass(nanoseconds time) { now.steady += time; }

  // io::Receiver
  void on_datagram(const io::Datagram&) override {}
  void on_socket_error(const io::SocketError&) override {}
  void on_wake() override {}
  void on_accept(io::SocketId, std::uint64_t, io::Socket socket, const net::TransportAddress& from) override { clients->on_accept(listener, false, std::move(socket), from); }
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
    REQUIRE(poll(&wait, 1, 5000) == 1);
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

void on_both(const std::function<void(bool uring)>& test) {
  for (const bool uring : {true, false}) {
    CAPTURE(uring);
    test(uring);
  }
}
void shake_hands(Station& station, Client& client) {
  client.begin_tls();
  station.until([&] { return client.shakes_hands(); });
}

}  // namespace

TEST_CASE("streams: neighbouring ChannelData of one channel and length is one train, everything else alone") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    Client client(station);
    client.send(binding());
    station.until([&] { return station.messages.size() == 1; });
    CHECK(station.five_tuples[0] == net::FiveTuple{client.address, listener, net::Transport::tcp});
    station.prove(station.last);
    std::vector<std::uint8_t> all;
    const auto add = [&](const std::vector<std::uint8_t>& more) { all.insert(all.end(), more.begin(), more.end()); };
    for (int i = 0; i < 5; ++i) add(channel_data("12345"));
    add(channel_data("12345", 0x4001));
    add(binding());
    add(channel_data(""));
    client.send(all);
    station.until([&] { return station.messages.size() == 5; });
    CHECK(station.segments[1] == 12);
    CHECK(station.messages[1].size() == 60);
    CHECK(station.segments[2] == 0);
    CHECK(station.messages[2] == as_text(channel_data("12345", 0x4001)));
    CHECK(station.messages[3] == as_text(binding()));
    CHECK(station.messages[4] == as_text(channel_data("")));
    CHECK(station.counters().trains == 1);
  });
}

TEST_CASE("streams: the core gets the same however a session is cut (RFC 8489, 6.2.2) [T01, T03]") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    Client client(station);
    client.send(binding());
    station.until([&] { return station.messages.size() == 1; });
    station.prove(station.last);
    const auto data = channel_data("seven..");
    auto all = binding(9);
    all.insert(all.end(), data.begin(), data.end());
    std::size_t expected = 1;
    for (std::size_t offset = 1; offset < all.size(); ++offset) {
      client.send(Bytes(all).first(offset));
      const auto chunks = station.loop->counters().chunks_received;
      station.until([&] { return station.loop->counters().chunks_received != chunks; });
      client.send(Bytes(all).subspan(offset));
      expected += 2;
      station.until([&] { return station.messages.size() == expected; });
      REQUIRE(station.messages[expected - 2] == as_text(binding(9)));
      REQUIRE(station.messages[expected - 1] == as_text(data));
    }
    CHECK(station.counters().connections == 1);
  });
}

TEST_CASE("streams: ChannelData leaves with its padding, in one write a turn (RFC 8656, 12.5)") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    Client client(station);
    client.send(binding());
    station.until([&] { return station.messages.size() == 1; });
    const auto writes = station.counters().writes;
    std::string expected;
    for (const char* payload : {"1", "12", "123", "1234", "12345", ""}) {
      station.send(station.last, bytes_of(payload), true);
      expected += as_text(channel_data(payload));
    }
    // A train: two datagrams in one action.
    std::vector<std::uint8_t> train = bytes_of("abcdeABCDE");
    turn::Send send;
    send.socket = station.last;
    send.transport = net::Transport::tcp;
    send.bytes = train;
    send.stride = 5;
    send.prefix_size = 4;
    send.prefix = {0x40, 0, 0, 5};
    station.clients->send(send);
    expected.append(as_text(channel_data("abcde"))).append(as_text(channel_data("ABCDE")));
    station.until([&] { return client.reads().size() >= expected.size(); });
    CHECK(client.got == expected);
    CHECK(station.counters().writes == writes + 1);
  });
}

TEST_CASE("streams: what is no message closes the connection without a reply [T04, T05, T06, T09]") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    auto bad_cookie = binding();
    bad_cookie[5] ^= 1;
    auto odd_length = binding();
    odd_length[3] = 2;
    for (const auto& wrong : {bytes_of("GET / HTTP/1.1\r\n"), bytes_of("SSH-2.0-x"), bytes_of("PROXY TCP4 "), bytes_of("PRI * HTTP/2.0"), bytes_of("\x16\x03\x01"), bad_cookie, odd_length}) {
      Client client(station);
      client.send(wrong);
      station.until([&] { return client.reads(), client.ended; });
      CHECK(client.got.empty());
    }
    CHECK(station.messages.empty());
    CHECK(station.counters().closed_bad_message == 7);
    CHECK(station.counters().connections == 0);
    CHECK(station.counts->total() == 0);
  });
}

TEST_CASE("streams: deadlines: silence, a message that is not whole, no allocation [T07, T08, T10, T11]") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    const auto lives = [&](Client& client, nanoseconds time) {  // `time` passes in steps of a second
      for (; time > 0s; time -= 1s) {
        station.pass(1s);
        station.turn();
      }
      for (int i = 0; i < 5; ++i) station.turn();
      client.reads();
      return !client.ended;
    };
    {
      Client silent(station);
      station.until([&] { return station.clients->size() == 1; });
      CHECK(lives(silent, 14s));
      CHECK_FALSE(lives(silent, 2s));
      CHECK(station.counters().closed_silent == 1);
    }
    {
      Client slow(station);
      const auto whole = binding();
      for (std::size_t i = 0; i < 9; ++i) {
        slow.send(Bytes(whole).subspan(i, 1));
        REQUIRE(lives(slow, 1s));
      }
      CHECK_FALSE(lives(slow, 3s));
      CHECK(station.counters().closed_slow_message == 1);
    }
    {
      Client idle(station);
      idle.send(binding());
      station.until([&] { return station.messages.size() == 1; });
      station.prove(station.last);
      CHECK(lives(idle, 59s));
      station.allocated = true;  // it may be silent for as long as that lives
      CHECK(lives(idle, 200s));
      station.allocated = false;
      CHECK_FALSE(lives(idle, 62s));
      CHECK(station.counters().closed_idle == 1);
    }
    CHECK(station.counts->total() == 0);
  });
}

TEST_CASE("streams: a client that takes nothing loses the oldest media, no answer, and after thirty seconds its connection [T13]") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    Client client(station);
    client.send(binding());
    station.until([&] { return station.messages.size() == 1; });
    station.allocated = true;
    const std::string payload(1196, 'x');
    for (int i = 0; i < 40; ++i) {
      for (int k = 0; k < 100; ++k) station.send(station.last, bytes_of(payload), true);
      station.turn();
      station.space.clear();
    }
    CHECK(station.counters().media_dropped > 1000);
    CHECK(station.counters().bytes_queued <= 512 << 10);
    CHECK(station.counters().bytes_queued_at_most <= (512 << 10) + 120'000);
    for (int i = 0; i < 28; ++i) {
      station.pass(1s);
      station.turn();
    }
    station.send(station.last, bytes_of(payload), true);
    station.turn();
    CHECK(station.counters().bytes_queued <= 2 * 1200);  // the rest is too old, but for what has begun to leave
    CHECK(station.clients->size() == 1);
    station.pass(3s);
    station.until([&] { return station.clients->size() == 0; });
    CHECK(station.counters().closed_stalled == 1);
    CHECK(station.gone == 1);
    CHECK(station.counters().bytes_queued == 0);
  });
}

TEST_CASE("streams: who asks without end and takes no answer is closed") {
  Station station(false, false);
  Client client(station);
  client.send(binding());
  station.until([&] { return station.messages.size() == 1; });
  const std::vector<std::uint8_t> answer(1000, 1);
  for (int i = 0; i < 100 && station.clients->size() == 1; ++i) {
    for (int k = 0; k < 100; ++k) station.send(station.last, answer);
    station.turn();
    station.space.clear();
  }
  CHECK(station.counters().closed_overflow == 1);
  CHECK(station.gone == 1);
}

TEST_CASE("streams: FIN and RST end what the client had at once; what was asked before a FIN is answered [T12, L32]") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    station.on_message = [&](turn::SocketHandle via, turn::Train) { station.send(via, bytes_of("answer..")); };
    Client client(station);
    client.send(binding());
    client.half_closes();
    station.until([&] { return client.reads(), client.ended; });
    CHECK(client.got == "answer..");
    CHECK(station.gone == 1);
    Client other(station);
    other.send(Bytes(binding()).first(7));
    station.until([&] { return station.clients->size() == 1; });
    other.resets();
    station.until([&] { return station.clients->size() == 0; });
    CHECK(station.counts->total() == 0);
    CHECK(station.counts->sources() == 0);
  });
}

TEST_CASE("streams: the oldest of too many handshakes goes; whoever is through stays [T15]") {
  on_both([](bool uring) {
    Station station(uring, true);
    if (!station.loop) return;
    StreamClients::Limits limits;
    limits.in_handshake = 3;
    station.clients->set_limits(limits);
    Client served(station);
    shake_hands(station, served);
    std::vector<std::unique_ptr<Client>> half;
    for (std::size_t i = 0; i < 5; ++i) {
      half.push_back(std::make_unique<Client>(station));
      half.back()->send(bytes_of("\x16\x03\x01\x02"));
      station.until([&] { return station.counters().in_handshake == std::min<std::size_t>(i + 1, 3) && station.counters().closed_crowded_out == (i < 3 ? 0 : i - 2); });
    }
    station.until([&] { return half[0]->reads(), half[1]->reads(), half[0]->ended && half[1]->ended; });
    served.send(binding());
    station.until([&] { return station.messages.size() == 1; });
    station.pass(6s);
    station.until([&] { return station.counters().in_handshake == 0; });
    CHECK(station.counters().closed_slow_handshake == 3);
    CHECK(station.clients->size() == 1);
  });
}

TEST_CASE("streams: over TLS, as over TCP; a reload changes the certificate of those who come later") {
  on_both([](bool uring) {
    Station station(uring, true);
    if (!station.loop) return;
    station.on_message = [&](turn::SocketHandle via, turn::Train train) { station.send(via, bytes_of(as_text(train.bytes)), false, net::Transport::tls); };
    Client client(station);
    shake_hands(station, client);
    std::vector<std::uint8_t> many;
    for (std::uint8_t i = 0; i < 100; ++i) {
      const auto one = binding(i);
      many.insert(many.end(), one.begin(), one.end());
    }
    client.send(many);
    station.until([&] { return client.reads().size() == many.size(); });
    CHECK(client.got == as_text(many));
    CHECK(station.five_tuples[0].transport == net::Transport::tls);
    auto without = std::make_shared<ConnectionSettings>();
    station.clients->apply(without, station.settings);
    client.send(binding());
    station.until([&] { return client.reads().size() == many.size() + 20; });
    Client later(station);
    later.send(bytes_of("\x16\x03\x01\x02"));
    station.until([&] { return later.reads(), later.ended; });
  });
}

TEST_CASE("streams: a connection goes to another worker with what it has sent and what waits for it") {
  on_both([](bool uring) {
    for (const bool tls : {false, true}) {
      CAPTURE(tls);
      auto counts = std::make_shared<ConnectionCounts>(HashKey{3, 4});
      Station here(uring, tls, counts), there(uring, tls, counts);
      if (!here.loop || !there.loop) return;
      const net::Transport transport = tls ? net::Transport::tls : net::Transport::tcp;
      Client client(here);
      if (tls) shake_hands(here, client);
      here.on_message = [&](turn::SocketHandle via, turn::Train train) {
        if (train.bytes[8] == 2) here.clients->hand_over(via, 7, train.bytes);
        else here.send(via, bytes_of("here...."), false, transport);
      };
      there.on_message = [&](turn::SocketHandle via, turn::Train) { there.send(via, bytes_of("there..."), false, transport); };
      // One for here, one that is about there, and behind it a whole one and the front of another.
      std::vector<std::uint8_t> all;
      for (std::uint8_t id = 1; id <= 4; ++id) {
        const auto one = binding(id);
        all.insert(all.end(), one.begin(), one.end());
      }
      client.send(Bytes(all).first(70));
      here.until([&] { return !here.parcels.empty(); });
      CHECK(here.went_to == 7);
      CHECK(here.messages.size() == 2);
      CHECK(here.clients->size() == 0);
      CHECK(counts->total() == 1);  // it is still of the relay
      CHECK(here.parcels[0].five_tuple == net::FiveTuple{client.address, listener, transport});
      client.send(Bytes(all).subspan(70));
      there.clients->begin_turn();
      there.clients->receive(std::move(here.parcels[0]));
      there.clients->end_of_turn();
      there.until([&] { return client.reads().size() >= 32; });
      CHECK(client.got == "here....there...there...there...");
      REQUIRE(there.messages.size() == 3);
      for (std::uint8_t id = 2; id <= 4; ++id) CHECK(there.messages[id - 2u] == as_text(binding(id)));
      CHECK(there.five_tuples[0] == net::FiveTuple{client.address, listener, transport});
      client.half_closes();
      there.until([&] { return there.clients->size() == 0; });
      CHECK(counts->total() == 0);
      CHECK(counts->sources() == 0);
    }
  });
}

TEST_CASE("streams: a connection that is joined to a peer carries bytes, those behind the request first (RFC 6062, 4.4)") {
  on_both([](bool uring) {
    for (const bool tls : {false, true}) {
      CAPTURE(tls);
      Station station(uring, tls);
      if (!station.loop) return;
      Client client(station);
      if (tls) shake_hands(station, client);
      station.on_message = [&](turn::SocketHandle via, turn::Train) {
        station.send(via, bytes_of("bound..."), false, tls ? net::Transport::tls : net::Transport::tcp);
        station.clients->join(via);
      };
      auto all = binding();
      for (const char c : std::string_view("GET / anything")) all.push_back(static_cast<std::uint8_t>(c));
      client.send(all);
      station.until([&] { return station.joined == "GET / anything"; });
      const std::string big(600'000, 'p');
      bool room = true;
      std::size_t sent = 0;
      for (int i = 0; i < 1000 && room; ++i) {
        room = station.clients->write_joined(station.last, as_bytes(big).subspan(sent, 1000));
        sent += 1000;
      }
      CHECK_FALSE(room);
      station.turn();
      station.until([&] { return client.reads().size() == 8 + sent; });
      station.until([&] { return station.rooms >= 1; });
      CHECK(client.got == "bound..." + big.substr(0, sent));
      station.pass(300s);  // no deadline of a request
      station.turn();
      CHECK(station.clients->size() == 1);
      client.half_closes();
      station.until([&] { return station.clients->size() == 0; });
      CHECK(station.joined_ends == 1);
    }
  });
}

TEST_CASE("streams: two connections cannot be one client, whatever a front end says [T16]") {
  on_both([](bool uring) {
    Station station(uring, false);
    if (!station.loop) return;
    std::string why;
    station.connections.proxy_protocol_from = {*net::AddressRange::parse("127.0.0.0/8", why)};
    station.start();
    const auto header = bytes_of("PROXY TCP4 203.0.113.7 192.0.2.1 40001 443\r\n");
    const auto with_header = [&](Client& client) {
      auto all = header;
      const auto request = binding();
      all.insert(all.end(), request.begin(), request.end());
      client.send(all);
    };
    Client first(station), second(station), without(station);
    with_header(first);
    station.until([&] { return station.messages.size() == 1; });
    CHECK(station.five_tuples[0] == net::FiveTuple{{*net::IpAddress::parse("203.0.113.7"), 40001}, listener, net::Transport::tcp});
    with_header(second);
    without.send(binding());
    station.until([&] { return second.reads(), without.reads(), second.ended && without.ended; });
    CHECK(station.messages.size() == 1);
    CHECK(station.counters().refused_duplicate == 1);
    CHECK(station.counters().closed_bad_proxy_header == 1);
    CHECK(station.clients->size() == 1);
    CHECK(station.gone == 0);
  });
}
