#include "framing.h"

#include "radiotower/stun/message.h"

namespace radiotower::load {

using stun::Attribute;

namespace {

constexpr std::size_t attribute_header = 4;

std::size_t peer_attribute(const net::TransportAddress& peer) {
  return attribute_header + (peer.family() == net::Family::ipv4 ? 8 : 20);
}

}  // namespace

std::size_t Framing::header_size(const net::TransportAddress& peer) const {
  switch (method_) {
    case Method::channel: return stun::channel_header_size;
    case Method::send: return stun::header_size + peer_attribute(peer) + attribute_header;
    case Method::direct: return 0;
  }
  return 0;
}

void Framing::write_header(std::uint8_t* payload, std::size_t size, const net::TransportAddress& peer,
                           std::uint64_t number) const {
  std::uint8_t* const header = payload - header_size(peer);
  if (method_ == Method::channel) {
    store_be16(header, channel_number);
    store_be16(header + 2, static_cast<std::uint16_t>(size));
  } else if (method_ == Method::send) {
    stun::TransactionId id{};
    std::memcpy(id.data(), &number, sizeof number);
    const std::size_t before_data = stun::header_size + peer_attribute(peer);
    stun::Writer writer(MutableBytes(header, before_data), stun::Class::indication, stun::Method::send, id);
    writer.add_xor_address(Attribute::xor_peer_address, peer);
    // DATA is written by hand: its value lies there already.
    const std::size_t length = before_data - stun::header_size + attribute_header + size + padding(size);
    store_be16(header + 2, static_cast<std::uint16_t>(length));
    store_be16(header + before_data, static_cast<std::uint16_t>(Attribute::data));
    store_be16(header + before_data + 2, static_cast<std::uint16_t>(size));
  }
}

std::optional<Bytes> Framing::unwrap(Bytes datagram, const net::TransportAddress& peer) const {
  if (method_ == Method::direct) return datagram;
  if (method_ == Method::channel) {
    constexpr std::size_t header = stun::channel_header_size;
    if (datagram.size() < header || load_be16(datagram.data()) != channel_number) return std::nullopt;
    if (load_be16(datagram.data() + 2) != datagram.size() - header) return std::nullopt;
    return datagram.subspan(header);
  }
  const auto message = stun::Message::read(datagram);
  if (!message || !message->is(stun::Class::indication, stun::Method::data)) return std::nullopt;
  const auto from = message->find(Attribute::xor_peer_address);
  const auto data = message->find(Attribute::data);
  const auto address = from ? stun::read_xor_address(*from, message->transaction_id()) : std::nullopt;
  if (!address || !data || address->address != peer) return std::nullopt;
  return *data;
}

}  // namespace radiotower::load
