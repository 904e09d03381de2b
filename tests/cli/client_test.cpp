// The client against a server of a few lines that plays a script: what arrives decides what is said, never when.
#include <doctest/doctest.h>

#include <functional>
#include <thread>

#include "client.h"
#include "peer.h"
#include "report.h"

using namespace radiotower;
using namespace radiotower::cli;
using stun::Attribute;
using stun::Class;
using stun::ErrorCode;
using stun::Message;
using stun::Method;
using stun::Writer;

namespace {

constexpr std::chrono::milliseconds patience{30'000};  // bounds a broken test; a good one never waits

net::TransportAddress at(std::string_view text) { return *net::TransportAddress::parse(text); }

/// Answers one request with what the next step of the script writes. A step that writes nothing stays silent. What is sent again
/// after its answer, because this machine is busy, is no step of its own.
class Script {
 public:
  using Step = std::function<void(const Message& request, const std::function<void(const std::function<void(Writer&)>&, Class)>& answer)>;

  explicit Script(std::vector<Step> steps) : steps_(std::move(steps)) {
    std::string why;
    socket_ = *UdpSocket::bound_to(at("127.0.0.1:0"), why);
    address_ = socket_.local();
    thread_ = std::thread([this] { play(); });
  }
  ~Script() { thread_.join(); }
  const net::TransportAddress& address() const { return address_; }

 private:
  void play() {
    std::array<std::uint8_t, 2048> in, out;
    const auto deadline = Clock::now() + patience;
    stun::TransactionId answered{};
    for (std::size_t i = 0; i < steps_.size();) {
      std::size_t size = 0;
      net::TransportAddress from;
      if (socket_.receive(in, deadline, size, from) != UdpSocket::Arrival::datagram) return;
      const auto request = Message::read(Bytes(in).first(size));
      if (!request) return;
      if (request->transaction_id() == answered) continue;
      steps_[i++](*request, [&](const std::function<void(Writer&)>& fill, Class message_class) {
        Writer writer(out, message_class, request->method(), request->transaction_id());
        fill(writer);
        answered = request->transaction_id();
        socket_.send_to(from, writer.bytes());
      });
    }
  }

  std::vector<Step> steps_;
  UdpSocket socket_;
  net::TransportAddress address_;
  std::thread thread_;
};

const stun::Key md5_key = stun::long_term_key(stun::PasswordAlgorithm::md5, "alice", "example.org", "password");
const stun::Key sha256_key = stun::long_term_key(stun::PasswordAlgorithm::sha256, "alice", "example.org", "password");

void challenge(Writer& w, ErrorCode code, std::string_view nonce) {
  w.add_error(code, "").add(Attribute::realm, std::string_view("example.org")).add(Attribute::nonce, nonce);
}

void allocation(Writer& w) {
  w.add_xor_address(Attribute::xor_relayed_address, at("192.0.2.15:50000"))
      .add_xor_address(Attribute::xor_mapped_address, at("192.0.2.1:7000"))
      .add_u32(Attribute::lifetime, 600);
}

Client client_of(const Script& script, std::chrono::milliseconds timeout = patience) {
  std::string why;
  auto client = Client::open(script.address(), {"alice", "password"}, system_random(), {timeout, std::chrono::milliseconds(200)}, why);
  REQUIRE(client);
  return std::move(*client);
}

std::string text_of(const Message& m, Attribute type) {
  const auto value = m.find(type);
  return value ? std::string(as_text(*value)) : "(absent)";
}

Script::Step challenges(ErrorCode code, std::string nonce) {
  return [=](const Message&, const auto& answer) { answer([&](Writer& w) { challenge(w, code, nonce); }, Class::error); };
}

Script::Step allocates_when(std::function<bool(const Message&)> sound) {
  return [=](const Message& m, const auto& answer) {
    if (sound(m)) answer([](Writer& w) { allocation(w); w.add_integrity(md5_key.bytes()); }, Class::success);
    else answer([](Writer& w) { w.add_error(ErrorCode::bad_request, "").add_integrity(md5_key.bytes()); }, Class::error);
  };
}

}  // namespace

TEST_CASE("a request is sent at 0, 500, 1500, 3500, 7500, 15500 and 31500 ms and given up at 39500 (RFC 8489, 6.2.1)") {
  const Retransmission schedule;
  const std::vector<int> expected = {0, 500, 1500, 3500, 7500, 15500, 31500};
  REQUIRE(Retransmission::sends == expected.size());
  for (unsigned n = 0; n < expected.size(); ++n) CHECK(schedule.send_at(n).count() == expected[n]);
  CHECK(schedule.give_up_at().count() == 39500);
}

TEST_CASE("Binding tells the reflexive address, after a lost request too") {
  stun::TransactionId first{};
  bool same = false;
  Script script({[&](const Message& m, const auto&) { first = m.transaction_id(); },
                 [&](const Message& m, const auto& answer) {
                   same = m.transaction_id() == first;
                   answer([](Writer& w) { w.add_xor_address(Attribute::xor_mapped_address, at("192.0.2.1:7000")); }, Class::success);
                 }});
  auto client = client_of(script);
  Outcome outcome;
  CHECK(client.binding(outcome) == at("192.0.2.1:7000"));
  CHECK(outcome.sends >= 2);
  CHECK(same);  // a retransmission is the same transaction (RFC 8489, 6.2.1)
}

TEST_CASE("a server that stays silent is no answer, and a port where nobody listens is told apart") {
  std::string why;
  auto silent = UdpSocket::bound_to(at("127.0.0.1:0"), why);
  REQUIRE(silent);
  auto client = Client::open(silent->local(), {}, system_random(), {std::chrono::milliseconds(30), std::chrono::milliseconds(5)}, why);
  REQUIRE(client);
  Outcome outcome;
  CHECK_FALSE(client->binding(outcome));
  CHECK(outcome.failure == Failure::no_answer);

  // The port is held, so that no other program gets it, by a socket that hears somebody else alone.
  auto deaf = UdpSocket::connected_to(silent->local(), why);
  REQUIRE(deaf);
  auto other = Client::open(deaf->local(), {}, system_random(), {patience, std::chrono::milliseconds(5)}, why);
  CHECK_FALSE(other->binding(outcome));
  CHECK(outcome.failure == Failure::unreachable);
}

TEST_CASE("the first Allocate goes unsigned, the second answers the challenge (RFC 8489, 9.2.3 and 9.2.5)") {
  bool unsigned_first = false;
  Script script({[&](const Message& m, const auto& answer) {
                   unsigned_first = !m.has_integrity() && !m.has(Attribute::username) && !m.has(Attribute::nonce);
                   answer([](Writer& w) { challenge(w, ErrorCode::unauthenticated, "nonce-1"); }, Class::error);
                 },
                 allocates_when([](const Message& m) {
                   return m.integrity_matches(md5_key.bytes()) && text_of(m, Attribute::username) == "alice" && text_of(m, Attribute::nonce) == "nonce-1" &&
                          text_of(m, Attribute::realm) == "example.org" && stun::read_u32(*m.find(Attribute::requested_transport)) == 17u << 24;
                 })});
  auto client = client_of(script);
  const Outcome outcome = client.allocate();
  CHECK(outcome.ok());
  CHECK(outcome.challenges == 1);
  CHECK(unsigned_first);
  CHECK(client.relayed() == at("192.0.2.15:50000"));
  CHECK(client.mapped() == at("192.0.2.1:7000"));
  CHECK(client.lifetime() == 600);
}

TEST_CASE("a stale nonce is replaced and the request tried again (RFC 8489, 9.2.5)") {
  Script script({challenges(ErrorCode::unauthenticated, "nonce-1"), challenges(ErrorCode::stale_nonce, "nonce-2"),
                 allocates_when([](const Message& m) { return m.integrity_matches(md5_key.bytes()) && text_of(m, Attribute::nonce) == "nonce-2"; })});
  auto client = client_of(script);
  CHECK(client.allocate().ok());
}

TEST_CASE("a server that calls every nonce stale is not asked for ever") {
  Script script({challenges(ErrorCode::unauthenticated, "1"), challenges(ErrorCode::stale_nonce, "2"), challenges(ErrorCode::stale_nonce, "3"),
                 challenges(ErrorCode::stale_nonce, "4")});
  auto client = client_of(script);
  const Outcome outcome = client.allocate();
  CHECK(outcome.failure == Failure::refused);
  CHECK(outcome.code == 438);
}

TEST_CASE("a 401 to a signed request ends it: the same credentials are not tried again (RFC 8489, 9.2.5)") {
  Script script({challenges(ErrorCode::unauthenticated, "1"), challenges(ErrorCode::unauthenticated, "2")});
  auto client = client_of(script);
  const Outcome outcome = client.allocate();
  CHECK(outcome.failure == Failure::refused);
  CHECK(outcome.code == 401);
}

TEST_CASE("with SHA-256 on offer the list goes back as it came, and integrity is SHA-256's (RFC 8489, 9.2.5)") {
  // An algorithm nobody knows stands first, with three bytes of parameters and one of padding.
  const std::vector<std::uint8_t> list = {0x00, 0x77, 0x00, 0x03, 1, 2, 3, 0, 0x00, 0x02, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00};
  bool sound = false;
  Script script({[&](const Message&, const auto& answer) {
                   answer([&](Writer& w) { challenge(w, ErrorCode::unauthenticated, "obMatJos2gAAAnonce"); w.add(Attribute::password_algorithms, Bytes(list)); },
                          Class::error);
                 },
                 [&](const Message& m, const auto& answer) {
                   const auto sent = m.find(Attribute::password_algorithms);
                   sound = m.integrity_sha256_matches(sha256_key.bytes()) && !m.has_integrity() && sent && std::equal(sent->begin(), sent->end(), list.begin(), list.end()) &&
                           stun::read_u32(*m.find(Attribute::password_algorithm)) == 2u << 16;
                   answer([](Writer& w) { allocation(w); w.add_integrity_sha256(sha256_key.bytes()); }, Class::success);
                 }});
  auto client = client_of(script);
  CHECK(client.allocate().ok());
  CHECK(sound);
  CHECK(client.uses_sha256());
}

TEST_CASE("a nonce that promises algorithms without a list is a bid-down, and is not answered (RFC 8489, 9.2.5)") {
  Script script({challenges(ErrorCode::unauthenticated, "obMatJos2gAAAnonce")});
  auto client = client_of(script);
  const Outcome outcome = client.allocate();
  CHECK(outcome.failure == Failure::bad_answer);
  CHECK(outcome.detail.find("PASSWORD-ALGORITHMS") != std::string::npos);
}

TEST_CASE("answers without integrity or with a wrong one do not count, whatever they say (RFC 8489, 9.2.5)") {
  const stun::Key wrong = stun::long_term_key(stun::PasswordAlgorithm::md5, "alice", "example.org", "other");
  Script script({challenges(ErrorCode::unauthenticated, "1"), [&](const Message&, const auto& answer) {
                   answer([](Writer& w) { w.add_error(ErrorCode::forbidden, ""); }, Class::error);
                   answer([](Writer& w) { allocation(w); }, Class::success);
                   answer([&](Writer& w) { allocation(w); w.add_integrity(wrong.bytes()); }, Class::success);
                   answer([](Writer& w) { w.add_error(ErrorCode::allocation_quota_reached, "").add_integrity(md5_key.bytes()); }, Class::error);
                 }});
  auto client = client_of(script);
  const Outcome outcome = client.allocate();
  CHECK(outcome.failure == Failure::refused);
  CHECK(outcome.code == 486);
  CHECK_FALSE(client.has_allocation());
}

TEST_CASE("an answer that lacks what it must have is no success (RFC 8656, 7.3)") {
  Script script({[](const Message&, const auto& answer) {
    answer([](Writer& w) { w.add_xor_address(Attribute::xor_relayed_address, at("192.0.2.15:50000")).add_u32(Attribute::lifetime, 600); }, Class::success);
  }});
  auto client = client_of(script);
  CHECK(client.allocate().failure == Failure::bad_answer);
}

TEST_CASE("an unknown attribute that has to be understood fails the transaction (RFC 8489, 6.3.3)") {
  Script script({[](const Message&, const auto& answer) {
    answer([](Writer& w) { w.add_empty(static_cast<Attribute>(0x7000)); allocation(w); }, Class::success);
  }});
  auto client = client_of(script);
  CHECK(client.allocate().failure == Failure::bad_answer);
}

TEST_CASE("data that comes while an answer is awaited is kept, by indication and by channel") {
  std::string why;
  auto server = UdpSocket::bound_to(at("127.0.0.1:0"), why);
  REQUIRE(server);
  std::thread thread([&] {
    std::array<std::uint8_t, 2048> in, out;
    std::size_t size = 0;
    net::TransportAddress from;
    if (server->receive(in, Clock::now() + patience, size, from) != UdpSocket::Arrival::datagram) return;
    const auto request = Message::read(Bytes(in).first(size));
    if (!request) return;
    const std::uint8_t channel_data[] = {0x40, 0x01, 0x00, 0x02, 'h', 'i', 0, 0};  // padded, as it may be (RFC 8656, 12.5)
    server->send_to(from, channel_data);
    const std::uint8_t too_long[] = {0x40, 0x01, 0x00, 0x09, 'h', 'i'};
    server->send_to(from, too_long);
    Writer data(out, Class::indication, Method::data, stun::TransactionId{});
    data.add_xor_address(Attribute::xor_peer_address, at("192.0.2.7:9")).add(Attribute::data, std::string_view("you"));
    server->send_to(from, data.bytes());
    Writer answer(out, Class::success, Method::binding, request->transaction_id());
    answer.add_xor_address(Attribute::xor_mapped_address, from);
    server->send_to(from, answer.bytes());
  });
  auto client = Client::open(server->local(), {}, system_random(), {patience, std::chrono::milliseconds(500)}, why);
  REQUIRE(client);
  Outcome outcome;
  CHECK(client->binding(outcome) == client->local());
  thread.join();
  const auto first = client->receive(Clock::now());
  REQUIRE(first);
  CHECK(first->channel == 0x4001);
  CHECK(as_text(first->payload) == "hi");
  const auto second = client->receive(Clock::now());
  REQUIRE(second);
  CHECK(second->peer == at("192.0.2.7:9"));
  CHECK(as_text(second->payload) == "you");
  CHECK_FALSE(client->receive(Clock::now()));
}

TEST_CASE("a payload that was changed by one bit, cut, or made for another exchange is noticed") {
  const std::array<std::uint8_t, 8> tag = {1, 2, 3, 4, 5, 6, 7, 8}, other = {1, 2, 3, 4, 5, 6, 7, 9};
  using Way = Payload::Way;
  using Verdict = Payload::Verdict;
  const auto good = Payload::make(tag, Way::to_peer, 5, 160);
  CHECK(good.size() == 160);
  CHECK(Payload::judge(good, tag, Way::to_peer, 5, 160) == Verdict::good);
  CHECK(Payload::judge(good, tag, Way::to_peer, 6, 160) == Verdict::other_number);
  CHECK(Payload::judge(good, tag, Way::to_client, 5, 160) == Verdict::foreign);
  CHECK(Payload::judge(good, other, Way::to_peer, 5, 160) == Verdict::foreign);
  CHECK(Payload::judge(Bytes(good).first(159), tag, Way::to_peer, 5, 160) == Verdict::damaged);
  for (std::size_t i = Payload::min_size; i < good.size(); ++i) {
    auto bad = good;
    bad[i] ^= 1;
    CHECK(Payload::judge(bad, tag, Way::to_peer, 5, 160) == Verdict::damaged);
  }
}

TEST_CASE("every refusal comes with something to check") {
  for (const auto code : std::initializer_list<std::uint16_t>{300, 400, 401, 403, 437, 438, 440, 441, 442, 443, 486, 500, 508, 699}) {
    Outcome outcome;
    outcome.failure = Failure::refused;
    outcome.code = code;
    for (const char* step : {"Binding", "Allocate", "CreatePermission", "Refresh(0)"}) {
      Situation situation;
      situation.step = step;
      CHECK_FALSE(advice(outcome, situation).empty());
      CHECK(describe(outcome, situation).find(std::to_string(code)) != std::string::npos);
    }
  }
}

TEST_CASE("a 401 says when the user name has run out, and by how much") {
  Outcome outcome;
  outcome.failure = Failure::refused;
  outcome.code = 401;
  Situation situation;
  situation.step = "Allocate";
  situation.username = "1000:alice";
  situation.now = 1060;
  CHECK(advice(outcome, situation).front().find("60 s ago") != std::string::npos);
}
