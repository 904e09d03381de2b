// The parser: hold the good message, then break it. Ids in brackets are rows of the list of hostile inputs.
#include <doctest/doctest.h>

#include <algorithm>

#include "sample.h"

namespace radiotower::stun {

namespace {

Datagram mac_over(Datagram before) {  // MESSAGE-INTEGRITY of some_key behind `before`
  Datagram d = appended(before, raw(Attribute::message_integrity, std::string(20, '\0')));
  const Sha1 mac = hmac_sha1(some_key.bytes(), Bytes(d).first(before.size()));
  std::copy(mac.begin(), mac.end(), d.end() - 20);
  return d;
}

Datagram mac_sha256_over(Datagram before) {
  Datagram d = appended(before, raw(Attribute::message_integrity_sha256, std::string(32, '\0')));
  const Sha256 mac = hmac_sha256(some_key.bytes(), Bytes(d).first(before.size()));
  std::copy(mac.begin(), mac.end(), d.end() - 32);
  return d;
}

std::string text_of(const Message& m, Attribute type) {
  const auto value = m.find(type);
  return value ? std::string(as_text(*value)) : "(absent)";
}

}  // namespace

TEST_CASE("the good message is read") {
  const Datagram d = allocate_request(true);
  const auto m = Message::read(d);
  REQUIRE(m);
  CHECK(m->is(Class::request, Method::allocate));
  CHECK(m->transaction_id() == some_id);
  CHECK(text_of(*m, Attribute::username) == "alice");
  CHECK(text_of(*m, Attribute::realm) == "example.org");
  CHECK(text_of(*m, Attribute::lifetime) == "(absent)");
  CHECK(m->has_integrity());
  CHECK(m->has_fingerprint());
  CHECK(m->integrity_matches(some_key.bytes()));
  CHECK(m->unknown_required().empty());
  CHECK(m->bytes().data() == d.data());
}

TEST_CASE("a message cut anywhere, or with a byte too many, is none [H01-H03, H13, H14, H16]") {
  for (const bool fingerprint : {false, true}) {
    const Datagram good = allocate_request(fingerprint);
    for (std::size_t size = 0; size < good.size(); ++size) {
      const Datagram cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size));
      CHECK(error_of(cut) == (size < 20 ? ReadError::too_short : ReadError::bad_length));
    }
    Datagram longer = good;
    for (int extra = 1; extra <= 8; ++extra) {
      longer.push_back(0);
      CHECK(error_of(longer) == ReadError::bad_length);
    }
    Datagram two = good;
    two.insert(two.end(), good.begin(), good.end());
    CHECK(error_of(two) == ReadError::bad_length);
  }
}

TEST_CASE("any bit flipped under a fingerprint is seen, or hides the fingerprint and breaks the integrity") {
  const Datagram good = allocate_request(true);
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    Datagram bad = good;
    bad[bit / 8] ^= static_cast<std::uint8_t>(1 << bit % 8);
    const auto m = Message::read(bad);
    if (!m) continue;
    CAPTURE(bit);
    CHECK_FALSE(m->has_fingerprint());  // another type now, or swallowed by an attribute that grew
    CHECK(m->integrity_matches(some_key.bytes()) == (bit / 8 >= good.size() - 8));
  }
}

TEST_CASE("any bit flipped under MESSAGE-INTEGRITY alone leaves no message whose integrity holds [I06, H10]") {
  const Datagram good = allocate_request(false);
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    Datagram bad = good;
    bad[bit / 8] ^= static_cast<std::uint8_t>(1 << bit % 8);
    ReadError error{};
    const auto m = Message::read(bad, &error);
    CAPTURE(bit);
    CHECK_FALSE((m && m->integrity_matches(some_key.bytes())));
    if (bit < 16 && bit % 8 >= 6 && bit < 8) CHECK(error == ReadError::not_stun);
    if (bit >= 32 && bit < 64) CHECK(error == ReadError::bad_cookie);
  }
}

TEST_CASE("a header length that is no multiple of four or not the datagram's is refused, wherever 16 bits would wrap [H12-H15]") {
  Datagram d = message_of({});
  for (unsigned length = 1; length <= 0xFFFF; ++length) {
    store_be16(d.data() + 2, static_cast<std::uint16_t>(length));
    if (error_of(d) != ReadError::bad_length) FAIL("length " << length);
  }
  // The same lengths with the bytes really there, as a stream may frame them.
  for (const unsigned length : {65512u, 65516u, 65520u, 65524u, 65528u, 65532u}) {
    Datagram big(20 + length);
    const Datagram head = message_of({raw(Attribute::software, "")});
    std::copy(head.begin(), head.end(), big.begin());
    store_be16(big.data() + 2, static_cast<std::uint16_t>(length));
    store_be16(big.data() + 22, static_cast<std::uint16_t>(length - 4));  // one attribute over all of it
    CAPTURE(length);
    if (length == 65512) CHECK_FALSE(error_of(big));
    else CHECK(error_of(big) == ReadError::bad_length);
  }
}

