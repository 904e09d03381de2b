#include "radiotower/net/proxy_protocol.h"

#include <algorithm>

namespace radiotower::net {

namespace {

constexpr std::string_view signature_1 = "PROXY ";
constexpr std::string_view signature_2{"\r\n\r\n\0\r\nQUIT\n", 12};
constexpr std::size_t longest_line = 107;  // of version 1, CR LF and all
constexpr std::size_t front_2 = 16;        // of version 2: signature, version and command, family and transport, length

/// True when `text` is the front of `whole`, or goes beyond it.
bool agrees(std::string_view text, std::string_view whole) { return text.substr(0, whole.size()) == whole.substr(0, text.size()); }

/// A whole field, or the front of one that has not ended.
bool address(std::string_view field, bool ended, bool v6, IpAddress& out) {
  if (!ended) {
    if (field.size() > (v6 ? 45 : 15)) return false;
    return std::all_of(field.begin(), field.end(), [&](char c) {
      return (c >= '0' && c <= '9') || c == '.' || (v6 && (c == ':' || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')));
    });
  }
  if ((field.find(':') != std::string_view::npos) != v6) return false;
  const auto parsed = IpAddress::parse(field);
  if (parsed) out = *parsed;
  return parsed.has_value();
}

/// Decimal, 0 to 65535, no leading zero: no second spelling.
bool port(std::string_view field, bool ended, std::uint16_t& out) {
  if (field.empty()) return !ended;
  if (field.size() > 5 || (field.size() > 1 && field[0] == '0')) return false;
  std::uint32_t value = 0;
  for (const char c : field) {
    if (c < '0' || c > '9') return false;
    value = value * 10 + static_cast<std::uint32_t>(c - '0');
  }
  out = static_cast<std::uint16_t>(value);
  return value <= 0xFFFF;
}

ProxyRead read_1(std::string_view text, ProxyHeader& header, std::size_t& length) {
  const std::size_t end = text.substr(0, longest_line).find('\n');
  const bool whole = end != std::string_view::npos;
  if (whole && text[end - 1] != '\r') return ProxyRead::wrong;
  if (!whole && text.size() >= longest_line) return ProxyRead::wrong;
  std::string_view line = text.substr(0, whole ? end - 1 : text.size());
  bool has_cr = whole;
  if (!whole && line.ends_with('\r')) {  // only LF may follow
    line.remove_suffix(1);
    has_cr = true;
  }
  if (line.find('\r') != std::string_view::npos) return ProxyRead::wrong;
  line.remove_prefix(std::min(signature_1.size(), line.size()));

  // The family, then what is left behind its space.
  const std::size_t space = line.find(' ');
  const std::string_view family = line.substr(0, space);
  const bool family_ended = space != std::string_view::npos || has_cr;
  const bool unknown = family == "UNKNOWN", v4 = family == "TCP4", v6 = family == "TCP6";
  if (!family_ended) {
    const bool front = agrees(family, "UNKNOWN") || agrees(family, "TCP4") || agrees(family, "TCP6");
    return front && family.size() <= (family.starts_with('U') ? 7 : 4) ? ProxyRead::incomplete : ProxyRead::wrong;
  }
  if (!unknown && !v4 && !v6) return ProxyRead::wrong;
  ProxyHeader read;
  read.local = unknown;
  if (!unknown) {  // of UNKNOWN whatever else stands in the line is to be ignored
    std::string_view left = space == std::string_view::npos ? std::string_view() : line.substr(space + 1);
    for (int i = 0; i < 4; ++i) {
      const std::size_t next = left.find(' ');
      const bool last = i == 3;
      if (last && next != std::string_view::npos) return ProxyRead::wrong;
      const bool ended = last ? has_cr : next != std::string_view::npos;
      const std::string_view field = left.substr(0, next);
      TransportAddress& of = i % 2 ? read.server : read.client;
      if (i < 2 ? !address(field, ended, v6, of.ip) : !port(field, ended, of.port)) return ProxyRead::wrong;
      if (!ended) {
        if (has_cr) return ProxyRead::wrong;  // the line ends before its fields do
        break;
      }
      if (!last) left.remove_prefix(next + 1);
    }
  }
  if (!whole) return ProxyRead::incomplete;
  header = read;
  length = end + 1;
  return ProxyRead::complete;
}

ProxyRead read_2(Bytes bytes, ProxyHeader& header, std::size_t& length) {
  constexpr unsigned command_local = 0x20, command_proxy = 0x21;
  constexpr unsigned unspecified = 0, inet = 1, unix_domain = 3;  // AF_INET6 is 2
  if (bytes.size() > 12 && bytes[12] != command_local && bytes[12] != command_proxy) return ProxyRead::wrong;
  if (bytes.size() > 13 && ((bytes[13] >> 4) > unix_domain || (bytes[13] & 0x0F) > 2)) return ProxyRead::wrong;
  if (bytes.size() < front_2) {
    // The longest that we take begins its length with a byte below 0x10.
    return bytes.size() == 15 && bytes[14] >= (longest_proxy_header >> 8) ? ProxyRead::wrong : ProxyRead::incomplete;
  }
  const std::size_t size = load_be16(bytes.data() + 14);
  const unsigned family = bytes[12] == command_local ? unspecified : bytes[13] >> 4U;
  static constexpr std::size_t addresses[] = {0, 4 + 4 + 2 + 2, 16 + 16 + 2 + 2, 108 + 108};
  if (size < addresses[family] || front_2 + size > longest_proxy_header) return ProxyRead::wrong;
  if (bytes.size() < front_2 + size) return ProxyRead::incomplete;

  ProxyHeader read;
  const std::uint8_t* at = bytes.data() + front_2;
  // A transport that is not said makes the addresses worth nothing; those of AF_UNIX are paths.
  if ((bytes[13] & 0x0F) == unspecified || family == unspecified || family == unix_domain) {
    read.local = true;
  } else if (family == inet) {
    read.client = {IpAddress::v4(at), load_be16(at + 8)};
    read.server = {IpAddress::v4(at + 4), load_be16(at + 10)};
  } else {
    read.client = {IpAddress::v6(at), load_be16(at + 32)};
    read.server = {IpAddress::v6(at + 16), load_be16(at + 34)};
  }
  header = read;
  length = front_2 + size;  // with the additional fields, which say nothing that a relay needs
  return ProxyRead::complete;
}

}  // namespace

ProxyRead read_proxy_header(Bytes bytes, ProxyHeader& header, std::size_t& length) {
  const std::string_view text = as_text(bytes);
  if (agrees(text, signature_2)) return text.size() < signature_2.size() ? ProxyRead::incomplete : read_2(bytes, header, length);
  if (agrees(text, signature_1)) return text.size() < signature_1.size() ? ProxyRead::incomplete : read_1(text, header, length);
  return ProxyRead::wrong;
}

}  // namespace radiotower::net
