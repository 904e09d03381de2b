#include "client.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace radiotower::cli {

using stun::Attribute;
using stun::Class;
using stun::ErrorCode;
using stun::Method;

namespace {

constexpr std::size_t max_datagram = 65'540;  // ChannelData of 65,535 bytes and its padding, on a stream
constexpr std::size_t max_aside = 4096;  // the oldest goes first
constexpr unsigned max_transactions = 4;  // of one request: unsigned, signed, and two stale nonces
constexpr std::size_t request_room = 4096;  // user name, realm, nonce and algorithms of at most 763 bytes each, and the rest

/// "obMatJos2" and four characters of features, whose first bit says PASSWORD-ALGORITHMS (RFC 8489, 9.2.1).
bool promises_algorithms(std::string_view nonce) {
  if (nonce.size() < 13 || nonce.substr(0, 9) != "obMatJos2") return false;
  const auto features = from_base64(nonce.substr(9, 4));
  return features && features->size() == 3 && (static_cast<std::uint8_t>(features->front()) & 0x80) != 0;
}

std::string error_text(const char* what) { return fmt::format("{}: {}", what, std::strerror(errno)); }

}  // namespace

std::optional<Challenge> Challenge::read(const stun::Message& answer, std::string& why) {
  const auto realm = answer.find(Attribute::realm);
  const auto nonce = answer.find(Attribute::nonce);
  if (!realm || !nonce) {
    why = "the answer has no REALM or no NONCE, so nobody could sign a request for it (RFC 8489, 9.2.4)";
    return std::nullopt;
  }
  if (realm->size() > 763 || nonce->size() > 763) {
    why = "REALM or NONCE are longer than 763 bytes (RFC 8489, 14.9 and 14.10)";
    return std::nullopt;
  }
  Challenge out;
  out.realm = as_text(*realm);
  out.nonce = as_text(*nonce);
  if (!promises_algorithms(out.nonce)) return out;

  // RFC 8489, 9.2.5: the bit without the list is what an attacker leaves who wants the weaker hash.
  const auto list = answer.find(Attribute::password_algorithms);
  if (!list) {
    why = "the nonce promises PASSWORD-ALGORITHMS, but they are missing: perhaps somebody took them out on the way (RFC 8489, 9.2.5)";
    return std::nullopt;
  }
  out.algorithms.assign(list->begin(), list->end());
  Bytes rest = *list;
  while (rest.size() >= 4 && !out.algorithm) {
    const std::uint16_t number = load_be16(rest.data());
    const std::size_t parameters = (load_be16(rest.data() + 2) + 3u) & ~std::size_t{3};
    if ((number == 1 || number == 2) && parameters == 0) out.algorithm = static_cast<stun::PasswordAlgorithm>(number);
    rest = rest.subspan(std::min(rest.size(), 4 + parameters));
  }
  if (!out.algorithm) {
    why = "none of the password algorithms on offer is known here";
    return std::nullopt;
  }
  return out;
}

Client::Client(std::unique_ptr<Link> link, const net::TransportAddress& server, Credential credential, RandomSource random, Options options)
    : link_(std::move(link)),
      server_(server),
      credential_(std::move(credential)),
      random_(std::move(random)),
      options_(options),
      buffer_(max_datagram) {}

std::optional<Client> Client::open(const net::TransportAddress& server, Credential credential, RandomSource random, Options options,
                                   std::string& why) {
  LinkFailure failure;
  auto link = open_link(net::Transport::udp, server, {}, options.timeout, failure);
  why = failure.what;
  if (!link) return std::nullopt;
  return Client(std::move(link), server, std::move(credential), std::move(random), options);
}

std::optional<net::TransportAddress> Client::binding(Outcome& outcome) {
  outcome = {};
  const auto answer = transact(Method::binding, [](stun::Writer&) {}, false, outcome);
  if (!answer) return std::nullopt;
  // MAPPED-ADDRESS is what a server of RFC 3489 sends; its numbers are the same without the XOR.
  std::optional<stun::WireAddress> address;
  if (const auto value = answer->find(Attribute::xor_mapped_address)) address = stun::read_xor_address(*value, answer->transaction_id());
  else if (const auto plain = answer->find(Attribute::mapped_address)) address = stun::read_address(*plain);
  if (!address) {
    outcome.failure = Failure::bad_answer;
    outcome.detail = "the answer to Binding holds no XOR-MAPPED-ADDRESS";
    return std::nullopt;
  }
  return address->address;
}

