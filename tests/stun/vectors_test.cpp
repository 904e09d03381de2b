// The published test vectors, read, checked and written again.
#include <doctest/doctest.h>

#include "sample.h"

namespace radiotower::stun {

namespace {

const std::string matrix = "\xE3\x83\x9E\xE3\x83\x88\xE3\x83\xAA\xE3\x83\x83\xE3\x82\xAF\xE3\x82\xB9";  // U+30DE U+30C8 ...
const std::string short_term_password = "VOkJxbRl1RmTxUk/WvJxBt";

TransactionId id_of(const Message& m) { return m.transaction_id(); }

Bytes covered(const Datagram& d, std::size_t from, std::size_t length) { return Bytes(d).subspan(from, length); }

}  // namespace

TEST_CASE("RFC 5769, 2.1: the sample request is read, its integrity and fingerprint hold") {
  const Datagram d = published("rfc5769-2.1-request");
  REQUIRE(d.size() == 108);
  const auto m = Message::read(d);
  REQUIRE(m);
  CHECK(m->is(Class::request, Method::binding));
  CHECK(as_text(*m->find(Attribute::software)) == "STUN test client");
  CHECK(as_text(*m->find(Attribute::username)) == "evtj:h6vY");  // the padding of blanks is no part of it
  CHECK(m->has_fingerprint());
  CHECK(m->integrity_matches(as_bytes(short_term_password)));
  CHECK_FALSE(m->integrity_matches(as_bytes("VOkJxbRl1RmTxUk/WvJxBT")));
  REQUIRE(m->unknown_required().size() == 1);  // PRIORITY is ICE's, not ours; ICE-CONTROLLED is optional
  CHECK(m->unknown_required()[0] == 0x0024);
}

TEST_CASE("RFC 5769, 2.2: the IPv4 response is read, and its address written byte for byte") {
  const Datagram d = published("rfc5769-2.2-response-ipv4");
  const auto m = Message::read(d);
  REQUIRE(m);
  CHECK(m->is(Class::success, Method::binding));
  CHECK(as_text(*m->find(Attribute::software)) == "test vector");
  CHECK(m->has_fingerprint());
  CHECK(m->integrity_matches(as_bytes(short_term_password)));
  const auto address = read_xor_address(*m->find(Attribute::xor_mapped_address), id_of(*m));
  REQUIRE(address);
  CHECK(address->family == net::Family::ipv4);
  CHECK(address->address.text() == "192.0.2.1:32853");

  Datagram buffer(64);
  Writer w(buffer, Class::success, Method::binding, id_of(*m));
  w.add_xor_address(Attribute::xor_mapped_address, address->address);
  CHECK(to_hex(covered(buffer, 20, 12)) == to_hex(covered(d, 36, 12)));
}

TEST_CASE("RFC 5769, 2.3: the IPv6 response is read, and its address written byte for byte") {
  const Datagram d = published("rfc5769-2.3-response-ipv6");
  const auto m = Message::read(d);
  REQUIRE(m);
  CHECK(m->has_fingerprint());
  CHECK(m->integrity_matches(as_bytes(short_term_password)));
  const auto address = read_xor_address(*m->find(Attribute::xor_mapped_address), id_of(*m));
  REQUIRE(address);
  CHECK(address->family == net::Family::ipv6);
  CHECK(address->address.text() == "[2001:db8:1234:5678:11:2233:4455:6677]:32853");

  Datagram buffer(64);
  Writer w(buffer, Class::success, Method::binding, id_of(*m));
  w.add_xor_address(Attribute::xor_mapped_address, address->address);
  CHECK(to_hex(covered(buffer, 20, 24)) == to_hex(covered(d, 36, 24)));
}

TEST_CASE("RFC 5769, 2.4: the long-term request is checked with the MD5 key, and written again to the last byte") {
  const Datagram d = published("rfc5769-2.4-long-term");
  const auto m = Message::read(d);
  REQUIRE(m);
  CHECK(as_text(*m->find(Attribute::username)) == matrix);
  CHECK(as_text(*m->find(Attribute::nonce)) == "f//499k954d6OL34oL9FSTvy64sA");
  CHECK(as_text(*m->find(Attribute::realm)) == "example.org");
  const Key key = long_term_key(PasswordAlgorithm::md5, matrix, "example.org", "TheMatrIX");
  CHECK(m->integrity_matches(key.bytes()));
  CHECK_FALSE(m->has_fingerprint());

  Datagram buffer(256);
  Writer w(buffer, Class::request, Method::binding, id_of(*m));
  w.add(Attribute::username, matrix).add(Attribute::nonce, "f//499k954d6OL34oL9FSTvy64sA").add(Attribute::realm, "example.org");
  w.add_integrity(key.bytes());
  REQUIRE(w.ok());
  CHECK(to_hex(w.bytes()) == to_hex(d));
}

TEST_CASE("RFC 8489, B.1 as printed: the length field counts the header, so it is no message; its hash was made over that length") {
  const Datagram d = published("rfc8489-b.1-as-printed");
  REQUIRE(d.size() == 156);
  CHECK(load_be16(d.data() + 2) == 0x9c);
  CHECK(error_of(d) == ReadError::bad_length);

  const Key key = long_term_key(PasswordAlgorithm::sha256, matrix, "example.org", "TheMatrIX");
  CHECK(to_hex(hmac_sha256(key.bytes(), covered(d, 0, 120))) == to_hex(covered(d, 124, 32)));

  Datagram right = d;
  store_be16(right.data() + 2, 0x88);
  const auto m = Message::read(right);
  REQUIRE(m);
  CHECK(to_hex(*m->find(Attribute::userhash)) == to_hex(userhash(matrix, "example.org")));
  CHECK(m->has_integrity_sha256());
  CHECK_FALSE(m->integrity_sha256_matches(key.bytes()));
}

TEST_CASE("RFC 8489, B.1 with erratum 6268: read, checked with the SHA-256 key, and written again to the last byte") {
  const Datagram d = published("rfc8489-b.1-erratum-6268");
  const auto m = Message::read(d);
  REQUIRE(m);
  const Key key = long_term_key(PasswordAlgorithm::sha256, matrix, "example.org", "TheMatrIX");
  CHECK(m->integrity_sha256_matches(key.bytes()));
  CHECK_FALSE(m->has_integrity());
  CHECK_FALSE(m->integrity_sha256_matches(long_term_key(PasswordAlgorithm::md5, matrix, "example.org", "TheMatrIX").bytes()));

  Datagram buffer(256);
  Writer w(buffer, Class::request, Method::binding, id_of(*m));
  const std::uint8_t algorithm[] = {0, 2, 0, 0};
  w.add(Attribute::userhash, userhash(matrix, "example.org")).add(Attribute::nonce, "obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA");
  w.add(Attribute::realm, "example.org").add(Attribute::password_algorithm, algorithm).add_integrity_sha256(key.bytes());
  REQUIRE(w.ok());
  CHECK(to_hex(w.bytes()) == to_hex(d));
}

}  // namespace radiotower::stun
