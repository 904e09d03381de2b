// The control half: sockets, and answers to the five requests that the load makes.
#include <netinet/udp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "floor.h"

namespace radiotower::bare {

using stun::Attribute;
using stun::Class;
using stun::Method;

namespace {

// As the relay has them, so that neither loses what the other keeps.
constexpr int listener_receive_buffer = 8 << 20, relay_receive_buffer = 1 << 20;
constexpr std::string_view nonce = "the-only-nonce-there-is";
constexpr std::uint32_t lifetime = 3600;  // what is answered; nothing ends
constexpr std::size_t huge_page = 2 << 20;

sockaddr_in to_sockaddr(const net::TransportAddress& address) {
  sockaddr_storage any{};
  address.to_sockaddr(&any);
  sockaddr_in result;
  std::memcpy(&result, &any, sizeof result);
  return result;
}

net::TransportAddress from_sockaddr(const sockaddr_in& a) {
  return {net::IpAddress::v4(ntohl(a.sin_addr.s_addr)), ntohs(a.sin_port), 0};
}

/// -1, and errno, when there is none.
int open_socket(const net::TransportAddress& local, int receive_buffer, bool offload) {
  const int s = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (s < 0) return -1;
  const auto set = [s](int level, int option, int value) {
    return setsockopt(s, level, option, &value, sizeof value) == 0;
  };
  set(IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT);  // as a relay must (RFC 8656, 13), since it is not free
  if (!set(SOL_SOCKET, SO_RCVBUFFORCE, receive_buffer)) set(SOL_SOCKET, SO_RCVBUF, receive_buffer);
  if (offload && !set(IPPROTO_UDP, UDP_GRO, 1)) give_up("UDP_GRO", errno);
  const sockaddr_in address = to_sockaddr(local);
  if (bind(s, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return s;
  const int error = errno;
  close(s);
  errno = error;
  return -1;
}

}  // namespace

Flows::Flows(Options options)
    : options_(std::move(options)),
      key_(stun::long_term_key(stun::PasswordAlgorithm::md5, options_.user, options_.realm, options_.password)),
      next_port_(options_.first_port),
      places_(std::size_t{2} * most_flows) {
  static_assert(std::size_t{2} * most_flows == 1 << 16, "place_of takes 16 bits of the hash");
  flows_.reserve(most_flows);
  // A ring's sockets outlive its program for a moment: the port may still be held by the one that was measured before.
  for (int i = 0; i < 200 && listener_ < 0; ++i) {
    if (i > 0) usleep(10'000);
    listener_ = open_socket(options_.listen, listener_receive_buffer, options_.offload);
    if (listener_ < 0 && errno != EADDRINUSE) break;
  }
  if (listener_ < 0) give_up("the listener", errno);
}

Flow* Flows::make(const sockaddr_in& client) {
  if (flows_.size() == most_flows) return nullptr;
  while (next_port_ <= options_.last_port) {
    const net::TransportAddress relayed{options_.relay, static_cast<std::uint16_t>(next_port_), 0};
    const int s = open_socket(relayed, relay_receive_buffer, options_.offload);
    if (s < 0 && errno != EADDRINUSE) return nullptr;
    ++next_port_;
    if (s < 0) continue;
    const std::uint64_t key = key_of(client);
    place_of(key) = {key, static_cast<std::uint32_t>(flows_.size())};
    Flow& flow = flows_.emplace_back();
    flow.client = client;
    flow.descriptor = s;
    return &flow;
  }
  return nullptr;
}

void Flows::send(Bytes answer, const sockaddr_in& client) {
  (void)!sendto(listener_, answer.data(), answer.size(), MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&client),
                sizeof client);
}

void Flows::finish(stun::Writer& writer, const sockaddr_in& client) {
  writer.add_integrity(key_.bytes());
  send(writer.bytes(), client);
}

void Flows::refuse(const stun::Message& request, const sockaddr_in& client, stun::ErrorCode code) {
  std::array<std::uint8_t, 512> space;
  stun::Writer writer(space, Class::error, request.method(), request.transaction_id());
  writer.add_error(code, stun::reason_phrase(code));
  if (code != stun::ErrorCode::unauthenticated) return finish(writer, client);
  writer.add(Attribute::realm, options_.realm);
  writer.add(Attribute::nonce, nonce);
  send(writer.bytes(), client);
}

void Flows::answer_allocate(const stun::Message& request, const sockaddr_in& client, Flow* flow) {
  sockaddr_in relayed{};
  socklen_t length = sizeof relayed;
  getsockname(flow->descriptor, reinterpret_cast<sockaddr*>(&relayed), &length);
  std::array<std::uint8_t, 512> space;
  stun::Writer writer(space, Class::success, Method::allocate, request.transaction_id());
  writer.add_xor_address(Attribute::xor_relayed_address, from_sockaddr(relayed));
  writer.add_u32(Attribute::lifetime, lifetime);
  writer.add_xor_address(Attribute::xor_mapped_address, from_sockaddr(client));
  finish(writer, client);
}

std::optional<std::uint32_t> Flows::answer(Bytes bytes, const sockaddr_in& client) {
  const auto request = stun::Message::read(bytes);
  if (!request || request->message_class() != Class::request) return std::nullopt;
  std::array<std::uint8_t, 512> space;
  stun::Writer writer(space, Class::success, request->method(), request->transaction_id());
  if (request->method() == Method::binding) {
    writer.add_xor_address(Attribute::xor_mapped_address, from_sockaddr(client));
    send(writer.bytes(), client);
    return std::nullopt;
  }
  if (!request->has(Attribute::username)) {
    refuse(*request, client, stun::ErrorCode::unauthenticated);
    return std::nullopt;
  }
  Flow* flow = find(client);
  if (request->method() == Method::allocate) {
    const bool is_new = !flow;  // else it is a retransmission, or another run of the load: the same port again
    if (is_new) flow = make(client);
    if (!flow) {
      refuse(*request, client, stun::ErrorCode::insufficient_capacity);
      return std::nullopt;
    }
    answer_allocate(*request, client, flow);
    return is_new ? std::optional(static_cast<std::uint32_t>(flow - flows_.data())) : std::nullopt;
  }
  if (!flow) {
    refuse(*request, client, stun::ErrorCode::allocation_mismatch);
    return std::nullopt;
  }
  switch (request->method()) {
    case Method::create_permission: break;
    case Method::refresh: writer.add_u32(Attribute::lifetime, lifetime); break;
    case Method::channel_bind: {
      const auto number = request->find(Attribute::channel_number);
      const auto value = request->find(Attribute::xor_peer_address);
      const auto peer = value ? stun::read_xor_address(*value, request->transaction_id()) : std::nullopt;
      if (!number || number->size() != 4 || !peer || !peer->address.ip.is_v4()) {
        refuse(*request, client, stun::ErrorCode::bad_request);
        return std::nullopt;
      }
      std::memcpy(&flow->channel, number->data(), sizeof flow->channel);
      flow->peer = to_sockaddr(peer->address);
      break;
    }
    default: return std::nullopt;
  }
  finish(writer, client);
  return std::nullopt;
}

Buffers::Buffers(std::size_t count, std::size_t head, bool offload) : count_(count) {
  size_ = head + (offload ? 65507 : 2048);
  // Not a power of two, which would put the heads of all buffers into the same few sets of the cache.
  stride_ = (size_ + 63) / 64 * 64 + (offload ? 2048 : 64);
  all_ = (count * stride_ + huge_page - 1) / huge_page * huge_page;
  void* memory = mmap(nullptr, all_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) give_up("mmap", errno);
  madvise(memory, all_, MADV_HUGEPAGE);  // fewer misses of the TLB, where the kernel has them to give
  madvise(memory, all_, MADV_POPULATE_WRITE);  // now, not in the first packets that are measured
  memory_ = static_cast<std::uint8_t*>(memory);
}

Buffers::~Buffers() { munmap(memory_, all_); }

}  // namespace radiotower::bare
