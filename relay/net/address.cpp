#include "radiotower/net/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>

#include "join.h"

namespace radiotower::net {

namespace {

constexpr std::uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/// Strict decimal without sign, blank or leading plus.
template <typename Number>
std::optional<Number> decimal(std::string_view text) {
  Number value{};
  if (text.empty() || text[0] < '0' || text[0] > '9') return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

IpAddress IpAddress::v4(const std::uint8_t* four) {
  IpAddress ip;
  std::memcpy(ip.bytes.data(), mapped_prefix, 12);
  std::memcpy(ip.bytes.data() + 12, four, 4);
  return ip;
}

IpAddress IpAddress::v4(std::uint32_t host_order) {
  std::uint8_t four[4];
  store_be32(four, host_order);
  return v4(four);
}

IpAddress IpAddress::v6(const std::uint8_t* sixteen) {
  IpAddress ip;
  std::memcpy(ip.bytes.data(), sixteen, 16);
  return ip;
}

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  if (text.empty() || text.size() > 45 || text.find('\0') != std::string_view::npos) return std::nullopt;
  const std::string copy(text);  // inet_pton wants an end, and would take a NUL inside for it
  std::uint8_t bytes[16];
  if (inet_pton(AF_INET, copy.c_str(), bytes) == 1) return v4(bytes);
  if (inet_pton(AF_INET6, copy.c_str(), bytes) == 1) return v6(bytes);
  return std::nullopt;
}

bool IpAddress::is_unspecified() const {
  return is_v4() ? v4_host_order() == 0 : std::all_of(bytes.begin(), bytes.end(), [](auto b) { return b == 0; });
}
bool IpAddress::is_loopback() const {
  if (is_v4()) return bytes[12] == 127;
  return bytes[15] == 1 && std::all_of(bytes.begin(), bytes.end() - 1, [](auto b) { return b == 0; });
}
bool IpAddress::is_multicast() const { return is_v4() ? (bytes[12] & 0xF0) == 0xE0 : bytes[0] == 0xFF; }
bool IpAddress::is_link_local() const {
  return is_v4() ? bytes[12] == 169 && bytes[13] == 254 : bytes[0] == 0xFE && (bytes[1] & 0xC0) == 0x80;
}

IpAddress IpAddress::as_source() const {
  IpAddress source = *this;
  if (!is_v4()) std::fill(source.bytes.begin() + 8, source.bytes.end(), std::uint8_t{0});
  return source;
}

std::string IpAddress::text() const {
  char buffer[INET6_ADDRSTRLEN];
  if (is_v4()) inet_ntop(AF_INET, v4_bytes(), buffer, sizeof buffer);
  else inet_ntop(AF_INET6, bytes.data(), buffer, sizeof buffer);
  return buffer;
}

std::optional<TransportAddress> TransportAddress::parse(std::string_view text) {
  TransportAddress address;
  std::string_view host, port;
  if (!text.empty() && text[0] == '[') {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos || end + 1 >= text.size() || text[end + 1] != ':') return std::nullopt;
    host = text.substr(1, end - 1);
    port = text.substr(end + 2);
    if (host.find(':') == std::string_view::npos) return std::nullopt;  // brackets are for IPv6
  } else {
    const std::size_t colon = text.find(':');
    if (colon == std::string_view::npos || text.find(':', colon + 1) != std::string_view::npos) return std::nullopt;
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
  }
  const auto ip = IpAddress::parse(host);
  const auto number = decimal<std::uint16_t>(port);
  if (!ip || !number) return std::nullopt;
  address.ip = *ip;
  address.port = *number;
  return address;
}

std::optional<TransportAddress> TransportAddress::from_sockaddr(const sockaddr* address, std::size_t length) {
  TransportAddress result;
  sa_family_t family;
  if (length < sizeof family) return std::nullopt;
  std::memcpy(&family, address, sizeof family);
  if (family == AF_INET && length >= sizeof(sockaddr_in)) {
    sockaddr_in in;
    std::memcpy(&in, address, sizeof in);
    result.ip = IpAddress::v4(reinterpret_cast<const std::uint8_t*>(&in.sin_addr));
    result.port = ntohs(in.sin_port);
    return result;
  }
  if (family == AF_INET6 && length >= sizeof(sockaddr_in6)) {
    sockaddr_in6 in;
    std::memcpy(&in, address, sizeof in);
    result.ip = IpAddress::v6(in.sin6_addr.s6_addr);
    result.port = ntohs(in.sin6_port);
    // A scope matters for link-local addresses alone; elsewhere it would make one client look like two.
    result.scope = result.ip.is_link_local() ? in.sin6_scope_id : 0;
    return result;
  }
  return std::nullopt;
}

std::string TransportAddress::text() const {
  const std::string host = ip.text(), number = std::to_string(port);
  return ip.is_v4() ? join({host, ":", number}) : join({"[", host, "]:", number});
}

std::size_t TransportAddress::to_sockaddr(void* out) const {
  if (ip.is_v4()) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    std::memcpy(&in.sin_addr, ip.v4_bytes(), 4);
    std::memcpy(out, &in, sizeof in);
    return sizeof in;
  }
  sockaddr_in6 in{};
  in.sin6_family = AF_INET6;
  in.sin6_port = htons(port);
  std::memcpy(&in.sin6_addr, ip.bytes.data(), 16);
  in.sin6_scope_id = scope;
  std::memcpy(out, &in, sizeof in);
  return sizeof in;
}

