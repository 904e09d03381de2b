// Third-party authorisation (RFC 7635): access tokens beside passwords.
#include <doctest/doctest.h>
#include <openssl/evp.h>

#include "harness.h"

using namespace radiotower;
using namespace radiotower::test;
using Algorithm = turn::TokenKey::Algorithm;

namespace {

const std::string server_name = "turn.example.org";

std::string hex(const char* text) { return *from_hex(text); }

turn::TokenKey make_key(std::string kid, Algorithm algorithm, std::string_view key, UnixSeconds valid_until = 0) {
  turn::TokenKey made;
  made.kid = std::move(kid);
  made.algorithm = algorithm;
  made.valid_until = valid_until;
  REQUIRE(key.size() == turn::TokenKey::size(algorithm));
  std::copy(key.begin(), key.end(), made.key.begin());
  return made;
}

/// What the authorization server does (RFC 7635, 6.2).
struct Claims {
  std::string mac_key = std::string(20, 'm');
  std::uint64_t issued_at = 0;
  std::uint32_t lifetime = 3600;
  std::string server = server_name;
  std::uint16_t key_length = 0;   // 0: the right one
  std::string nonce = "0123456789ab";
};

std::vector<std::uint8_t> seal(const turn::TokenKey& key, const Claims& claims) {
  std::vector<std::uint8_t> plain(2);
  store_be16(plain.data(), claims.key_length ? claims.key_length : static_cast<std::uint16_t>(claims.mac_key.size()));
  plain.insert(plain.end(), claims.mac_key.begin(), claims.mac_key.end());
  std::array<std::uint8_t, 12> end;
  const std::uint64_t time = claims.issued_at << 16 | 0x8000;  // and half a second
  store_be32(end.data(), static_cast<std::uint32_t>(time >> 32));
  store_be32(end.data() + 4, static_cast<std::uint32_t>(time));
  store_be32(end.data() + 8, claims.lifetime);
  plain.insert(plain.end(), end.begin(), end.end());

  std::vector<std::uint8_t> token(2 + claims.nonce.size() + plain.size() + 16);
  store_be16(token.data(), static_cast<std::uint16_t>(claims.nonce.size()));
  std::copy(claims.nonce.begin(), claims.nonce.end(), token.begin() + 2);
  std::uint8_t* sealed = token.data() + 2 + claims.nonce.size();
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  int size = 0;
  REQUIRE(EVP_EncryptInit_ex(context, key.algorithm == Algorithm::a128gcm ? EVP_aes_128_gcm() : EVP_aes_256_gcm(), nullptr, nullptr, nullptr) == 1);
  REQUIRE(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_IVLEN, static_cast<int>(claims.nonce.size()), nullptr) == 1);
  REQUIRE(EVP_EncryptInit_ex(context, nullptr, nullptr, key.key.data(), as_bytes(claims.nonce).data()) == 1);
  REQUIRE(EVP_EncryptUpdate(context, nullptr, &size, as_bytes(claims.server).data(), static_cast<int>(claims.server.size())) == 1);
  REQUIRE(EVP_EncryptUpdate(context, sealed, &size, plain.data(), static_cast<int>(plain.size())) == 1);
  REQUIRE(EVP_EncryptFinal_ex(context, sealed + size, &size) == 1);
  REQUIRE(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, sealed + plain.size()) == 1);
  EVP_CIPHER_CTX_free(context);
  return token;
}

turn::TokenKey north() { return make_key("north", Algorithm::a256gcm, "01234567890123456789012345678901"); }
turn::TokenKey south() { return make_key("south", Algorithm::a128gcm, "0123456789012345"); }

TowerOptions with_tokens() {
  TowerOptions options;
  options.also = [](turn::Settings& settings) {
    const auto past = make_key("past", Algorithm::a128gcm, "0123456789012345", 1'767'000'000);
    settings.tokens = std::make_shared<turn::Tokens>(server_name, std::vector{north(), south(), past});
  };
  return options;
}

/// A client with a token of its own; `n` makes the key.
Client& holder(Tower& tower, std::string_view address, char n = 'm', std::uint32_t lifetime = 3600) {
  auto& c = tower.client(address, "north", "");
  Claims claims;
  claims.mac_key = std::string(20, n);
  claims.issued_at = static_cast<std::uint64_t>(tower.now.unix_time);
  claims.lifetime = lifetime;
  c.access_token = seal(north(), claims);
  c.mac_key = stun::Key(as_bytes(claims.mac_key));
  return c;
}

std::uint32_t lifetime_of(const Client& c) { return *stun::read_u32(*c.last->message()->find(Attribute::lifetime)); }

}  // namespace

