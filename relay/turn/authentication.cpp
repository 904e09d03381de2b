// Long-term credentials (RFC 8489, 9.2.4), in the order in which the section lists its checks.
#include <algorithm>

#include "server_impl.h"

namespace radiotower::turn {

using stun::Attribute;
using stun::ErrorCode;

namespace {

constexpr std::size_t max_username = 508;       // RFC 8489, 14.3: less than 509 bytes
constexpr std::size_t max_realm_or_nonce = 763;  // 14.9, 14.10
constexpr std::size_t coturn_key_size = 16;
constexpr std::size_t max_origin = 267;          // no name is longer: a scheme, "://", 253 bytes of host, ":65535"

/// The first 16 bytes tell: see open_token().
bool is_same_token(const stun::Key& a, const stun::Key& b) {
  return a.bytes().size() >= coturn_key_size && b.bytes().size() >= coturn_key_size &&
         equal_in_constant_time(a.bytes().first(coturn_key_size), b.bytes().first(coturn_key_size));
}

bool starts_with_algorithms_cookie(std::string_view nonce) {
  // "obMatJos2" and four characters of features, of which the rightmost bit says PASSWORD-ALGORITHMS (RFC 8489, 9.2, 18.1).
  if (nonce.size() < 13 || nonce.substr(0, 9) != "obMatJos2") return false;
  const auto bits = from_base64(nonce.substr(9, 4));
  return bits && bits->size() == 3 && (static_cast<std::uint8_t>((*bits)[2]) & 1) != 0;
}

}  // namespace

/// After start and after every reload. A realm that the settings have lost lives on for the allocations that it made, without its users.
void Server::Impl::adopt_realms() {
  std::vector<RealmState> before = std::move(realms);
  realms.clear();
  realm_by_origin.clear();
  realms.push_back({settings->realm, settings->directory, settings->limits});
  for (const Realm& realm : settings->realms) {
    RealmState& state = realms.emplace_back(RealmState{realm.name, realm.directory, realm.limits, realm.limits.allocations});
    state.limits.allocations = settings->limits.allocations;
    for (const std::string& origin : realm.origins) realm_by_origin.emplace(origin, static_cast<std::uint32_t>(realms.size() - 1));
  }
  for (RealmState& realm : realms) {
    for (const auto algorithm : realm.directory->algorithms()) {  // RFC 8489, 14.11: number, length of parameters (0)
      const auto number = static_cast<std::uint16_t>(algorithm);
      realm.password_algorithms.insert(realm.password_algorithms.end(), {static_cast<std::uint8_t>(number >> 8), static_cast<std::uint8_t>(number), 0, 0});
    }
  }
  table.for_each([&](std::uint32_t, Allocation& allocation) {
    if (realm_named(allocation.account->realm())) return;
    const auto old = std::find_if(before.begin(), before.end(), [&](const RealmState& realm) { return realm.name == allocation.account->realm(); });
    old->retired = true;
    realms.push_back(std::move(*old));
  });
}

const RealmState* Server::Impl::realm_named(std::string_view name) const {
  const auto found = std::find_if(realms.begin(), realms.end(), [&](const RealmState& realm) { return realm.name == name; });
  return found == realms.end() ? nullptr : &*found;
}

const RealmState& Server::Impl::realm_of(const Allocation& allocation) const {
  const RealmState* realm = realm_named(allocation.account->realm());
  return realm ? *realm : realms.front();
}

/// A live allocation keeps its realm, whatever ORIGIN a request on its 5-tuple has. Only an Allocate may be of somebody else, who has taken
/// that 5-tuple over: he proves himself in his own realm, to be told 437. REALM tells which of both it is; before the first 401, his own.
void Server::Impl::choose_realm(Request& request) const {
  const stun::Message& m = request.message;
  if (const Allocation* held = request.allocation) {
    const auto named = m.find(Attribute::realm);
    if (m.method() != stun::Method::allocate || (named && as_text(*named) == held->account->realm())) {
      request.realm = &realm_of(*held);
      return;
    }
  }
  request.realm = &realms.front();
  for (std::size_t i = 0; i < settings->realms.size(); ++i) {
    const auto& listeners = settings->realms[i].listeners;
    if (std::find(listeners.begin(), listeners.end(), request.five_tuple.server) == listeners.end()) continue;
    request.realm = &realms[i + 1];
    return;
  }
  if (realm_by_origin.empty()) return;
  m.for_each(Attribute::origin, [&](Bytes origin) {  // a page in a page sends several; the first that is known counts, as with coturn
    if (request.realm != &realms.front() || origin.size() > max_origin) return;
    if (const auto found = realm_by_origin.find(lower_case(as_text(origin))); found != realm_by_origin.end()) request.realm = &realms[found->second];
  });
}

bool Server::Impl::owns(const Request& request, const Allocation& allocation) const {
  if (!settings->authentication) return true;
  if (request.realm->name != allocation.account->realm()) return false;
  if (!request.credential.token) return allocation.token_expiry == 0 && allocation.username == request.username;
  if (allocation.token_expiry == 0) return false;
  // What a CONNECTION-ID or a ticket names is not his by the 5-tuple, and whoever has seen or guessed one may well have a token too.
  return allocation.is_at(request.five_tuple) || is_same_token(request.credential.key, allocation.key);
}

/// RFC 7635, 7: the key that a token brings. Its account is the token, since nobody but the authorization
/// server knows whose it is.
bool Server::Impl::open_token(Request& request, Bytes value) {
  const auto token = settings->tokens->open(request.username, value, request.now.unix_time);
  if (!token) return false;
  // 9: the lifetime in an answer MUST NOT exceed that of the token; the formula of the same section would, by the 5 seconds for clocks that differ.
  request.longest_lifetime = std::min(token->seconds_left(request.now.unix_time), token->lifetime);
  if (request.longest_lifetime == 0) return false;
  request.token_expiry = request.now.unix_time + request.longest_lifetime;
  const stun::Sha256 name = stun::sha256(as_text(token->mac_key.bytes()));
  token_account = std::string(request.username) + "/" + to_hex(Bytes(name).first(8));
  candidates.push_back({token->mac_key, token_account, true, true, {}, {}});
  // coturn and its client key HMAC-SHA1 with the first 16 bytes of the 20, as if it were an MD5 key. 128 random bits are enough.
  if (token->mac_key.bytes().size() == 20 && !request.message.has_integrity_sha256())
    candidates.push_back({stun::Key(token->mac_key.bytes().first(coturn_key_size)), token_account, true, true, {}, {}});
  return true;
}

bool Server::Impl::authenticate(Request& request, Actions& out) {
  const stun::Message& m = request.message;
  choose_realm(request);
  const RealmState& own = *request.realm;
  const Directory& directory = *own.directory;
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
  const auto userhash = directory.offers_userhash() ? m.find(Attribute::userhash) : std::nullopt;
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
  if (username) {
    request.username = as_text(*username);
  } else if (const auto name = directory.name_of(*userhash)) {
    request.username = *name;
  }
  // A realm that is not ours cannot have made the key: checked by comparing, so that no key is tried in vain.
  const bool ours = as_text(*realm) == own.name && !request.username.empty();

  candidates.clear();
  const Allocation* held = request.allocation;
  const auto token = settings->tokens ? m.find(Attribute::access_token) : std::nullopt;
  const bool vouched = ours && !token && held && held->account->realm() == own.name && held->username == request.username &&
                       (held->token_expiry != 0 || held->algorithm == request.algorithm) &&
                       !(settings->strict_expiry && held->rest_expiry != 0 && held->rest_expiry <= request.now.unix_time) &&
                       !(held->token_expiry != 0 && held->token_expiry <= request.now.unix_time);  // RFC 7635, 9: a new token MUST be brought
  if (vouched) {
    Credential c;
    c.key = held->key;
    c.account = held->account->name();
    c.rest = held->rest_expiry != 0;
    c.token = held->token_expiry != 0;
    candidates.push_back(c);
  }
  if (ours && token) open_token(request, *token);
  else if (ours && !own.retired) directory.find(request.username, request.algorithm, request.now.unix_time, false, candidates);
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
      return nonces.is_fresh(as_text(*nonce), client, request.now.steady, own.features(), settings->nonce_lifetime);
    };
    // A ConnectionBind may have the nonce of the control connection: what it asks for is had once, so there is nothing to replay, and clients that keep one
    // nonce for both (coturn's) would lose track of it.
    const bool of_control = m.method() == stun::Method::connection_bind && held && owns(request, *held) && is_fresh(held->five_tuple.client);
    if (!of_control && !is_fresh(request.five_tuple.client)) {
      challenge(request, ErrorCode::stale_nonce, out);
      return false;
    }
    request.authenticated = true;
    adopt_token(request);
    return true;
  }
  challenge(request, ErrorCode::unauthenticated, out);
  return false;
}

