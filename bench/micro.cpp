// What the pure core costs without a kernel: messages, integrity, requests, and what strangers make it do. Google
// Benchmark; the data path is in micro_data.cpp.
//
// These figures find a slip in our own code. They say little about a relay, whose time goes into the kernel's UDP path.
#include <benchmark/benchmark.h>

#include <random>
#include <string>

#include "micro_relay.h"

namespace {

using namespace radiotower;
using namespace radiotower::micro;
using stun::Attribute;

constexpr std::string_view some_nonce = "0123456789abcdef0123456789abcdef01234567";
const net::TransportAddress some_peer = at("198.51.100.7:5000");

// Messages

void read_message(benchmark::State& state, const Buffer& bytes) {
  if (!stun::Message::read(bytes)) state.SkipWithError("not a message");
  for (auto _ : state) benchmark::DoNotOptimize(stun::Message::read(bytes));
}

Buffer with_fingerprint() {
  Buffer bytes(1024);
  stun::Writer writer(bytes, stun::Class::request, stun::Method::binding, id);
  writer.add_fingerprint();
  bytes.resize(writer.bytes().size());
  return bytes;
}

BENCHMARK_CAPTURE(read_message, binding, binding_request());
BENCHMARK_CAPTURE(read_message, binding_with_fingerprint, with_fingerprint());
BENCHMARK_CAPTURE(read_message, allocate, allocate_request(some_nonce));
BENCHMARK_CAPTURE(read_message, channel_bind, channel_bind_request(some_nonce, first_channel, some_peer));
BENCHMARK_CAPTURE(read_message, create_permission_of_100, create_permission_request(some_nonce, some_peer, 100));
BENCHMARK_CAPTURE(read_message, send_indication_1000, send_indication(some_peer, 1000));

void check_integrity(benchmark::State& state) {
  const Buffer bytes = allocate_request(some_nonce);
  const auto message = stun::Message::read(bytes);
  for (auto _ : state) benchmark::DoNotOptimize(message->integrity_matches(key().bytes()));
}
BENCHMARK(check_integrity);

void check_integrity_sha256(benchmark::State& state) {
  Buffer bytes(1024);
  stun::Writer writer(bytes, stun::Class::request, stun::Method::allocate, id);
  writer.add(Attribute::username, "bench").add(Attribute::nonce, some_nonce).add_integrity_sha256(key().bytes());
  bytes.resize(writer.bytes().size());
  const auto message = stun::Message::read(bytes);
  for (auto _ : state) benchmark::DoNotOptimize(message->integrity_sha256_matches(key().bytes()));
}
BENCHMARK(check_integrity_sha256);

void write_request_with_integrity(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(allocate_request(some_nonce));
}
BENCHMARK(write_request_with_integrity);

void make_long_term_key(benchmark::State& state) {
  for (auto _ : state)
    benchmark::DoNotOptimize(stun::long_term_key(stun::PasswordAlgorithm::md5, "bench", "bench", "secret"));
}
BENCHMARK(make_long_term_key);

// Requests of a client, each with one answer

void answer(benchmark::State& state, Relay& r, const net::FiveTuple& from, const Buffer& bytes) {
  Received received(bytes);
  for (auto _ : state) {
    r.server->from_client(from, listener, received.train(), r.now, r.actions);
    if (r.actions.sends.size() != 1) state.SkipWithError("no answer");
    r.actions.clear();
  }
}

void refresh(benchmark::State& state) {
  Relay r;
  const Buffer bytes = refresh_request(r.challenge(r.five_tuple()), 600);
  r.must_succeed(r.five_tuple(), bytes);
  answer(state, r, r.five_tuple(), bytes);
}
BENCHMARK(refresh);

void channel_bind(benchmark::State& state) {
  Relay r;
  const Buffer bytes = channel_bind_request(r.challenge(r.five_tuple()), first_channel, r.peer);
  r.must_succeed(r.five_tuple(), bytes);
  answer(state, r, r.five_tuple(), bytes);
}
BENCHMARK(channel_bind);

void create_permission(benchmark::State& state) {
  Relay r;
  const Buffer bytes = create_permission_request(r.challenge(r.five_tuple()), r.peer);
  r.must_succeed(r.five_tuple(), bytes);
  answer(state, r, r.five_tuple(), bytes);
}
BENCHMARK(create_permission);

// Allocate, the port that it opens, a Refresh that ends it. Argument: how many other clients there are.
void allocate_and_end(benchmark::State& state) {
  Relay r(static_cast<std::size_t>(state.range(0)));
  const net::FiveTuple from = Relay::tuple_of(static_cast<std::size_t>(state.range(0)));
  // Time passes, since a freed port rests for 30 seconds; and stops before the nonce gets old.
  const Now start = r.now;
  const std::string nonce = r.challenge(from);
  Received make(allocate_request(nonce)), end(refresh_request(nonce, 0));
  for (auto _ : state) {
    r.server->from_client(from, listener, make.train(), r.now, r.actions);
    if (r.actions.opens.size() != 1) {
      state.SkipWithError("no port");
      break;
    }
    const turn::RelayId relay = r.actions.opens.front().relay;
    r.actions.clear();
    r.server->relay_opened(relay, 2, r.now, r.actions);
    r.server->from_client(from, listener, end.train(), r.now, r.actions);
    if (r.actions.closes.size() != 1) state.SkipWithError("the allocation has not ended");
    r.actions.clear();
    if (r.now.steady - start.steady < seconds(550)) r.now.steady += milliseconds(2);
  }
}
BENCHMARK(allocate_and_end)->Arg(1)->Arg(16000);

// What strangers make it do

const net::FiveTuple& stranger() {
  static const net::FiveTuple tuple = Relay::tuple_of(60000);
  return tuple;
}

void challenge_a_stranger(benchmark::State& state) {
  Relay r;
  answer(state, r, stranger(), allocate_request(""));
}
BENCHMARK(challenge_a_stranger);

void answer_a_binding_request(benchmark::State& state) {
  Relay r;
  answer(state, r, stranger(), binding_request());
}
BENCHMARK(answer_a_binding_request);

void refuse_a_wrong_password(benchmark::State& state) {
  Relay r;
  const stun::Key wrong = stun::long_term_key(stun::PasswordAlgorithm::md5, "bench", "bench", "another");
  answer(state, r, stranger(), allocate_request(r.challenge(stranger()), wrong));
}
BENCHMARK(refuse_a_wrong_password);

void refuse_a_stale_nonce(benchmark::State& state) {
  Relay r;
  answer(state, r, stranger(), allocate_request(some_nonce));
}
BENCHMARK(refuse_a_stale_nonce);

Buffer random_bytes(std::uint8_t first, std::size_t size) {
  std::mt19937 engine(1);
  Buffer bytes(size);
  for (auto& b : bytes) b = static_cast<std::uint8_t>(engine());
  bytes[0] = first;
  return bytes;
}

// A message whose header is right and whose attributes are not.
Buffer broken_message() {
  Buffer bytes = random_bytes(0, 1000);
  store_be16(bytes.data(), 0x0003);
  store_be16(bytes.data() + 2, 980);
  store_be32(bytes.data() + 4, stun::magic_cookie);
  return bytes;
}

void drop(benchmark::State& state, const Buffer& bytes, std::size_t segment) {
  Relay r;
  Received received(bytes);
  for (auto _ : state) {
    r.server->from_client(stranger(), listener, received.train(segment), r.now, r.actions);
    if (!r.actions.empty()) state.SkipWithError("not dropped");
  }
}
BENCHMARK_CAPTURE(drop, random_bytes, random_bytes(0x80, 1000), 0);
BENCHMARK_CAPTURE(drop, random_bytes_like_a_message, random_bytes(0x00, 1000), 0);
BENCHMARK_CAPTURE(drop, message_with_random_attributes, broken_message(), 0);
BENCHMARK_CAPTURE(drop, channel_data_of_a_stranger, channel_data(sizes(1, 1000)), 0);
BENCHMARK_CAPTURE(drop, channel_data_of_a_stranger_train_of_8, channel_data(sizes(8, 1000)), 1004);
BENCHMARK_CAPTURE(drop, send_indication_of_a_stranger, send_indication(some_peer, 1000), 0);

void drop_unbound_channel(benchmark::State& state) {
  Relay r;
  Buffer bytes = channel_data(sizes(1, 1000));
  store_be16(bytes.data(), 0x4ABC);
  Received received(bytes);
  for (auto _ : state) {
    r.server->from_client(r.five_tuple(), listener, received.train(), r.now, r.actions);
    if (!r.actions.empty()) state.SkipWithError("not dropped");
  }
}
BENCHMARK(drop_unbound_channel);

}  // namespace

BENCHMARK_MAIN();