TEST_CASE("an attribute of any length is inside the message or the message is none [A01-A04]") {
  const Datagram good = message_of({raw(Attribute::realm, "abc"), raw(Attribute::username, "alice"), raw(Attribute::nonce, "1234567")});
  for (unsigned length = 0; length <= 0xFFFF; ++length) {
    Datagram d = good;
    store_be16(d.data() + 30, static_cast<std::uint16_t>(length));  // USERNAME's
    const auto m = Message::read(d);
    if (length > d.size() - 32) {  // 0xFFFD to 0xFFFF among them: rounding up must not wrap
      if (m) FAIL("length " << length);
    } else if (m) {
      const auto value = m->find(Attribute::username);
      REQUIRE(value);
      CHECK(value->data() + value->size() <= d.data() + d.size());
    }
  }
  // The value fits, its padding does not [A04]; and 1 to 3 stray bytes [A01] cannot be, since the length is a multiple of four.
  Datagram unpadded = message_of({raw(Attribute::realm, "abcd")});
  for (const unsigned length : {5u, 6u, 7u, 8u}) {
    store_be16(unpadded.data() + 22, static_cast<std::uint16_t>(length));
    CHECK(error_of(unpadded) == ReadError::bad_attribute);
  }
}

TEST_CASE("padding that is not zero is ignored [A05]") {
  Datagram d = message_of({raw(Attribute::username, "alice"), raw(Attribute::realm, "r")});
  d[29] = d[30] = d[31] = 0xFF;
  const auto m = Message::read(d);
  REQUIRE(m);
  CHECK(text_of(*m, Attribute::username) == "alice");
  CHECK(text_of(*m, Attribute::realm) == "r");
}

TEST_CASE("128 attributes are read, 129 are too many, wherever they stand [H20]") {
  Datagram d = message_of({});
  for (int i = 0; i < 128; ++i) d = appended(d, {0x9000, {}});
  CHECK_FALSE(error_of(d));
  CHECK(error_of(appended(d, {0x9000, {}})) == ReadError::too_many_attributes);
  Datagram behind = mac_over(message_of({}));
  for (int i = 0; i < 127; ++i) behind = appended(behind, {0x9000, {}});
  CHECK_FALSE(error_of(behind));
  CHECK(error_of(appended(behind, {0x9000, {}})) == ReadError::too_many_attributes);
}

TEST_CASE("an empty attribute is present and empty, the last one too") {
  const Datagram d = message_of({raw(Attribute::data, ""), raw(Attribute::dont_fragment, "")});
  const auto m = Message::read(d);
  REQUIRE(m);
  REQUIRE(m->find(Attribute::data));
  CHECK(m->find(Attribute::data)->empty());
  CHECK(m->has(Attribute::dont_fragment));
}

TEST_CASE("the first of a type decides (RFC 8489, 14) [A33-A39]") {
  const Datagram d = message_of({raw(Attribute::username, "good"), raw(Attribute::username, "bad"), raw(Attribute::data, "1"),
                                 raw(Attribute::data, "2")});
  const auto m = Message::read(d);
  REQUIRE(m);
  CHECK(text_of(*m, Attribute::username) == "good");
  CHECK(text_of(*m, Attribute::data) == "1");
  std::string all;
  m->for_each(Attribute::data, [&](Bytes value) { all += as_text(value); });
  CHECK(all == "12");  // CreatePermission wants them all
}

TEST_CASE("what stands behind MESSAGE-INTEGRITY does not exist (RFC 8489, 14.5) [I09-I12]") {
  const Datagram covered = mac_over(message_of({raw(Attribute::realm, "r")}));
  const Datagram d = with_fingerprint(appended(appended(appended(covered, raw(Attribute::username, "mallory")),
                                                        raw(Attribute::xor_peer_address, "12345678")), {0x0033, {1}}));
  const auto m = Message::read(d);
  REQUIRE(m);
  CHECK(m->has_fingerprint());
  CHECK(m->integrity_matches(some_key.bytes()));
  CHECK(m->has(Attribute::realm));
  CHECK_FALSE(m->has(Attribute::username));
  int peers = 0;
  m->for_each(Attribute::xor_peer_address, [&](Bytes) { ++peers; });
  CHECK(peers == 0);
  CHECK(m->unknown_required().empty());
}

