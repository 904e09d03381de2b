// Long-term credentials (RFC 8489, 9.2.4), in the order in which the section lists its checks.
#include <algorithm>

#include "server_impl.h"

namespace radiotower::turn {

using stun::Attribute;
using stun::ErrorCode;

namespace {

constexpr std::size_t max_username = 508;       // RFC 8489, 14.3: less than 509 bytes
constexpr std::size_t max_realm_or_nonce = 763;  // 14.9, 14.10

bool starts_with_algorithms_cookie(std::string_view nonce) {
  // "obMatJos2" and four characters of features, of which the rightmost bit says PASSWORD-ALGORITHMS (RFC 8489, 9.2, 18.1).
  if (nonce.size() < 13 || nonce.substr(0, 9) != "obMatJos2") return false;
  const auto bits = from_base64(nonce.substr(9, 4));
  return bits && bits->size() == 3 && (static_cast<std::uint8_t>((*bits)[2]) & 1) != 0;
}

}  // namespace

bool Server::Impl::authenticate(Request& request, Actions& out) {
  const stun::Message& m = request.message;
  if (!settings->authentication) {  // an open relay, because the configuration says so in words that cannot be missed
    request.username = "";
    return true;
  }

  // Step 1: no integrity at all -> 401 with REALM and NONCE.
  if (!m.has_integrity() && !m.has_integrity_sha256()) {
    challenge(request, ErrorCode::unauthenticated, out);
    return false;
  }

  // Step 2: integrity, but USERNAME or USERHASH, REALM or NONCE missing -> 400 without NONCE, REALM or integrity.
  const auto username = m.find(Attribute::username);
  const auto userhash = settings->directory->offers_userhash() ? m.find(Attribute::userhash) : std::nullopt;
  const auto realm = m.find(Attribute::realm);
  const auto nonce = m.find(Attribute::nonce);
  const bool named = username ? !username->empty() && username->size() <= max_username : userhash && userhash->size() == 32;
  if (!named || !realm || !nonce || realm->size() > max_realm_or_nonce || nonce->size() > max_realm_or_nonce) {
    refuse(request, ErrorCode::bad_request, out);
    return false;
  }

  // Step 3: the bid-down guard of PASSWORD-ALGORITHMS.
  if (starts_with_algorithms_cookie(as_text(*nonce)) && !password_algorithms_agree(request, out)) return false;

  // Step 4: the key. A live allocation vouches for its own user: its key goes on working when a REST name has run out or
  // a password was changed meanwhile, so that a reload or a long call never drops anybody (calls.md, F10).
  const Directory& directory = *settings->directory;
  if (username) {
    request.username = as_text(*username);
  } else if (const auto name = directory.name_of(*userhash)) {
    request.username = *name;
  }
  // A realm that is not ours cannot have made the key: checked by comparing, so that no key is tried in vain.
  const bool ours = as_text(*realm) == settings->realm && !request.username.empty();

  candidates.clear();
  const Allocation* held = request.allocation;
  const bool vouched = ours && held && held->username == request.username && held->algorithm == request.algorithm &&
                       !(settings->strict_expiry && held->rest_expiry != 0 && held->rest_expiry <= request.now.unix_time);
  if (vouched) {
    Credential c;
    c.key = held->key;
    c.account = held->account->name();
    c.rest = held->rest_expiry != 0;
    candidates.push_back(c);
  }
  if (ours) directory.find(request.username, request.algorithm, request.now.unix_time, false, candidates);
  if (candidates.empty()) {  // as much work as for a user there is, so that time does not tell (I20)
    Credential nobody;
    nobody.key = directory.nobody();
    candidates.push_back(nobody);
  }

  // Step 5: integrity. MESSAGE-INTEGRITY-SHA256 decides when both are there.
  request.sha256 = m.has_integrity_sha256();
  const bool exists = !candidates.front().account.empty();
  for (const Credential& c : candidates) {
    const bool matches = request.sha256 ? m.integrity_sha256_matches(c.key.bytes()) : m.integrity_matches(c.key.bytes());
    if (!matches || !exists) continue;
    request.credential = c;
    // Step 6: only now is the nonce's age looked at (N08: a stale nonce with a wrong password is a 401).
    const auto is_fresh = [&](const net::TransportAddress& client) {
      return nonces.is_fresh(as_text(*nonce), client, request.now.steady, features(), settings->nonce_lifetime);
    };
    // A ConnectionBind may have the nonce of the control connection: what it asks for is had once, so there is nothing to replay, and clients that keep one
    // nonce for both (coturn's) would lose track of it.
    const bool of_control = m.method() == stun::Method::connection_bind && held && held->username == request.username && is_fresh(held->five_tuple.client);
    if (!of_control && !is_fresh(request.five_tuple.client)) {
      challenge(request, ErrorCode::stale_nonce, out);
      return false;
    }
    request.authenticated = true;
    return true;
  }
  challenge(request, ErrorCode::unauthenticated, out);
  return false;
}

bool Server::Impl::password_algorithms_agree(Request& request, Actions& out) {
  const auto list = request.message.find(Attribute::password_algorithms);
  const auto chosen = request.message.find(Attribute::password_algorithm);
  if (!list && !chosen) return true;  // a client of RFC 5389: MD5 (RFC 8489, 9.2.4)
  bool agree = list && chosen && list->size() == password_algorithms.size() &&
               std::equal(list->begin(), list->end(), password_algorithms.begin());
  if (agree) {
    // Algorithm and length of its parameters; neither of the two registered ones has any (RFC 8489, 14.12).
    agree = chosen->size() == 4 && load_be16(chosen->data() + 2) == 0;
    if (agree) {
      const auto algorithm = static_cast<stun::PasswordAlgorithm>(load_be16(chosen->data()));
      const auto& known = settings->directory->algorithms();
      agree = std::find(known.begin(), known.end(), algorithm) != known.end();
      request.algorithm = algorithm;
    }
  }
  if (!agree) refuse(request, ErrorCode::bad_request, out);
  return agree;
}

}  // namespace radiotower::turn