/// What a token has to do with the allocation: without one in the request, the one that was seen last goes on bounding its life; a fresh
/// one takes its place, key and kid. An allocation of a password user is left alone: owns() will say so.
void Server::Impl::adopt_token(Request& request) {
  Allocation* held = request.allocation;
  if (!request.credential.token || !held || held->token_expiry == 0 || !owns(request, *held)) return;
  if (request.token_expiry == 0) {
    const UnixSeconds left = held->token_expiry - request.now.unix_time;
    request.longest_lifetime = static_cast<std::uint32_t>(std::clamp<UnixSeconds>(left, 1, 0xFFFFFFFF));
  } else if (request.message.method() != stun::Method::allocate) {  // whose answer, sent again, is to be what it was
    held->key = request.credential.key;
    held->username = request.username;
    held->token_expiry = request.token_expiry;
  }
}

bool Server::Impl::password_algorithms_agree(Request& request, Actions& out) {
  const auto list = request.message.find(Attribute::password_algorithms);
  const auto chosen = request.message.find(Attribute::password_algorithm);
  if (!list && !chosen) return true;  // a client of RFC 5389: MD5 (RFC 8489, 9.2.4)
  const auto& ours = request.realm->password_algorithms;
  bool agree = list && chosen && std::equal(list->begin(), list->end(), ours.begin(), ours.end());
  if (agree) {
    // Algorithm and length of its parameters; neither of the two registered ones has any (RFC 8489, 14.12).
    agree = chosen->size() == 4 && load_be16(chosen->data() + 2) == 0;
    if (agree) {
      const auto algorithm = static_cast<stun::PasswordAlgorithm>(load_be16(chosen->data()));
      const auto& known = request.realm->directory->algorithms();
      agree = std::find(known.begin(), known.end(), algorithm) != known.end();
      request.algorithm = algorithm;
    }
  }
  if (!agree) refuse(request, ErrorCode::bad_request, out);
  return agree;
}

}  // namespace radiotower::turn