TEST_CASE("7635 6.2: a token is what others make: AEAD_AES_256_GCM and AEAD_AES_128_GCM, the server's name authenticated with it") {
  const struct {
    Algorithm algorithm;
    const char *key, *token;
  } cases[] = {
      {Algorithm::a256gcm, "HGkj32KJGiuy098sdfaqbNjOiaz71923",
       "000c68346a336b326c326e346235617ef134a3d5e44e9a19cc7dc104b0c03d03b2a551d8fdf5cd3b6dca6f10cfb77e5b2ddec84d293a5c50499359f0c2e26f76"},
      {Algorithm::a128gcm, "HGkj32KJGiuy098s",
       "000c68346a336b326c326e3462357fb9e99f0827be3df1e1bd651493d3031d36df57079784aee5eacb65fad4f27fab1a3f97974b69f851b24bf5af09eda357e0"},
  };
  for (const auto& c : cases) {
    const turn::Tokens tokens("blackdow.carleon.gov", {make_key("2783466234", c.algorithm, c.key)});
    const std::string bytes = hex(c.token);
    const auto token = tokens.open("2783466234", as_bytes(bytes), 1'411'000'000);
    REQUIRE(token);
    CHECK(as_text(token->mac_key.bytes()) == "ZksjpweoixXmvn67534m");
    CHECK(token->issued_at == 1'410'984'813);  // 92470300704768 / 65536
    CHECK(token->lifetime == 3600);
    CHECK_FALSE(turn::Tokens("blackdow.carleon.com", {make_key("2783466234", c.algorithm, c.key)}).open("2783466234", as_bytes(bytes), 1'411'000'000));
    CHECK_FALSE(tokens.open("2783466235", as_bytes(bytes), 1'411'000'000));
    for (std::size_t i = 0; i < bytes.size(); ++i) {  // every bit counts, and every byte
      std::string other = bytes;
      other[i] = static_cast<char>(other[i] ^ 1 << i % 8);
      CHECK_FALSE(tokens.open("2783466234", as_bytes(other), 1'411'000'000));
      CHECK_FALSE(tokens.open("2783466234", as_bytes(bytes).first(i), 1'411'000'000));
    }
    CHECK_FALSE(tokens.open("2783466234", as_bytes(bytes + '\0'), 1'411'000'000));
  }
}

TEST_CASE("7635 7, 9: a token is good for lifetime + 5 seconds round its time of issue") {
  turn::Token token;
  token.issued_at = 1000;
  token.lifetime = 100;
  CHECK(token.seconds_left(1000) == 105);
  CHECK(token.seconds_left(1104) == 1);
  CHECK(token.seconds_left(1105) == 0);
  CHECK(token.seconds_left(896) == 1);  // clocks differ
  CHECK(token.seconds_left(895) == 0);
  token.issued_at = (UnixSeconds{1} << 48) - 1;
  token.lifetime = 0xFFFFFFFF;
  CHECK(token.seconds_left(0) == 0);
  token.issued_at = 0;
  token.lifetime = 0;
  CHECK(token.seconds_left(1'767'000'000) == 0);
}

TEST_CASE("7635 3, 6.1: a 401 tells the server's name in THIRD-PARTY-AUTHORIZATION beside REALM and NONCE, within three times the request [R04]") {
  Tower tower(with_tokens());
  auto& c = tower.client("203.0.113.9:5000");
  c.learns_nonce();
  CHECK(as_text(*c.last->message()->find(Attribute::third_party_authorization)) == server_name);
  CHECK(tower.largest_answer_ratio_percent <= 300);
  // Where it does not fit, the rest goes without it.
  auto options = with_tokens();
  options.realm = std::string(40, 'r');
  Tower longer(options);
  auto& d = longer.client("203.0.113.9:5000");
  d.fingerprint = false;
  d.learns_nonce();
  CHECK_FALSE(d.last->message()->has(Attribute::third_party_authorization));
  CHECK(longer.largest_answer_ratio_percent <= 300);
  Tower without;
  auto& e = without.client("203.0.113.9:5000");
  e.learns_nonce();
  CHECK_FALSE(e.last->message()->has(Attribute::third_party_authorization));
}

TEST_CASE("7635 7: whoever has a token allocates with its key, and so do users with passwords beside him") {
  Tower tower(with_tokens());
  auto& c = holder(tower, "203.0.113.9:5000");
  CHECK(c.allocates() == 0);
  CHECK(c.last->message()->integrity_matches(c.mac_key->bytes()));  // any answer is made with mac_key
  CHECK(c.permits("192.0.2.7:4000") == 0);                          // 9: no token but in Allocate and Refresh
  CHECK(c.binds(0x4000, "192.0.2.7:4000") == 0);
  c.sends_channel(0x4000, "hello");
  CHECK(tower.peer_got("192.0.2.7:4000") == "hello");
  CHECK(c.refreshes() == 0);
  CHECK(c.refreshes(0) == 0);
  CHECK(tower.client("203.0.113.9:5001").allocates() == 0);

  Claims claims;
  claims.mac_key = std::string(32, 'k');
  claims.issued_at = static_cast<std::uint64_t>(tower.now.unix_time);
  auto& long_key = tower.client("203.0.113.9:5002", "south", "");
  long_key.access_token = seal(south(), claims);
  long_key.mac_key = stun::Key(as_bytes(claims.mac_key));
  CHECK(long_key.allocates() == 0);
  auto& sha256 = holder(tower, "203.0.113.9:5003", 's');
  sha256.sha256 = true;
  CHECK(sha256.allocates() == 0);
  CHECK(sha256.refreshes() == 0);
}

TEST_CASE("7635 7: coturn's client makes integrity with the first 16 bytes of a mac_key of 20, and is answered the same way") {
  Tower tower(with_tokens());
  auto& c = holder(tower, "203.0.113.9:5000");
  c.mac_key = stun::Key(as_bytes(std::string(16, 'm')));
  CHECK(c.allocates() == 0);
  CHECK(c.last->message()->integrity_matches(c.mac_key->bytes()));
  CHECK(c.permits("192.0.2.7:9") == 0);
  CHECK(c.refreshes() == 0);
  auto& d = holder(tower, "203.0.113.9:5001");
  d.sha256 = true;
  d.mac_key = stun::Key(as_bytes(std::string(16, 'm')));
  CHECK(d.allocates() == 401);  // of HMAC-SHA1 alone
}

TEST_CASE("7635 7: 401 for a token that is expired, not yet good, not ours, of another server, of another form, or without its key") {
  Tower tower(with_tokens());
  int port = 5000;
  const auto now = static_cast<std::uint64_t>(tower.now.unix_time);
  const auto tries = [&](const std::string& kid, const turn::TokenKey& key, const Claims& claims, const std::string& used = std::string(20, 'm')) {
    auto& c = tower.client("203.0.113.9:" + std::to_string(port++), kid, "");
    c.access_token = seal(key, claims);
    c.mac_key = stun::Key(as_bytes(used));
    const int code = c.allocates();
    if (code == 401) {
      CHECK(c.last->message()->has(Attribute::third_party_authorization));
      CHECK(c.last->message()->has(Attribute::nonce));
      CHECK_FALSE(c.last->message()->has_integrity());
    }
    return code;
  };
  Claims good;
  good.issued_at = now;
  REQUIRE(tries("north", north(), good) == 0);
  Claims claims = good;
  claims.issued_at = now - 3605;
  CHECK(tries("north", north(), claims) == 401);
  claims.issued_at = now - 3604;
  CHECK(tries("north", north(), claims) == 0);
  claims.issued_at = now + 3605;
  CHECK(tries("north", north(), claims) == 401);
  claims = good;
  claims.server = "other.example.org";
  CHECK(tries("north", north(), claims) == 401);
  claims = good;
  claims.key_length = 19;
  CHECK(tries("north", north(), claims) == 401);
  claims.key_length = 0xFFFF;
  CHECK(tries("north", north(), claims) == 401);
  claims = good;
  claims.nonce = "0123456789abcdef";
  CHECK(tries("north", north(), claims) == 401);
  claims = good;
  claims.mac_key = std::string(16, 'm');
  CHECK(tries("north", north(), claims, claims.mac_key) == 401);
  CHECK(tries("south", north(), good) == 401);      // another kid's key
  CHECK(tries("unknown", north(), good) == 401);
  CHECK(tries("past", make_key("past", Algorithm::a128gcm, "0123456789012345"), good) == 401);  // the key itself has run out
  CHECK(tries("north", north(), good, std::string(20, 'x')) == 401);
  CHECK(tries("alice", north(), good) == 401);      // a user of a password, and a token besides
  auto& empty = tower.client("203.0.113.9:6000", "north", "");
  empty.access_token = {0};
  empty.mac_key = stun::Key(as_bytes(std::string(20, 'm')));
  CHECK(empty.allocates() == 401);
  auto& bare = tower.client("203.0.113.9:6001", "north", "");
  CHECK(bare.allocates() == 401);  // the kid alone is no user
}

TEST_CASE("7635: with tokens switched off, ACCESS-TOKEN is an unknown attribute: 420") {
  Tower tower;
  auto& c = tower.client("203.0.113.9:5000");
  c.access_token = std::vector<std::uint8_t>(64);
  CHECK(c.allocates() == 420);
}

TEST_CASE("7635 9: the lifetime of an allocation is at most what is left of its token") {
  Tower tower(with_tokens());
  auto& c = holder(tower, "203.0.113.9:5000", 'm', 1000);
  REQUIRE(c.allocates([](stun::Writer& w) { w.add_u32(Attribute::lifetime, 3600); }) == 0);
  CHECK(lifetime_of(c) == 1005);
  tower.advance(505s);
  const auto token = c.access_token;
  c.access_token.clear();
  REQUIRE(c.refreshes(3600) == 0);  // without a token: the one before still bounds it
  CHECK(lifetime_of(c) == 500);
  c.access_token = token;
  REQUIRE(c.refreshes(700) == 0);
  CHECK(lifetime_of(c) == 500);
  auto& shorter = holder(tower, "203.0.113.9:5001", 's', 10);
  REQUIRE(shorter.allocates() == 0);
  CHECK(lifetime_of(shorter) == 15);  // below the default of RFC 8656, 7.2
  tower.advance(501s);
  CHECK(tower.server->allocation_count() == 0);
  CHECK(c.refreshes() == 401);  // the token has run out with it
}

TEST_CASE("7635 9: a Refresh may bring a fresh token, also of another key: from then on its key and kid are the allocation's") {
  Tower tower(with_tokens());
  auto& c = holder(tower, "203.0.113.9:5000", 'm', 600);
  REQUIRE(c.allocates() == 0);
  const auto old_key = c.mac_key;
  Claims claims;
  claims.mac_key = std::string(20, 'f');
  claims.issued_at = static_cast<std::uint64_t>(tower.now.unix_time);
  c.access_token = seal(south(), claims);
  c.user = "south";
  c.mac_key = stun::Key(as_bytes(claims.mac_key));
  CHECK(c.permits("192.0.2.7:9") == 401);  // not before it was seen
  REQUIRE(c.refreshes(3600) == 0);
  CHECK(lifetime_of(c) == 3600);
  CHECK(c.permits("192.0.2.7:9") == 0);
  c.user = "north";
  c.mac_key = old_key;
  CHECK(c.permits("192.0.2.7:9") == 401);  // the old key has gone
  CHECK(tower.server->allocation_count() == 1);
}

TEST_CASE("8656 5: a password user has no part in what a token made, nor the other way round: 441, and 437 for Allocate") {
  auto options = with_tokens();
  options.users.push_back({"north", "named-like-a-kid", {}, {}, {}});
  Tower tower(options);
  auto& token = holder(tower, "203.0.113.9:5000");
  REQUIRE(token.allocates() == 0);
  CHECK(tower.client("203.0.113.9:5000").refreshes(0) == 441);
  CHECK(tower.client("203.0.113.9:5000", "north", "named-like-a-kid").refreshes(0) == 441);
  CHECK(tower.client("203.0.113.9:5000", "north", "named-like-a-kid").allocates() == 437);
  REQUIRE(tower.client("203.0.113.9:5001", "north", "named-like-a-kid").allocates() == 0);
  CHECK(holder(tower, "203.0.113.9:5001").refreshes(0) == 441);
  CHECK(holder(tower, "203.0.113.9:5001").allocates() == 437);
  CHECK(token.refreshes() == 0);
}

TEST_CASE("8656 7.2 (10): a token is an account: its allocations count together, those of another token do not [L22]") {
  auto options = with_tokens();
  options.limits.allocations_per_user = 2;
  Tower tower(options);
  CHECK(holder(tower, "203.0.113.9:5000", 'a').allocates() == 0);
  CHECK(holder(tower, "203.0.113.9:5001", 'a').allocates() == 0);
  CHECK(holder(tower, "203.0.113.9:5002", 'a').allocates() == 486);
  CHECK(holder(tower, "203.0.113.9:5003", 'b').allocates() == 0);
  // A retransmission, token and all, gets the first answer again (RFC 8489, 6.3.1).
  auto& again = holder(tower, "203.0.113.9:5003", 'b');
  again.fixed_transaction_id = stun::TransactionId{9};
  CHECK(again.allocates() == 437);
  auto& c = holder(tower, "203.0.113.9:5004", 'c');
  c.fixed_transaction_id = stun::TransactionId{9};
  CHECK(c.allocates() == 0);
  CHECK(c.allocates() == 0);
}

TEST_CASE("8656 7.2 (5): a reservation of one token may be claimed with a fresh one, and counts for the first; not by users [L13]") {
  auto options = with_tokens();
  options.limits.allocations_per_user = 2;
  Tower tower(options);
  const auto pair = [](stun::Writer& w) { w.add(Attribute::even_port, std::string_view("\x80")); };
  auto& a = holder(tower, "203.0.113.9:5000", 'a');
  REQUIRE(a.allocates(pair) == 0);
  const auto value = *a.last->message()->find(Attribute::reservation_token);
  const std::string reservation(as_text(value));
  const auto claims = [&](stun::Writer& w) { w.add(Attribute::reservation_token, reservation); };
  CHECK(tower.client("203.0.113.9:5001").allocates(claims) == 508);
  auto& b = holder(tower, "203.0.113.9:5002", 'b');
  REQUIRE(b.allocates(claims) == 0);
  CHECK(b.relayed().port == a.relayed().port + 1);
  CHECK(holder(tower, "203.0.113.9:5003", 'a').allocates() == 486);
  CHECK(holder(tower, "203.0.113.9:5004", 'b').allocates() == 0);
  CHECK(b.refreshes(0) == 0);
  CHECK(holder(tower, "203.0.113.9:5005", 'a').allocates() == 0);
  CHECK(tower.shared->usage().allocations == 3);
}

TEST_CASE("7635 7: a reload without the key leaves what its tokens made, until they run out") {
  Tower tower(with_tokens());
  auto& c = holder(tower, "203.0.113.9:5000", 'm', 900);
  REQUIRE(c.allocates() == 0);
  tower.reload([](TowerOptions& o) { o.also = {}; });
  CHECK(c.permits("192.0.2.7:9") == 0);
  c.access_token.clear();
  REQUIRE(c.refreshes(3600) == 0);
  CHECK(lifetime_of(c) == 905);
  CHECK(holder(tower, "203.0.113.9:5001").allocates() == 401);
}

TEST_CASE("8656 5: a CONNECTION-ID or a ticket that the bearer of another token has learnt gives him nothing: 441, and the key stays [C06] [F12]") {
  TowerOptions options = with_tokens();
  options.tcp_relay = options.mobility = true;
  Tower tower(options);

  auto& alice = holder(tower, "203.0.113.9:5000", 'a');
  alice.five_tuple.transport = net::Transport::tcp;
  REQUIRE(alice.asks(Method::allocate, [](stun::Writer& w) { w.add(Attribute::requested_transport, Bytes(std::array<std::uint8_t, 4>{6, 0, 0, 0})); }) == 0);
  CHECK(alice.asks(Method::connect, [](stun::Writer& w) { w.add_xor_address(Attribute::xor_peer_address, at("192.0.2.7:4000")); }) == -1);
  REQUIRE_FALSE(tower.connects.empty());
  const auto connection = tower.connects.back().connection;
  tower.server->peer_connected(connection, tower.now, tower.actions);
  tower.carry_out();
  alice.inbox.clear();
  const auto named = [&](stun::Writer& w) { w.add_u32(Attribute::connection_id, connection); };

  auto& mallory = holder(tower, "203.0.113.66:6000", 'x', 7200);
  mallory.five_tuple.transport = net::Transport::tcp;
  CHECK(mallory.asks(Method::connection_bind, [&](stun::Writer& w) {
    named(w);
    w.add(Attribute::access_token, Bytes(mallory.access_token));
  }) == 441);
  CHECK(tower.joins.empty());
  alice.access_token.clear();  // her key is the allocation's as before
  CHECK(alice.refreshes() == 0);
  auto& data = holder(tower, "203.0.113.9:5001", 'a');
  data.five_tuple.transport = net::Transport::tcp;
  CHECK(data.asks(Method::connection_bind, named) == 0);
  CHECK(tower.joins.size() == 1);

  auto& carol = holder(tower, "203.0.113.10:5000", 'c');
  REQUIRE(carol.allocates([](stun::Writer& w) { w.add(Attribute::mobility_ticket, Bytes()); }) == 0);
  const auto value = *carol.last->message()->find(Attribute::mobility_ticket);
  const std::vector<std::uint8_t> ticket(value.begin(), value.end());
  const auto shown = [&](stun::Writer& w) { w.add(Attribute::mobility_ticket, Bytes(ticket)); };
  auto& thief = holder(tower, "203.0.113.66:6001", 'x', 7200);
  CHECK(thief.refreshes({}, shown) == 441);
  carol.access_token.clear();
  CHECK(carol.refreshes() == 0);
  auto& moved = holder(tower, "203.0.113.11:5000", 'c');
  CHECK(moved.refreshes({}, shown) == 0);
}