TEST_CASE("a lifetime of zero behind the integrity does not delete an allocation [I10]") {
  Datagram d = mac_over(message_of({{0x000D, {0, 0, 2, 88}}}));
  d = with_fingerprint(appended(d, {0x000D, {0, 0, 0, 0}}));
  const auto m = Message::read(d);
  REQUIRE(m);
  CHECK(read_u32(*m->find(Attribute::lifetime)) == 600u);
}

TEST_CASE("of two MESSAGE-INTEGRITY attributes the first decides [I13]") {
  const Datagram good = mac_over(message_of({raw(Attribute::realm, "r")}));
  const Datagram good_then_bad = appended(good, raw(Attribute::message_integrity, std::string(20, 'x')));
  CHECK(Message::read(good_then_bad)->integrity_matches(some_key.bytes()));
  Datagram bad_first = appended(message_of({raw(Attribute::realm, "r")}), raw(Attribute::message_integrity, std::string(20, 'x')));
  bad_first = mac_over(bad_first);
  CHECK_FALSE(Message::read(bad_first)->integrity_matches(some_key.bytes()));
}

TEST_CASE("MESSAGE-INTEGRITY of another length than 20 never matches [I05]") {
  for (const std::size_t length : {0u, 16u, 19u, 21u, 32u}) {
    const Datagram d = message_of({raw(Attribute::message_integrity, std::string(length, '\0'))});
    const auto m = Message::read(d);
    REQUIRE(m);
    CHECK(m->has_integrity());
    CHECK_FALSE(m->integrity_matches(some_key.bytes()));
  }
}

TEST_CASE("the integrity is that over a header whose length ends with it [I07, I08]") {
  const Datagram plain = message_of({raw(Attribute::realm, "r")});
  Datagram unadjusted = appended(plain, raw(Attribute::message_integrity, std::string(20, '\0')));
  Sha1 mac = hmac_sha1(some_key.bytes(), plain);
  std::copy(mac.begin(), mac.end(), unadjusted.end() - 20);
  CHECK_FALSE(Message::read(unadjusted)->integrity_matches(some_key.bytes()));

  Datagram counted = plain;
  store_be16(counted.data() + 2, static_cast<std::uint16_t>(plain.size() + 32 - header_size));
  mac = hmac_sha1(some_key.bytes(), counted);
  Datagram d = appended(plain, raw(Attribute::message_integrity, std::string(20, '\0')));
  std::copy(mac.begin(), mac.end(), d.end() - 20);
  d = with_fingerprint(d);
  REQUIRE(Message::read(d));
  CHECK_FALSE(Message::read(d)->integrity_matches(some_key.bytes()));
  CHECK(Message::read(with_fingerprint(mac_over(plain)))->integrity_matches(some_key.bytes()));
}

TEST_CASE("MESSAGE-INTEGRITY-SHA256 alone or behind MESSAGE-INTEGRITY is checked, truncated ones never match [I14, I15]") {
  const Datagram plain = message_of({raw(Attribute::realm, "r")});
  const auto alone = mac_sha256_over(plain);
  CHECK(Message::read(alone)->integrity_sha256_matches(some_key.bytes()));
  CHECK_FALSE(Message::read(alone)->has_integrity());
  const auto both = mac_sha256_over(mac_over(plain));
  CHECK(Message::read(both)->integrity_matches(some_key.bytes()));
  CHECK(Message::read(both)->integrity_sha256_matches(some_key.bytes()));
  // The other way round the second is an attribute behind the integrity like any other.
  const auto turned = mac_over(mac_sha256_over(plain));
  CHECK_FALSE(Message::read(turned)->has_integrity());
  CHECK(Message::read(turned)->integrity_sha256_matches(some_key.bytes()));
  for (const std::size_t length : {0u, 12u, 15u, 16u, 28u, 31u, 33u, 36u}) {
    Datagram cut = message_of({raw(Attribute::realm, "r"), raw(Attribute::message_integrity_sha256, std::string(length, '\0'))});
    const Sha256 mac = hmac_sha256(some_key.bytes(), Bytes(cut).first(plain.size()));
    std::copy_n(mac.begin(), std::min<std::size_t>(length, 32), cut.begin() + static_cast<std::ptrdiff_t>(plain.size() + 4));
    CHECK_FALSE(Message::read(cut)->integrity_sha256_matches(some_key.bytes()));
  }
  const auto hidden = appended(alone, raw(Attribute::username, "mallory"));
  CHECK_FALSE(Message::read(hidden)->has(Attribute::username));
}