Outcome Client::allocate(std::optional<net::Family> family) {
  return request(
      Method::allocate,
      [&](stun::Writer& w) {
        w.add_u32(Attribute::requested_transport, std::uint32_t{17} << 24);  // UDP (RFC 8656, 18.8)
        if (family) w.add_u32(Attribute::requested_address_family, static_cast<std::uint32_t>(*family) << 24);
      },
      [&](const stun::Message& m) -> std::string {
        const auto relayed = m.find(Attribute::xor_relayed_address);
        const auto mapped = m.find(Attribute::xor_mapped_address);
        const auto lifetime = m.find(Attribute::lifetime);
        // RFC 8656, 7.3: the three of them must be there.
        if (!relayed || !mapped || !lifetime) return "the answer to Allocate lacks XOR-RELAYED-ADDRESS, XOR-MAPPED-ADDRESS or LIFETIME";
        const auto relayed_address = stun::read_xor_address(*relayed, m.transaction_id());
        const auto mapped_address = stun::read_xor_address(*mapped, m.transaction_id());
        const auto seconds = stun::read_u32(*lifetime);
        if (!relayed_address || !mapped_address || !seconds) return "the answer to Allocate holds a malformed address or lifetime";
        allocated_ = true;
        relayed_ = relayed_address->address;
        mapped_ = mapped_address->address;
        lifetime_ = *seconds;
        if (family && relayed_.family() != *family) return "the relayed address is not of the family that was asked for";
        return {};
      });
}

Outcome Client::create_permission(const net::TransportAddress& peer) {
  return request(
      Method::create_permission, [&](stun::Writer& w) { w.add_xor_address(Attribute::xor_peer_address, peer); },
      [](const stun::Message&) { return std::string(); });
}

Outcome Client::bind_channel(std::uint16_t number, const net::TransportAddress& peer) {
  return request(
      Method::channel_bind,
      [&](stun::Writer& w) {
        w.add_u32(Attribute::channel_number, static_cast<std::uint32_t>(number) << 16);
        w.add_xor_address(Attribute::xor_peer_address, peer);
      },
      [](const stun::Message&) { return std::string(); });
}

Outcome Client::refresh(std::uint32_t lifetime_seconds) {
  return request(
      Method::refresh, [&](stun::Writer& w) { w.add_u32(Attribute::lifetime, lifetime_seconds); },
      [&](const stun::Message& m) -> std::string {
        const auto value = m.find(Attribute::lifetime);
        const auto seconds = value ? stun::read_u32(*value) : std::nullopt;
        if (!seconds) return "the answer to Refresh has no LIFETIME";  // RFC 8656, 8.3
        lifetime_ = *seconds;
        allocated_ = lifetime_ != 0;
        if (lifetime_seconds == 0 && lifetime_ != 0) return "the relay goes on holding an allocation that was given back";
        return {};
      });
}

int Client::send_indication(const net::TransportAddress& peer, Bytes payload) {
  std::vector<std::uint8_t> out(payload.size() + 64);
  stun::TransactionId id;
  random_(id);
  stun::Writer writer(out, Class::indication, Method::send, id);
  writer.add_xor_address(Attribute::xor_peer_address, peer).add(Attribute::data, payload);
  return writer.ok() ? link_->send(writer.bytes()) : EMSGSIZE;
}

int Client::send_channel_data(std::uint16_t channel, Bytes payload) {
  if (payload.size() > 0xFFFF) return EMSGSIZE;
  std::vector<std::uint8_t> out(stun::channel_header_size + payload.size());
  store_be16(out.data(), channel);
  store_be16(out.data() + 2, static_cast<std::uint16_t>(payload.size()));
  std::copy(payload.begin(), payload.end(), out.begin() + stun::channel_header_size);
  return link_->send(out);  // which pads it where padding is due (RFC 8656, 12.5)
}

std::optional<Relayed> Client::receive(Clock::time_point deadline) {
  while (aside_.empty()) {
    std::size_t size = 0;
    buffer_.resize(max_datagram);
    switch (link_->receive(buffer_, deadline, size)) {
      case Link::Arrival::message: set_aside(Bytes(buffer_).first(size)); break;
      case Link::Arrival::refused: break;  // of an earlier datagram: the deadline decides
      case Link::Arrival::deadline:
      case Link::Arrival::closed:
      case Link::Arrival::failed: return std::nullopt;
    }
  }
  Relayed out = std::move(aside_.front());
  aside_.pop_front();
  return out;
}

