#include <doctest/doctest.h>

#include <algorithm>

#include "sample.h"

namespace radiotower::stun {

TEST_CASE("what is written is read back") {
  Datagram buffer(512, 0xEE);
  const auto v4 = *net::TransportAddress::parse("192.0.2.1:50000");
  const auto v6 = *net::TransportAddress::parse("[2001:db8::1]:50001");
  const std::uint16_t unknown[] = {0x0003, 0x7FFF, 0x0010};
  Writer w(buffer, Class::error, Method::allocate, some_id);
  w.add_error(ErrorCode::stale_nonce, "Stale Nonce").add_unknown_attributes(unknown);
  w.add_xor_address(Attribute::xor_relayed_address, v4).add_xor_address(Attribute::xor_mapped_address, v6);
  w.add_address(Attribute::mapped_address, v6).add_address(Attribute::alternate_server, v4);
  w.add_u32(Attribute::lifetime, 3600).add_empty(Attribute::dont_fragment).add(Attribute::realm, "example.org");
  w.add_integrity(some_key.bytes()).add_integrity_sha256(some_key.bytes()).add_fingerprint();
  REQUIRE(w.ok());

  const Datagram sent(w.bytes().begin(), w.bytes().end());
  const auto m = Message::read(sent);
  REQUIRE(m);
  const auto error = read_error_code(*m->find(Attribute::error_code));
  REQUIRE(error);
  CHECK(error->code == 438);
  CHECK(error->reason == "Stale Nonce");
  CHECK(to_hex(*m->find(Attribute::unknown_attributes)) == "00037fff0010");
  CHECK(read_xor_address(*m->find(Attribute::xor_relayed_address), some_id)->address == v4);
  CHECK(read_xor_address(*m->find(Attribute::xor_mapped_address), some_id)->address == v6);
  CHECK(read_address(*m->find(Attribute::mapped_address))->address == v6);
  CHECK(read_address(*m->find(Attribute::alternate_server))->address == v4);
  CHECK(read_u32(*m->find(Attribute::lifetime)) == 3600u);
  CHECK(m->find(Attribute::dont_fragment)->empty());
  CHECK(m->integrity_matches(some_key.bytes()));
  CHECK(m->integrity_sha256_matches(some_key.bytes()));
  CHECK(m->has_fingerprint());
}

TEST_CASE("padding and reserved bytes leave as zero, whatever the buffer held") {
  for (std::size_t size = 0; size <= 9; ++size) {
    Datagram buffer(64, 0xEE);
    Writer w(buffer, Class::success, Method::binding, some_id);
    w.add(Attribute::software, std::string(size, 'x')).add_error(ErrorCode::bad_request, "");
    for (std::size_t at = 24 + size; at < 24 + (size + 3) / 4 * 4; ++at) CHECK(w.bytes()[at] == 0);
    CHECK(to_hex(w.bytes().last(4)) == "00000400");
    CHECK(load_be16(w.bytes().data() + 2) == w.bytes().size() - 20);
  }
}

TEST_CASE("a buffer too small is never overrun: ok() turns false and nothing more is written") {
  Datagram whole(512);
  const auto write = [](MutableBytes out) {
    Writer w(out, Class::success, Method::allocate, some_id);
    w.add(Attribute::realm, "example.org").add_xor_address(Attribute::xor_mapped_address, *net::TransportAddress::parse("[2001:db8::1]:1"));
    w.add_error(ErrorCode::bad_request, "no").add_integrity(some_key.bytes()).add_integrity_sha256(some_key.bytes()).add_fingerprint();
    return w;
  };
  const std::size_t needed = write(whole).bytes().size();
  for (std::size_t size = 0; size < needed; ++size) {
    Datagram small(size);  // the sanitizer guards its end
    const Writer w = write(small);
    CHECK_FALSE(w.ok());
    if (size < header_size) continue;
    const MutableBytes out = MutableBytes(small);
    CHECK(load_be16(out.data() + 2) + header_size <= size);  // what is there is a whole message still
  }
  Datagram exact(needed);
  CHECK(write(exact).ok());
}

TEST_CASE("a message never grows past what Message::read takes") {
  Datagram buffer(70000);
  const Datagram value(65508);
  Writer fits(buffer, Class::indication, Method::data, some_id);
  CHECK(fits.add(Attribute::data, value).ok());
  CHECK(fits.bytes().size() == 65532);
  CHECK(Message::read(fits.bytes()));
  Writer grows(buffer, Class::indication, Method::data, some_id);
  CHECK_FALSE(grows.add(Attribute::data, Datagram(65512)).ok());
  Writer wraps(buffer, Class::indication, Method::data, some_id);
  CHECK_FALSE(wraps.add(Attribute::data, Datagram(65536 + 8)).ok());
}

TEST_CASE("ADDRESS-ERROR-CODE and ICMP have the form of RFC 8656, 18.12 and 18.13") {
  CHECK(to_hex(address_error_value(net::Family::ipv6, ErrorCode::address_family_not_supported)) == "02000428");
  CHECK(to_hex(address_error_value(net::Family::ipv4, ErrorCode::insufficient_capacity)) == "01000508");
  CHECK(to_hex(icmp_value(3, 4, 1400)) == "0000060400000578");
  CHECK(to_hex(icmp_value(127, 255, 0)) == "0000feff00000000");
}

}  // namespace radiotower::stun