TEST_CASE("a FINGERPRINT is four bytes, last, once and right, or it is not STUN (RFC 8489, 14.7)") {
  const Datagram plain = message_of({raw(Attribute::realm, "r")});
  const Datagram good = with_fingerprint(plain);
  CHECK_FALSE(error_of(good));
  CHECK(error_of(with_fingerprint(good)) == ReadError::bad_fingerprint);                      // twice, both right
  CHECK(error_of(appended(good, raw(Attribute::software, "x"))) == ReadError::bad_fingerprint);  // not last
  CHECK(error_of(appended(plain, {0x8028, {}})) == ReadError::bad_fingerprint);
  CHECK(error_of(appended(plain, {0x8028, {1, 2, 3}})) == ReadError::bad_fingerprint);
  CHECK(error_of(appended(plain, {0x8028, {1, 2, 3, 4, 5, 6, 7, 8}})) == ReadError::bad_fingerprint);
  CHECK(error_of(appended(plain, {0x8028, {1, 2, 3, 4}})) == ReadError::bad_fingerprint);
  CHECK_FALSE(error_of(plain));  // and it is optional (S16)
}

TEST_CASE("unknown comprehension-required types are named, each once, at most sixteen [A26, A30, A31, A40]") {
  const Datagram d = message_of({{0x0003, {0, 0, 0, 6}}, {0x0010, {}}, {0x8033, {}}, {0x0003, {}}, {0x0021, {}}, {0xC057, {}}, {0x7FFF, {}}});
  const auto m = Message::read(d);
  REQUIRE(m);
  const std::vector<std::uint16_t> unknown(m->unknown_required().begin(), m->unknown_required().end());
  CHECK(unknown == std::vector<std::uint16_t>{0x0010, 0x0021, 0x7FFF});  // CHANGE-REQUEST, BANDWIDTH, TIMER-VAL
  Datagram many = message_of({});
  for (std::uint16_t type = 0x4000; type < 0x4000 + 60; ++type) many = appended(many, {type, {}});
  CHECK(Message::read(many)->unknown_required().size() == 16);
}

TEST_CASE("every method and class survives writing and reading (RFC 8489, 5: the bits are interleaved)") {
  Datagram d(20);
  for (unsigned method = 0; method <= 0xFFF; ++method) {
    for (unsigned c = 0; c < 4; ++c) {
      Writer w(d, static_cast<Class>(c), static_cast<Method>(method), some_id);
      const auto m = Message::read(d);
      if (!m || !m->is(static_cast<Class>(c), static_cast<Method>(method))) FAIL("method " << method << " class " << c);
    }
  }
  Writer(d, Class::indication, Method::data, some_id);
  CHECK(load_be16(d.data()) == 0x0017);
  Writer(d, Class::error, Method::allocate, some_id);
  CHECK(load_be16(d.data()) == 0x0113);
}

TEST_CASE("an address has the length of its family, its first byte is ignored [A12, A14-A16]") {
  for (std::size_t size = 0; size <= 40; ++size) {
    for (unsigned family = 0; family < 256; ++family) {
      Datagram value(size, 0x11);
      if (size > 1) value[1] = static_cast<std::uint8_t>(family);
      const bool right = (family == 1 && size == 8) || (family == 2 && size == 20);
      if (read_address(value).has_value() != right) FAIL("family " << family << " size " << size);
      if (read_xor_address(value, some_id).has_value() != right) FAIL("xor, family " << family << " size " << size);
    }
  }
  Datagram reserved = {0xFF, 1, 0x0D, 0x96, 192, 0, 2, 1};
  CHECK(read_address(reserved)->address.text() == "192.0.2.1:3478");
}

TEST_CASE("an IPv4 address in IPv6 dress keeps the family it was written with [P14]") {
  Datagram value = from_hex_text("00020d96 00000000 00000000 0000ffff 0a000001");
  const auto address = read_address(value);
  REQUIRE(address);
  CHECK(address->family == net::Family::ipv6);
  CHECK(address->address.text() == "10.0.0.1:3478");
}

TEST_CASE("numbers and errors have their own form [A17, S18]") {
  for (const std::size_t size : {0u, 1u, 3u, 5u, 8u}) CHECK_FALSE(read_u32(Datagram(size)));
  CHECK(read_u32(Datagram{1, 2, 3, 4}) == 0x01020304u);
  for (const std::size_t size : {0u, 1u, 2u, 3u}) CHECK_FALSE(read_error_code(Datagram(size)));
  const Datagram value = {0, 0, 4, 38, 'S', 't'};
  const auto stale = read_error_code(value);
  REQUIRE(stale);
  CHECK(stale->code == 438);
  CHECK(stale->reason == "St");
  CHECK(read_error_code(Datagram{0xFF, 0xFF, 0xFC, 0})->code == 400);  // the reserved 21 bits are ignored
  CHECK_FALSE(read_error_code(Datagram{0, 0, 2, 0}));
  CHECK_FALSE(read_error_code(Datagram{0, 0, 7, 0}));
  CHECK_FALSE(read_error_code(Datagram{0, 0, 4, 100}));
}

}  // namespace radiotower::stun