/// Keeps what a peer sent; anything else is not for us.
void Client::set_aside(Bytes datagram) {
  if (datagram.empty()) return;
  Relayed data;
  if (stun::classify(datagram[0]) == stun::FirstByte::channel_data) {
    if (datagram.size() < stun::channel_header_size) return;
    const std::size_t length = load_be16(datagram.data() + 2);
    if (length > datagram.size() - stun::channel_header_size) return;  // RFC 8656, 12.6
    data.channel = load_be16(datagram.data());
    const Bytes payload = datagram.subspan(stun::channel_header_size, length);
    data.payload.assign(payload.begin(), payload.end());
  } else {
    const auto message = stun::Message::read(datagram);
    if (!message || !message->is(Class::indication, Method::data)) return;
    const auto peer = message->find(Attribute::xor_peer_address);
    const auto payload = message->find(Attribute::data);
    const auto address = peer ? stun::read_xor_address(*peer, message->transaction_id()) : std::nullopt;
    if (!address || !payload) return;  // RFC 8656, 11.4; a Data indication with ICMP has no DATA
    data.peer = address->address;
    data.payload.assign(payload->begin(), payload->end());
  }
  if (aside_.size() == max_aside) aside_.pop_front();
  aside_.push_back(std::move(data));
}

/// A request of the long-term credential mechanism (RFC 8489, 9.2): the first one goes unsigned to get a challenge.
Outcome Client::request(Method method, const Fill& fill, const Take& take) {
  Outcome outcome;
  unsigned challenges = 0;
  for (unsigned n = 0; n < max_transactions; ++n) {
    outcome = {};
    outcome.challenges = challenges;
    const bool was_signed = !key_.empty();
    const auto answer = transact(method, fill, was_signed, outcome);
    if (answer) {
      outcome.detail = take(*answer);
      if (!outcome.detail.empty()) outcome.failure = Failure::bad_answer;
      return outcome;
    }
    if (outcome.failure != Failure::refused) return outcome;
    // A 401 to a signed request means that the credentials are wrong: the same ones are not tried again (RFC 8489, 9.2.5).
    const auto code = static_cast<ErrorCode>(outcome.code);
    const bool again = (code == ErrorCode::unauthenticated && !was_signed) || (code == ErrorCode::stale_nonce && was_signed);
    if (!again) return outcome;
    const auto challenge = stun::Message::read(buffer_);  // transact() has left the answer alone in the buffer
    if (!challenge || !learn(*challenge, outcome)) return outcome;
    ++challenges;
  }
  return outcome;
}

bool Client::learn(const stun::Message& answer, Outcome& outcome) {
  std::string why;
  auto challenge = Challenge::read(answer, why);
  if (!challenge) {
    outcome.failure = Failure::bad_answer;
    outcome.detail = fmt::format("a {} that cannot be met: {}", outcome.code, why);
    return false;
  }
  challenge_ = std::move(*challenge);
  key_ = stun::long_term_key(challenge_.algorithm.value_or(stun::PasswordAlgorithm::md5), credential_.username, challenge_.realm,
                             credential_.password);
  return true;
}

/// One transaction: sends, sends again, and returns the success. For an error answer the outcome says which.
std::optional<stun::Message> Client::transact(Method method, const Fill& fill, bool sign, Outcome& outcome) {
  std::array<std::uint8_t, request_room> room;
  stun::TransactionId id;
  random_(id);
  stun::Writer writer(room, Class::request, method, id);
  fill(writer);
  if (sign) {
    writer.add(Attribute::username, std::string_view(credential_.username));
    writer.add(Attribute::realm, std::string_view(challenge_.realm)).add(Attribute::nonce, std::string_view(challenge_.nonce));
    if (challenge_.algorithm) {  // RFC 8489, 9.2.5: the list goes back as it came, or somebody between could shorten it
      writer.add(Attribute::password_algorithms, Bytes(challenge_.algorithms));
      writer.add_u32(Attribute::password_algorithm, static_cast<std::uint32_t>(*challenge_.algorithm) << 16);
      writer.add_integrity_sha256(key_.bytes());
    } else {
      writer.add_integrity(key_.bytes());
    }
  }
  if (!writer.ok()) {
    outcome.failure = Failure::bad_answer;
    outcome.detail = "the server's challenge is too long to be answered";
    return std::nullopt;
  }

  buffer_.resize(max_datagram);
  const Retransmission schedule(options_.rto);
  const auto start = Clock::now();
  const auto give_up = start + (link_->is_reliable() ? options_.timeout : std::min(options_.timeout, schedule.give_up_at()));
  std::string ignored;  // why the last answer did not count
  // On a stream nothing is lost, so nothing is sent again (RFC 8489, 6.2.2).
  const unsigned most_sends = link_->is_reliable() ? 1 : Retransmission::sends;
  while (outcome.sends < most_sends) {
    const auto sent = Clock::now();
    if (outcome.sends > 0 && sent >= give_up) break;
    const int error = link_->send(writer.bytes());
    if (error == ECONNREFUSED) {  // what ICMP said about an earlier datagram is told at the next send
      outcome.failure = Failure::unreachable;
      return std::nullopt;
    }
    if (error == EPIPE || error == ECONNRESET) {
      outcome.failure = Failure::closed;
      return std::nullopt;
    }
    if (error != 0) {
      errno = error;
      outcome.failure = Failure::socket;
      outcome.detail = error_text("sending failed");
      return std::nullopt;
    }
    ++outcome.sends;
    auto wait_until = give_up;
    if (outcome.sends < most_sends) wait_until = std::min(give_up, start + schedule.send_at(outcome.sends));
    auto answer = await_answer(method, id, sign, wait_until, ignored, outcome);
    outcome.round_trip = Clock::now() - sent;
    if (answer || outcome.failure != Failure::none) return answer;
  }
  outcome.failure = Failure::no_answer;
  outcome.detail = ignored;
  return std::nullopt;
}

