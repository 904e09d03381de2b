// Everything the server says to a client, and the two bounds on what it says to a source that has proved nothing:
// never more than three times the request's size on the wire, and never more than so many a second.
#include <algorithm>
#include <array>

#include "server_impl.h"

namespace radiotower::turn {

using stun::Attribute;
using stun::Class;
using stun::ErrorCode;
using stun::Writer;

namespace {

/// IP and UDP headers of a datagram, which count on the wire.
std::size_t on_the_wire(std::size_t payload, net::Family family) {
  return payload + 8 + (family == net::Family::ipv4 ? 20 : 40);
}

bool within_bound(std::size_t answer, const Request& request) {
  const auto family = request.five_tuple.client.family();
  return on_the_wire(answer, family) <= 3 * on_the_wire(request.message.bytes().size(), family);
}

bool is_secure(const Request& request) {
  return request.five_tuple.transport == net::Transport::tls || request.five_tuple.transport == net::Transport::dtls;
}

}  // namespace

void Server::Impl::protect(const Request& request, Writer& writer) {
  if (!request.authenticated) return;
  if (settings->answer_software) writer.add(Attribute::software, std::string_view("radiotower"));
  // RFC 8489, 9.2.4: answered the way it was asked.
  if (request.sha256) writer.add_integrity_sha256(request.credential.key.bytes());
  else writer.add_integrity(request.credential.key.bytes());
}

/// Whoever has finished a handshake, of TCP or DTLS, has shown that the address is its own: answers to it hit nobody else.
bool Server::Impl::may_answer(AnswerLimit& limit, const Request& request) {
  if (request.five_tuple.transport != net::Transport::udp || limit.allow(request.five_tuple.client, request.now.steady)) return true;
  ++counters.dropped_answer_limit;
  tallies.count(request.message.method(), Tallies::unanswered);
  return false;
}

void Server::Impl::send_answer(const Request& request, std::uint16_t outcome, Writer& writer, Actions& out) {
  if (request.message.has_fingerprint()) writer.add_fingerprint();
  bool too_large = false;
  if (!request.authenticated && settings->authentication && request.five_tuple.transport == net::Transport::udp) {
    if (!within_bound(writer.bytes().size(), request)) too_large = true;  // R04
  }
  if (too_large || !writer.ok()) {
    ++counters.dropped_answer_too_large;
    tallies.count(request.message.method(), Tallies::unanswered);
    return;
  }
  tallies.count(request.message.method(), outcome);
  out.reply_used(writer.bytes().size());
  out.to_client(request.via, request.five_tuple, writer.bytes());
}

void Server::Impl::refuse(const Request& request, ErrorCode code, Actions& out) {
  if (!request.authenticated && !may_answer(error_limit, request)) return;
  ++counters.error_answers;
  Writer writer(out.reply_space(), Class::error, request.message.method(), request.message.transaction_id());
  // Reason phrases are for people: only those who have proved who they are get one (security.md).
  writer.add_error(code, request.authenticated ? std::string_view(stun::reason_phrase(code)) : std::string_view());
  if (code == ErrorCode::try_alternate) {
    ++counters.redirects;
    if (const auto* server = alternate_for(request)) writer.add_address(Attribute::alternate_server, *server);
    // The name that the other server's certificate is checked against (RFC 8489, 14.16: over TLS and DTLS alone).
    if (is_secure(request) && !settings->redirect.domain.empty()) writer.add(Attribute::alternate_domain, settings->redirect.domain);
  }
  protect(request, writer);
  send_answer(request, static_cast<std::uint16_t>(code), writer, out);
}

void Server::Impl::refuse_unknown_attributes(const Request& request, std::span<const std::uint16_t> types, Actions& out) {
  if (!request.authenticated && !may_answer(error_limit, request)) return;
  ++counters.error_answers;
  Writer writer(out.reply_space(), Class::error, request.message.method(), request.message.transaction_id());
  writer.add_error(ErrorCode::unknown_attribute,
                   request.authenticated ? std::string_view(stun::reason_phrase(ErrorCode::unknown_attribute)) : std::string_view());
  writer.add_unknown_attributes(types);  // RFC 8489, 6.3.1: MUST
  protect(request, writer);
  send_answer(request, static_cast<std::uint16_t>(ErrorCode::unknown_attribute), writer, out);
}

void Server::Impl::challenge(const Request& request, ErrorCode code, Actions& out) {
  if (!may_answer(error_limit, request)) return;
  ++counters.error_answers;
  Writer writer(out.reply_space(), Class::error, request.message.method(), request.message.transaction_id());
  const RealmState& realm = request.realm ? *request.realm : realms.front();
  writer.add_error(code, {});
  writer.add(Attribute::realm, realm.name);
  writer.add(Attribute::nonce, nonces.make(request.five_tuple.client, request.now.steady, realm.features()).text());
  writer.add(Attribute::password_algorithms, Bytes(realm.password_algorithms));  // RFC 8489, 9.2.4
  if (settings->tokens) {  // RFC 7635, 3 and 6.1; left out where it would make the whole answer too large (R04)
    const std::string& name = settings->tokens->server_name();
    const std::size_t whole = writer.bytes().size() + 4 + ((name.size() + 3) & ~std::size_t{3}) + (request.message.has_fingerprint() ? 8 : 0);
    if (request.five_tuple.transport != net::Transport::udp || within_bound(whole, request)) writer.add(Attribute::third_party_authorization, name);
  }
  send_answer(request, static_cast<std::uint16_t>(code), writer, out);  // no integrity: nobody has proved to hold a key (I01), or the nonce was not for him
}

void Server::Impl::finish_success(const Request& request, Writer& writer, Actions& out) {
  protect(request, writer);
  send_answer(request, Tallies::success, writer, out);
}

/// What we cannot name, and what we can but have switched off, which the client is to take for a server that cannot (RFC 5780, 6.1).
bool Server::Impl::refuse_unknown(const Request& request, Actions& out) {
  std::array<std::uint16_t, stun::Message::max_unknown + 4> types;
  std::size_t count = 0;
  for (const std::uint16_t type : request.message.unknown_required()) types[count++] = type;
  const auto off = [&](Attribute type, bool on) {
    if (!on && request.message.has(type)) types[count++] = static_cast<std::uint16_t>(type);
  };
  if (request.message.method() == stun::Method::binding) {
    const bool discovery = settings->nat_discovery && request.five_tuple.transport == net::Transport::udp;
    off(Attribute::change_request, alternates_for(request) != nullptr);
    off(Attribute::response_port, discovery);
    off(Attribute::padding, discovery);
  }
  off(Attribute::access_token, settings->tokens != nullptr);
  if (count == 0) return false;
  refuse_unknown_attributes(request, {types.data(), std::min(count, stun::Message::max_unknown)}, out);
  return true;
}

/// RFC 8489, 6.3.1 and 3: answered from the packet alone.
void Server::Impl::binding(const Request& request, Actions& out) {
  if (refuse_unknown(request, out)) return;
  if (settings->nat_discovery && request.five_tuple.transport == net::Transport::udp) return discover(request, out);
  if (!may_answer(binding_limit, request)) return;
  ++counters.binding_answers;
  Writer writer(out.reply_space(), Class::success, stun::Method::binding, request.message.transaction_id());
  writer.add_xor_address(Attribute::xor_mapped_address, request.five_tuple.client);
  finish_success(request, writer, out);  // protected only where features.authenticated_binding has asked for credentials
}

/// RFC 8489, 14.15: of the address family that the request came from. A client's retransmission, and its next try, gets the same server again.
const net::TransportAddress* Server::Impl::alternate_for(const Request& request) const {
  const Redirect& redirect = settings->redirect;
  const auto& servers = is_secure(request) && !redirect.secure_servers.empty() ? redirect.secure_servers : redirect.servers;
  const net::TransportAddress& client = request.five_tuple.client;
  const auto fits = [&](const net::TransportAddress& server) { return server.family() == client.family() && server != request.five_tuple.server; };
  const auto count = static_cast<std::uint64_t>(std::count_if(servers.begin(), servers.end(), fits));
  if (count == 0) return nullptr;
  std::array<std::uint8_t, 18> bytes;
  std::copy(client.ip.bytes.begin(), client.ip.bytes.end(), bytes.begin());
  store_be16(bytes.data() + 16, client.port);
  std::uint64_t index = siphash13(redirect_key, bytes) % count;
  for (const auto& server : servers)
    if (fits(server) && index-- == 0) return &server;
  return nullptr;
}

bool Server::Impl::redirects(const Request& request, Redirect::When reason) const {
  // RFC 8489, 10: only whoever has proved to hold a key is sent away, and the 300 is protected with it. An open relay has no keys.
  return request.authenticated && reason <= settings->redirect.when && alternate_for(request);
}

}  // namespace radiotower::turn
