// stun/protocol.h against IANA's "STUN Parameters".
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "sample.h"

namespace radiotower::stun {

namespace {

struct Row {
  unsigned first, last;
  std::string name;
};

std::vector<Row> registry(const std::string& file) {
  std::ifstream in = open_data(file);
  std::vector<Row> rows;
  std::string line;
  std::getline(in, line);
  while (std::getline(in, line)) {
    const std::size_t comma = line.find(','), next = line.find(',', comma + 1);
    const std::string value = line.substr(0, comma);
    const std::size_t dash = value.find('-');
    const auto number = [](const std::string& text) { return static_cast<unsigned>(std::stoul(text, nullptr, 0)); };
    rows.push_back({number(value), dash == std::string::npos ? number(value) : number(value.substr(dash + 1)),
                    line.substr(comma + 1, next - comma - 1)});
  }
  return rows;
}

std::string name_of(const std::vector<Row>& rows, unsigned value) {
  for (const Row& row : rows)
    if (row.first <= value && value <= row.last) return row.name;
  return "";
}

}  // namespace

TEST_CASE("methods have IANA's numbers") {
  const auto rows = registry("iana-stun-methods.csv");
  REQUIRE(rows.size() == 17);
  const std::pair<Method, const char*> ours[] = {
      {Method::binding, "Binding"}, {Method::allocate, "Allocate"}, {Method::refresh, "Refresh"}, {Method::send, "Send"},
      {Method::data, "Data"}, {Method::create_permission, "CreatePermission"}, {Method::channel_bind, "ChannelBind"},
      {Method::connect, "Connect"}, {Method::connection_bind, "ConnectionBind"}, {Method::connection_attempt, "ConnectionAttempt"}};
  for (const auto& [method, name] : ours) CHECK(name_of(rows, static_cast<unsigned>(method)) == name);
}

TEST_CASE("attributes have IANA's numbers, and what we can name is exactly what we know") {
  const auto rows = registry("iana-stun-attributes.csv");
  const std::pair<Attribute, const char*> ours[] = {
      {Attribute::mapped_address, "MAPPED-ADDRESS"}, {Attribute::username, "USERNAME"},
      {Attribute::message_integrity, "MESSAGE-INTEGRITY"}, {Attribute::error_code, "ERROR-CODE"},
      {Attribute::unknown_attributes, "UNKNOWN-ATTRIBUTES"}, {Attribute::channel_number, "CHANNEL-NUMBER"},
      {Attribute::lifetime, "LIFETIME"}, {Attribute::xor_peer_address, "XOR-PEER-ADDRESS"}, {Attribute::data, "DATA"},
      {Attribute::realm, "REALM"}, {Attribute::nonce, "NONCE"}, {Attribute::xor_relayed_address, "XOR-RELAYED-ADDRESS"},
      {Attribute::requested_address_family, "REQUESTED-ADDRESS-FAMILY"}, {Attribute::even_port, "EVEN-PORT"},
      {Attribute::requested_transport, "REQUESTED-TRANSPORT"}, {Attribute::dont_fragment, "DONT-FRAGMENT"},
      {Attribute::message_integrity_sha256, "MESSAGE-INTEGRITY-SHA256"}, {Attribute::password_algorithm, "PASSWORD-ALGORITHM"},
      {Attribute::userhash, "USERHASH"}, {Attribute::xor_mapped_address, "XOR-MAPPED-ADDRESS"},
      {Attribute::reservation_token, "RESERVATION-TOKEN"}, {Attribute::additional_address_family, "ADDITIONAL-ADDRESS-FAMILY"},
      {Attribute::address_error_code, "ADDRESS-ERROR-CODE"}, {Attribute::password_algorithms, "PASSWORD-ALGORITHMS"},
      {Attribute::alternate_domain, "ALTERNATE-DOMAIN"}, {Attribute::icmp, "ICMP"}, {Attribute::software, "SOFTWARE"},
      {Attribute::alternate_server, "ALTERNATE-SERVER"}, {Attribute::fingerprint, "FINGERPRINT"},
      {Attribute::change_request, "CHANGE-REQUEST"}, {Attribute::access_token, "ACCESS-TOKEN"}, {Attribute::padding, "PADDING"},
      {Attribute::response_port, "RESPONSE-PORT"}, {Attribute::connection_id, "CONNECTION-ID"},
      {Attribute::response_origin, "RESPONSE-ORIGIN"}, {Attribute::other_address, "OTHER-ADDRESS"},
      {Attribute::third_party_authorization, "THIRD-PARTY-AUTHORIZATION"}, {Attribute::origin, "Unassigned"},
      {Attribute::mobility_ticket, "MOBILITY-TICKET"}};
  std::set<unsigned> known;
  for (const auto& [attribute, name] : ours) {
    CHECK(name_of(rows, static_cast<unsigned>(attribute)) == name);
    known.insert(static_cast<unsigned>(attribute));
  }
  for (unsigned type = 0; type <= 0xFFFF; ++type)
    if (is_known(static_cast<std::uint16_t>(type)) != (known.count(type) == 1)) FAIL("type " << type);
}

TEST_CASE("each error code of ours is registered, with its reason phrase") {
  const auto rows = registry("iana-stun-error-codes.csv");
  unsigned named = 0;
  for (const Row& row : rows) {
    const std::string phrase = reason_phrase(static_cast<ErrorCode>(row.first));
    if (phrase.empty()) continue;
    ++named;
    CHECK(phrase == row.name);
  }
  CHECK(named == 17);
  for (unsigned code = 0; code < 700; ++code)
    if (*reason_phrase(static_cast<ErrorCode>(code)) && name_of(rows, code).empty()) FAIL("code " << code);
}

TEST_CASE("the first byte tells STUN, channels and the rest apart (RFC 8656, 12, table 3)") {
  for (unsigned byte = 0; byte < 256; ++byte) {
    const FirstByte expected = byte <= 3 ? FirstByte::stun : byte >= 64 && byte <= 79 ? FirstByte::channel_data : FirstByte::other;
    CHECK(classify(static_cast<std::uint8_t>(byte)) == expected);
  }
}

}  // namespace radiotower::stun