std::optional<stun::Message> Client::await_answer(Method method, const stun::TransactionId& id, bool is_signed, Clock::time_point deadline,
                                                  std::string& ignored, Outcome& outcome) {
  for (;;) {
    std::size_t size = 0;
    buffer_.resize(max_datagram);
    switch (link_->receive(buffer_, deadline, size)) {
      case Link::Arrival::message: break;
      case Link::Arrival::deadline: return std::nullopt;
      case Link::Arrival::refused: outcome.failure = Failure::unreachable; return std::nullopt;
      case Link::Arrival::closed: outcome.failure = Failure::closed; return std::nullopt;
      case Link::Arrival::failed:
        errno = link_->last_error();
        outcome.failure = Failure::socket;
        outcome.detail = error_text("receiving failed");
        return std::nullopt;
    }
    buffer_.resize(size);  // shrinks: what a message points at stays where it is
    const auto answer = stun::Message::read(buffer_);
    const bool ours = answer && answer->transaction_id() == id && answer->method() == method &&
                      (answer->message_class() == Class::success || answer->message_class() == Class::error);
    if (!ours) {
      set_aside(buffer_);
      continue;
    }
    const bool success = answer->message_class() == Class::success;
    const auto value = answer->find(Attribute::error_code);
    const stun::ErrorValue error = (value ? stun::read_error_code(*value) : std::nullopt).value_or(stun::ErrorValue{});  // 0: unreadable
    const std::string name = success ? "a success" : error.code != 0 ? fmt::format("a {}", error.code) : "an error answer";

    // RFC 8489, 9.2.5: without a matching integrity an answer to a signed request is treated as if it had never come. 401 and
    // 438 are free of that: their sender may not know the key.
    const bool challenge = !success && (error.code == 401 || error.code == 438);
    if (is_signed && !challenge) {
      const bool sha256 = challenge_.algorithm.has_value();  // the request was signed that way, whichever hash made the key
      const bool present = sha256 ? answer->has_integrity_sha256() : answer->has_integrity();
      const bool matches = sha256 ? answer->integrity_sha256_matches(key_.bytes()) : answer->integrity_matches(key_.bytes());
      if (!matches) {
        ignored = fmt::format("{} came {} {}, and such an answer does not count (RFC 8489, 9.2.5)", name, present ? "with a wrong" : "without",
                              sha256 ? "MESSAGE-INTEGRITY-SHA256" : "MESSAGE-INTEGRITY");
        continue;
      }
    }
    if (const auto text = answer->find(Attribute::software)) software_ = as_text(*text);
    if (success) {
      if (answer->unknown_required().empty()) return answer;
      outcome.failure = Failure::bad_answer;  // RFC 8489, 6.3.3
      outcome.detail = fmt::format("the answer holds attribute 0x{:04X}, which has to be understood and is not", answer->unknown_required()[0]);
      return std::nullopt;
    }
    if (error.code == 0) {
      outcome.failure = Failure::bad_answer;
      outcome.detail = "an error answer without a readable ERROR-CODE";
      return std::nullopt;
    }
    outcome.failure = Failure::refused;
    outcome.code = error.code;
    outcome.reason = error.reason;
    if (static_cast<ErrorCode>(error.code) == ErrorCode::try_alternate)
      if (const auto alternate = answer->find(Attribute::alternate_server))
        if (const auto other = stun::read_address(*alternate)) outcome.detail = other->address.text();
    return std::nullopt;
  }
}

}  // namespace radiotower::cli
