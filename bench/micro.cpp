// What the pure core costs without a kernel: parsing, integrity, and both ways of a channel. Google Benchmark.
//
// These figures find a slip in our own code. They say little about a relay, whose time goes into the kernel's UDP path.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "radiotower/stun/message.h"
#include "radiotower/turn/server.h"

namespace {

using namespace radiotower;
using stun::Attribute;

constexpr std::uint16_t channel = 0x4000;
constexpr std::size_t payload = 1000;
constexpr turn::SocketHandle listener = 1, relay_socket = 2;

net::TransportAddress at(const char* text) { return *net::TransportAddress::parse(text); }

[[noreturn]] void give_up(const char* what) {
  std::fprintf(stderr, "radiotower-micro: %s\n", what);
  std::exit(1);
}

const stun::Key& key() {
  static const stun::Key k = stun::long_term_key(stun::PasswordAlgorithm::md5, "bench", "bench", "secret");
  return k;
}

const stun::TransactionId id{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

using Buffer = std::vector<std::uint8_t>;

template <typename Add>
Buffer request(stun::Method method, std::string_view nonce, Add&& add) {
  Buffer bytes(1024);
  stun::Writer writer(bytes, stun::Class::request, method, id);
  add(writer);
  if (!nonce.empty()) {
    writer.add(Attribute::username, "bench");
    writer.add(Attribute::realm, "bench");
    writer.add(Attribute::nonce, nonce);
    writer.add_integrity(key().bytes());
  }
  bytes.resize(writer.bytes().size());
  return bytes;
}

Buffer allocate_request(std::string_view nonce) {
  return request(stun::Method::allocate, nonce,
                 [](stun::Writer& w) { w.add_u32(Attribute::requested_transport, 17u << 24); });
}

// A server with one client, that has one allocation and one channel.
class Relay {
 public:
  Relay() {
    auto settings = std::make_shared<turn::Settings>();
    settings->realm = "bench";
    settings->limits.error_answers_per_second = 0;
    settings->relay_addresses = {{at("198.18.0.1:1").ip, at("198.18.0.1:1").ip}};
    settings->listeners = {five_tuple.server};
    std::string why;
    net::PeerPolicySettings peers;
    peers.allow.push_back(*net::PeerRule::parse("198.51.100.7", why));
    settings->peers = std::make_shared<net::PeerPolicy>(std::move(peers));
    turn::Directory::Input users;
    users.realm = "bench";
    turn::User user;
    user.name = "bench";
    user.password = "secret";
    users.users.push_back(std::move(user));
    settings->directory = std::make_shared<turn::Directory>(std::move(users));
    now.steady = Time(seconds(1000));
    now.unix_time = 1'767'000'000;
    const HashKey hash_key{1, 2};
    const auto shared = std::make_shared<turn::Shared>(*settings, system_random(), hash_key);
    server = std::make_unique<turn::Server>(shared, settings, turn::NonceMint(system_random()), hash_key,
                                            system_random());

    const std::string nonce = challenge();
    from_client(allocate_request(nonce));
    if (actions.opens.size() != 1) give_up("the allocation opens no relay port");
    const turn::OpenRelay open = actions.opens.front();
    relay = open.relay;
    actions.clear();
    server->relay_opened(relay, relay_socket, now, actions);
    actions.clear();
    from_client(request(stun::Method::channel_bind, nonce, [&](stun::Writer& w) {
      w.add_u32(Attribute::channel_number, std::uint32_t{channel} << 16);
      w.add_xor_address(Attribute::xor_peer_address, peer);
    }));
    const auto bound = actions.sends.size() == 1 ? stun::Message::read(actions.sends.front().bytes) : std::nullopt;
    if (!bound || !bound->is(stun::Class::success, stun::Method::channel_bind)) give_up("the channel is not bound");
    actions.clear();
  }

  // The bytes stand where a receive would have put them: with room in front and behind.
  static Buffer received(const Buffer& bytes) {
    Buffer buffer(turn::Train::headroom + bytes.size() + 4);
    for (std::size_t i = 0; i < bytes.size(); ++i) buffer[turn::Train::headroom + i] = bytes[i];
    return buffer;
  }
  static turn::Train train(Buffer& buffer, std::size_t segment = 0) {
    return {MutableBytes(buffer).subspan(turn::Train::headroom, buffer.size() - turn::Train::headroom - 4),
            static_cast<std::uint16_t>(segment)};
  }
  void from_client(const Buffer& bytes) {
    Buffer buffer = received(bytes);
    server->from_client(five_tuple, listener, train(buffer), now, actions);
  }

  net::FiveTuple five_tuple{at("198.51.100.9:40000"), at("198.18.0.1:3478"), net::Transport::udp};
  net::TransportAddress peer = at("198.51.100.7:5000");
  Now now;
  std::unique_ptr<turn::Server> server;
  turn::Actions actions;
  turn::RelayId relay;

 private:
  std::string challenge() {
    from_client(allocate_request(""));
    if (actions.sends.size() != 1) give_up("no answer to an Allocate request");
    const auto answer = stun::Message::read(actions.sends.front().bytes);
    const auto nonce = answer ? answer->find(Attribute::nonce) : std::nullopt;
    if (!nonce) give_up("no nonce in the answer to an Allocate request");
    const std::string text(as_text(*nonce));
    actions.clear();
    return text;
  }
};

void read_message(benchmark::State& state) {
  const Buffer bytes = allocate_request("0123456789abcdef0123456789abcdef");
  for (auto _ : state) benchmark::DoNotOptimize(stun::Message::read(bytes));
}
BENCHMARK(read_message);

void check_integrity(benchmark::State& state) {
  const Buffer bytes = allocate_request("0123456789abcdef0123456789abcdef");
  const auto message = stun::Message::read(bytes);
  for (auto _ : state) benchmark::DoNotOptimize(message->integrity_matches(key().bytes()));
}
BENCHMARK(check_integrity);

void write_request_with_integrity(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(allocate_request("0123456789abcdef0123456789abcdef"));
}
BENCHMARK(write_request_with_integrity);

void make_long_term_key(benchmark::State& state) {
  for (auto _ : state)
    benchmark::DoNotOptimize(stun::long_term_key(stun::PasswordAlgorithm::md5, "bench", "bench", "secret"));
}
BENCHMARK(make_long_term_key);

void answer_a_stranger(benchmark::State& state) {
  Relay r;
  const net::FiveTuple stranger{at("198.51.100.9:40001"), r.five_tuple.server, net::Transport::udp};
  Buffer buffer = Relay::received(allocate_request(""));
  for (auto _ : state) {
    r.server->from_client(stranger, listener, Relay::train(buffer), r.now, r.actions);
    if (r.actions.sends.size() != 1) state.SkipWithError("no answer");
    r.actions.clear();
  }
}
BENCHMARK(answer_a_stranger);

// Argument: datagrams in the train.
void relay_to_peer(benchmark::State& state) {
  Relay r;
  const auto count = static_cast<std::size_t>(state.range(0));
  Buffer bytes(count * (stun::channel_header_size + payload));
  for (std::size_t i = 0; i < count; ++i) {
    std::uint8_t* const datagram = bytes.data() + i * (stun::channel_header_size + payload);
    store_be16(datagram, channel);
    store_be16(datagram + 2, payload);
  }
  Buffer buffer = Relay::received(bytes);
  const turn::Train train = Relay::train(buffer, count > 1 ? stun::channel_header_size + payload : 0);
  for (auto _ : state) {
    r.server->from_client(r.five_tuple, listener, train, r.now, r.actions);
    if (r.actions.sends.size() != 1) state.SkipWithError("not relayed");
    r.actions.clear();
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * count));
}
BENCHMARK(relay_to_peer)->Arg(1)->Arg(8);

void relay_to_client(benchmark::State& state) {
  Relay r;
  const auto count = static_cast<std::size_t>(state.range(0));
  Buffer buffer = Relay::received(Buffer(count * payload));
  const turn::Train train = Relay::train(buffer, count > 1 ? payload : 0);
  for (auto _ : state) {
    r.server->from_peer(r.relay, r.peer, train, r.now, r.actions);
    if (r.actions.sends.size() != 1) state.SkipWithError("not relayed");
    r.actions.clear();
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * count));
}
BENCHMARK(relay_to_client)->Arg(1)->Arg(8);

}  // namespace

BENCHMARK_MAIN();
