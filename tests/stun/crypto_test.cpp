#include <doctest/doctest.h>

#include "sample.h"

namespace radiotower::stun {

TEST_CASE("HMAC-SHA1 and HMAC-SHA256 give the vectors of RFC 2202 and RFC 4231") {
  const Datagram twenty(20, 0x0b);
  CHECK(to_hex(hmac_sha1(twenty, as_bytes("Hi There"))) == "b617318655057264e28bc0b6fb378c8ef146be00");
  CHECK(to_hex(hmac_sha256(twenty, as_bytes("Hi There"))) == "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  const auto what = as_bytes("what do ya want for nothing?");
  CHECK(to_hex(hmac_sha1(as_bytes("Jefe"), what)) == "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
  CHECK(to_hex(hmac_sha256(as_bytes("Jefe"), what)) == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  CHECK(to_hex(hmac_sha1(Datagram(80, 0xaa), as_bytes("Test Using Larger Than Block-Size Key - Hash Key First"))) ==
        "aa4ae5e15272d00e95705637ce8a3b55ed402112");
  CHECK(to_hex(hmac_sha256(Datagram(131, 0xaa), as_bytes("Test Using Larger Than Block-Size Key - Hash Key First"))) ==
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST_CASE("an HMAC of two parts is that of both in one, wherever the cut is") {
  const auto text = as_bytes("what do ya want for nothing?");
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    CHECK(hmac_sha1(as_bytes("Jefe"), text.first(cut), text.subspan(cut)) == hmac_sha1(as_bytes("Jefe"), text));
    CHECK(hmac_sha256(as_bytes("Jefe"), text.first(cut), text.subspan(cut)) == hmac_sha256(as_bytes("Jefe"), text));
  }
}

TEST_CASE("MD5, SHA-256 and CRC-32 give their published check values") {
  CHECK(to_hex(md5("abc")) == "900150983cd24fb0d6963f7d28e17f72");
  CHECK(to_hex(sha256("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(crc32(as_bytes("123456789")) == 0xCBF43926);
  CHECK(crc32({}) == 0);
}

TEST_CASE("the long-term key of RFC 8489, 9.2.2") {
  const Key key = long_term_key(PasswordAlgorithm::md5, "user", "realm", "pass");
  CHECK(to_hex(key.bytes()) == "8493fbc53ba582fb4c044c456bdc40eb");
  CHECK(long_term_key(PasswordAlgorithm::sha256, "user", "realm", "pass").bytes().size() == 32);
  CHECK(Key().empty());
}

TEST_CASE("a REST password is base64 of HMAC-SHA1 over the user name") {
  const auto decoded = from_base64(rest_password("north", "1700000000:alice"));
  REQUIRE(decoded);
  CHECK(to_hex(as_bytes(*decoded)) == to_hex(hmac_sha1(as_bytes("north"), as_bytes("1700000000:alice"))));
}

TEST_CASE("base64 has one spelling for a value (RFC 4648, 10 and 3.5)") {
  const std::pair<const char*, const char*> vectors[] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"},
                                                        {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, text] : vectors) {
    CHECK(base64(as_bytes(plain)) == text);
    CHECK(from_base64(text) == std::optional<std::string>(plain));
  }
  for (const char* bad : {"Zg=", "Zg", "Zh==", "Zm9=", "Z===", "====", "Zm 9", " Zm9v", "Zm9v\n", "=g==", "Zm9v====", "Zm-_"}) {
    CAPTURE(bad);
    CHECK_FALSE(from_base64(bad));
  }
}

TEST_CASE("hex is read in both cases and written in lower") {
  CHECK(from_hex("00fFA1") == std::string("\0\xff\xa1", 3));
  CHECK(to_hex(as_bytes("\xff\xa1")) == "ffa1");
  CHECK_FALSE(from_hex("0"));
  CHECK_FALSE(from_hex("0g"));
}

}  // namespace radiotower::stun