std::optional<AddressRange> AddressRange::parse(std::string_view text, std::string& why) {
  AddressRange range;
  if (const std::size_t slash = text.find('/'); slash != std::string_view::npos) {
    const auto ip = IpAddress::parse(text.substr(0, slash));
    const auto prefix = decimal<unsigned>(text.substr(slash + 1));
    if (!ip) {
      why = join({"\"", text.substr(0, slash), "\" is not an IP address"});
      return std::nullopt;
    }
    const unsigned most = ip->is_v4() ? 32 : 128;
    if (!prefix || *prefix > most) {
      why = join({"\"/", text.substr(slash + 1), "\" is not a prefix length from 0 to ", std::to_string(most)});
      return std::nullopt;
    }
    const unsigned bits = *prefix + (ip->is_v4() ? 96 : 0);
    range.first = range.last = *ip;
    for (unsigned bit = bits; bit < 128; ++bit) {
      const auto mask = static_cast<std::uint8_t>(0x80 >> (bit % 8));
      range.first.bytes[bit / 8] = static_cast<std::uint8_t>(range.first.bytes[bit / 8] & ~mask);
      range.last.bytes[bit / 8] |= mask;
    }
    if (range.first != *ip) {
      why = join({"\"", text, "\" has bits set behind its prefix; did you mean ", range.first.text(), "/",
                  std::to_string(*prefix), "?"});
      return std::nullopt;
    }
    return range;
  }
  const std::size_t dash = text.find('-');
  const auto first = IpAddress::parse(text.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : IpAddress::parse(text.substr(dash + 1));
  if (!first || !last) {
    why = join({"\"", text, "\" is not an IP address, a network (10.0.0.0/8) or a range (10.0.0.1-10.0.0.9)"});
    return std::nullopt;
  }
  if (first->family() != last->family()) {
    why = join({"\"", text, "\" mixes IPv4 and IPv6"});
    return std::nullopt;
  }
  if (*last < *first) {
    why = join({"\"", text, "\" is a reversed range; did you mean ", last->text(), "-", first->text(), "?"});
    return std::nullopt;
  }
  range.first = *first;
  range.last = *last;
  return range;
}

std::optional<unsigned> AddressRange::prefix_length() const {
  unsigned length = 0;
  const auto bit = [](const IpAddress& ip, unsigned i) { return (ip.bytes[i / 8] >> (7 - i % 8)) & 1; };
  while (length < 128 && bit(first, length) == bit(last, length)) ++length;
  for (unsigned i = length; i < 128; ++i)
    if (bit(first, i) != 0 || bit(last, i) != 1) return std::nullopt;
  return first.is_v4() ? length - 96 : length;
}

std::string AddressRange::text() const {
  if (is_single()) return first.text();
  if (const auto length = prefix_length()) return join({first.text(), "/", std::to_string(*length)});
  return join({first.text(), "-", last.text()});
}

std::string_view name(Transport transport) {
  switch (transport) {
    case Transport::udp: return "udp";
    case Transport::tcp: return "tcp";
    case Transport::tls: return "tls";
    case Transport::dtls: return "dtls";
  }
  return "";
}

}  // namespace radiotower::net
