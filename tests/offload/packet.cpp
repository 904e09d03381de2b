#include "packet.h"

#include <algorithm>
#include <cstring>

#include "radiotower/base/bytes.h"

namespace radiotower::test {

namespace {

constexpr std::size_t ethernet = 14, udp_size = 8;
constexpr std::uint8_t udp = 17;

std::uint32_t sum(const std::uint8_t* p, std::size_t size) {
  std::uint32_t total = 0;
  for (std::size_t i = 0; i + 1 < size; i += 2) total += load_be16(p + i);
  if (size % 2 != 0) total += static_cast<std::uint32_t>(p[size - 1] << 8);
  return total;
}

std::uint16_t fold(std::uint32_t total) {
  while (total >> 16 != 0) total = (total & 0xffff) + (total >> 16);
  return static_cast<std::uint16_t>(total);
}

std::uint32_t pseudo_header(const net::IpAddress& a, const net::IpAddress& b, std::size_t length) {
  const std::size_t skip = a.is_v4() ? 12 : 0;
  return sum(a.bytes.data() + skip, 16 - skip) + sum(b.bytes.data() + skip, 16 - skip) + udp +
         static_cast<std::uint32_t>(length);
}

}  // namespace

net::TransportAddress at(const char* address) { return net::TransportAddress::parse(address).value(); }

Octets bytes(std::size_t count) {
  Octets v(count);
  for (std::size_t i = 0; i < count; ++i) v[i] = static_cast<std::uint8_t>(0x80 + 7 * i);  // no ChannelData, no STUN
  return v;
}

Octets channel_data(std::uint16_t channel, const Octets& payload) {
  Octets v(4 + payload.size());
  store_be16(v.data(), channel);
  store_be16(v.data() + 2, static_cast<std::uint16_t>(payload.size()));
  std::copy(payload.begin(), payload.end(), v.begin() + 4);
  return v;
}

Octets frame(const Datagram& d) {
  const bool v4 = d.source.ip.is_v4();
  const std::size_t head = ethernet + network_size(d), udp_length = udp_size + d.payload.size();
  Octets v(head + udp_length);
  std::copy(d.to.begin(), d.to.end(), v.begin());
  std::copy(d.from.begin(), d.from.end(), v.begin() + 6);
  store_be16(v.data() + 12, v4 ? 0x0800 : 0x86dd);
  std::uint8_t* ip = v.data() + ethernet;
  if (v4) {
    ip[0] = 0x45;
    ip[1] = d.traffic_class;
    store_be16(ip + 2, static_cast<std::uint16_t>(20 + udp_length));
    store_be16(ip + 4, d.identification);
    store_be16(ip + 6, d.dont_fragment ? 0x4000 : 0);
    ip[8] = d.hop_limit;
    ip[9] = udp;
    std::memcpy(ip + 12, d.source.ip.v4_bytes(), 4);
    std::memcpy(ip + 16, d.destination.ip.v4_bytes(), 4);
    refresh_ipv4_checksum(v);
  } else {
    store_be32(ip, 6u << 28 | static_cast<std::uint32_t>(d.traffic_class) << 20 | d.flow_label);
    store_be16(ip + 4, static_cast<std::uint16_t>(udp_length));
    ip[6] = udp;
    ip[7] = d.hop_limit;
    std::memcpy(ip + 8, d.source.ip.bytes.data(), 16);
    std::memcpy(ip + 24, d.destination.ip.bytes.data(), 16);
  }
  std::uint8_t* u = v.data() + head;
  store_be16(u, d.source.port);
  store_be16(u + 2, d.destination.port);
  store_be16(u + 4, static_cast<std::uint16_t>(udp_length));
  std::copy(d.payload.begin(), d.payload.end(), v.begin() + static_cast<std::ptrdiff_t>(head + udp_size));
  const std::uint32_t pseudo = pseudo_header(d.source.ip, d.destination.ip, udp_length);
  if (d.checksum == Checksum::partial) store_be16(u + 6, fold(pseudo));
  if (d.checksum == Checksum::whole) {
    const auto check = static_cast<std::uint16_t>(~fold(pseudo + sum(u, udp_length)));
    store_be16(u + 6, check == 0 ? 0xffff : check);
  }
  return v;
}

void refresh_ipv4_checksum(Octets& frame) {
  std::uint8_t* ip = frame.data() + ethernet;
  store_be16(ip + 10, 0);
  store_be16(ip + 10, static_cast<std::uint16_t>(~fold(sum(ip, (ip[0] & 15u) * 4))));
}

std::optional<Datagram> read(const Octets& v, std::string& why) {
  const auto wrong = [&](const char* sentence) {
    why = sentence;
    return std::nullopt;
  };
  if (v.size() < ethernet + 20 + udp_size) return wrong("too short");
  Datagram d;
  std::copy_n(v.begin(), 6, d.to.begin());
  std::copy_n(v.begin() + 6, 6, d.from.begin());
  const std::uint8_t* ip = v.data() + ethernet;
  const std::uint16_t type = load_be16(v.data() + 12);
  std::size_t head = ethernet, length = 0;
  if (type == 0x0800) {
    head += 20;
    if (ip[0] != 0x45) return wrong("IPv4 version or header length");
    if (fold(sum(ip, 20)) != 0xffff) return wrong("IPv4 checksum");
    if (load_be16(ip + 2) != v.size() - ethernet) return wrong("IPv4 length");
    if ((load_be16(ip + 6) & 0xbfff) != 0 || ip[9] != udp) return wrong("IPv4 fragment or protocol");
    length = load_be16(ip + 2) - 20u;
    d.traffic_class = ip[1];
    d.identification = load_be16(ip + 4);
    d.dont_fragment = (ip[6] & 0x40) != 0;
    d.hop_limit = ip[8];
    d.source.ip = net::IpAddress::v4(ip + 12);
    d.destination.ip = net::IpAddress::v4(ip + 16);
  } else if (type == 0x86dd) {
    head += 40;
    if (v.size() < head + udp_size || ip[0] >> 4 != 6 || ip[6] != udp) return wrong("IPv6 header");
    if (load_be16(ip + 4) != v.size() - head) return wrong("IPv6 length");
    length = load_be16(ip + 4);
    d.traffic_class = static_cast<std::uint8_t>(load_be32(ip) >> 20);
    d.flow_label = load_be32(ip) & 0xfffff;
    d.hop_limit = ip[7];
    d.source.ip = net::IpAddress::v6(ip + 8);
    d.destination.ip = net::IpAddress::v6(ip + 24);
  } else {
    return wrong("Ethernet type");
  }
  const std::uint8_t* u = v.data() + head;
  d.source.port = load_be16(u);
  d.destination.port = load_be16(u + 2);
  if (load_be16(u + 4) != length) return wrong("UDP length");
  if (load_be16(u + 6) == 0)
    d.checksum = Checksum::none;
  else if (fold(pseudo_header(d.source.ip, d.destination.ip, length) + sum(u, length)) != 0xffff)
    return wrong("UDP checksum");
  d.payload.assign(v.begin() + static_cast<std::ptrdiff_t>(head + udp_size), v.end());
  return d;
}

}  // namespace radiotower::test
