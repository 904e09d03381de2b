#include "notifier/authenticate.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <array>
#include <optional>

#include "radiotower/base/encoding.h"

namespace radiotower::notifier {

namespace {

constexpr UnixSeconds longest_delay = 300;  // either way; Standard Webhooks' own figure
constexpr std::string_view signing_prefix = "whsec_";

using Secrets = std::vector<std::string>;

/// One that is empty proves nothing: anybody can make an HMAC with it.
bool is_plain(Format format, const std::string& secret) {
  return !secret.empty() && !(format == Format::gitlab && secret.starts_with(signing_prefix));
}

std::string digest_of(const EVP_MD* hash, std::string_view key, std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  HMAC(hash, key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data(), &size);
  return {reinterpret_cast<const char*>(digest.data()), size};
}
std::string hmac_sha256(std::string_view key, std::string_view text) { return digest_of(EVP_sha256(), key, text); }

/// Of texts of any length: both are hashed first, so that the time tells neither where they differ nor how long they are.
bool equal(std::string_view a, std::string_view b) {
  std::array<unsigned char, 32> first{}, second{};
  EVP_Digest(a.data(), a.size(), first.data(), nullptr, EVP_sha256(), nullptr);
  EVP_Digest(b.data(), b.size(), second.data(), nullptr, EVP_sha256(), nullptr);
  return CRYPTO_memcmp(first.data(), second.data(), first.size()) == 0;
}

/// Decimal, as `date +%s` writes it.
std::optional<UnixSeconds> from_decimal(std::string_view text) {
  if (text.empty() || text.size() > 12 || text[0] == '0') return std::nullopt;
  UnixSeconds seconds = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    seconds = seconds * 10 + (c - '0');
  }
  return seconds;
}

/// The rest behind `scheme` (lower case) and its blanks; nullopt: another scheme.
std::optional<std::string_view> of_scheme(std::string_view authorization, std::string_view scheme) {
  if (authorization.size() <= scheme.size() || authorization[scheme.size()] != ' ') return std::nullopt;
  const bool same = std::equal(scheme.begin(), scheme.end(), authorization.begin(), [](char a, char b) { return a == (b | 0x20); });
  if (!same) return std::nullopt;
  authorization.remove_prefix(std::min(authorization.find_first_not_of(' ', scheme.size()), authorization.size()));
  return authorization;
}

/// What Authorization carries: a bearer's token, or the password of Basic.
std::optional<std::string> password_of(std::string_view authorization) {
  if (const auto token = of_scheme(authorization, "bearer")) return std::string(*token);
  if (const auto credentials = of_scheme(authorization, "basic")) {
    const auto decoded = from_base64(*credentials);
    const std::size_t colon = decoded ? decoded->find(':') : std::string::npos;
    if (colon != std::string::npos) return decoded->substr(colon + 1);
  }
  return std::nullopt;
}

// Each of these looks at all secrets, whatever the first said: which one of a rotation it was is nobody's business.

Verdict judge_text(Format format, const Secrets& secrets, std::string_view text) {
  bool good = false;
  for (const std::string& secret : secrets) good |= is_plain(format, secret) && equal(secret, text);
  return good ? Verdict::good : Verdict::wrong;
}

Verdict judge_hmac(const EVP_MD* hash, const Secrets& secrets, std::string_view hex, std::string_view body) {
  const std::string given = from_hex(hex).value_or("");
  bool good = false;
  for (const std::string& secret : secrets) good |= !secret.empty() && equal(digest_of(hash, secret, body), given);
  return good ? Verdict::good : Verdict::wrong;
}

Verdict judge_prefixed_hmac(const Secrets& secrets, std::string_view signature, std::string_view body) {
  if (!signature.starts_with("sha256=")) return Verdict::wrong;
  return judge_hmac(EVP_sha256(), secrets, signature.substr(7), body);
}

Verdict judge_authorization(Format format, const Secrets& secrets, const FindHeader& header) {
  const std::string_view authorization = header("authorization");
  if (authorization.empty()) return Verdict::missing;
  const auto password = password_of(authorization);
  return password ? judge_text(format, secrets, *password) : Verdict::wrong;
}

/// https://www.standardwebhooks.com: one of the signatures has to be that of one of the keys.
Verdict judge_standard_webhook(const Secrets& secrets, const FindHeader& header, std::string_view body, UnixSeconds now) {
  const std::string_view id = header("webhook-id"), timestamp = header("webhook-timestamp");
  const auto seconds = from_decimal(timestamp);
  if (id.empty() || !seconds) return Verdict::wrong;

  std::vector<std::string> signatures;
  for (std::string_view rest = header("webhook-signature"); !rest.empty();) {
    const std::string_view one = rest.substr(0, rest.find(' '));
    rest.remove_prefix(std::min(one.size() + 1, rest.size()));
    if (!one.starts_with("v1,")) continue;  // "v1a" is a public key's
    if (auto bytes = from_base64(one.substr(3))) signatures.push_back(std::move(*bytes));
  }
  std::string signed_text;
  signed_text.reserve(id.size() + timestamp.size() + body.size() + 2);
  signed_text.append(id).append(".").append(timestamp).append(".").append(body);
  bool good = false;
  for (const std::string& secret : secrets) {
    if (!secret.starts_with(signing_prefix)) continue;
    const auto key = from_base64(std::string_view(secret).substr(signing_prefix.size()));
    if (!key || key->empty()) continue;
    const std::string expected = hmac_sha256(*key, signed_text);
    for (const std::string& signature : signatures) good |= equal(expected, signature);
  }
  if (!good) return Verdict::wrong;
  return *seconds < now - longest_delay || *seconds > now + longest_delay ? Verdict::stale : Verdict::good;
}

bool is_signing(const std::string& secret) { return secret.starts_with(signing_prefix); }
bool has_signing_key(const Secrets& secrets) { return std::any_of(secrets.begin(), secrets.end(), is_signing); }

/// What can be said of a signature before its body is there.
Verdict judge_standard_webhook_head(const FindHeader& header) {
  const auto seconds = from_decimal(header("webhook-timestamp"));
  if (header("webhook-id").empty() || !seconds) return Verdict::wrong;
  for (std::string_view rest = header("webhook-signature"); !rest.empty();) {
    const std::string_view one = rest.substr(0, rest.find(' '));
    rest.remove_prefix(std::min(one.size() + 1, rest.size()));
    if (!one.starts_with("v1,")) continue;
    // Whether its time is too far off is said only to who has signed rightly, and that needs the body.
    if (const auto bytes = from_base64(one.substr(3)); bytes && bytes->size() == 32) return Verdict::needs_body;
  }
  return Verdict::wrong;
}

Verdict judge_gitlab(const Secrets& secrets, const FindHeader& header, std::string_view body, UnixSeconds now) {
  if (has_signing_key(secrets) && !header("webhook-signature").empty()) return judge_standard_webhook(secrets, header, body, now);
  if (std::all_of(secrets.begin(), secrets.end(), is_signing)) return Verdict::missing;
  if (const std::string_view token = header("x-gitlab-token"); !token.empty()) return judge_text(Format::gitlab, secrets, token);
  return judge_authorization(Format::gitlab, secrets, header);
}

Verdict judge_artifactory(const Secrets& secrets, std::string_view value, std::string_view body) {
  const bool plain = judge_text(Format::artifactory, secrets, value) == Verdict::good;
  const std::string_view hex = value.substr(value.starts_with("sha256=") ? 7 : value.starts_with("sha1=") ? 5 : 0);
  const EVP_MD* hash = value.starts_with("sha1=") ? EVP_sha1() : EVP_sha256();
  const bool is_signature = judge_hmac(hash, secrets, hex, body) == Verdict::good;
  return plain || is_signature ? Verdict::good : Verdict::wrong;
}

constexpr std::array<std::string_view, 3> gitea_signatures = {"x-gitea-signature", "x-forgejo-signature", "x-gogs-signature"};

/// Where the sender's administrator sets the secret.
std::string_view place(Format format) {
  switch (format) {
    case Format::gitlab: return "in GitLab under Settings > Webhooks, as secret token (X-Gitlab-Token) or signing token (webhook-signature)";
    case Format::sonarqube: return "in SonarQube under Administration > Webhooks, as secret (X-Sonar-Webhook-HMAC-SHA256)";
    case Format::gitea: return "in Gitea or Forgejo under Settings > Webhooks, as secret (X-Gitea-Signature)";
    case Format::github: return "in GitHub under Settings > Webhooks, as secret (X-Hub-Signature-256)";
    case Format::artifactory: return "in Artifactory under Administration > Webhooks, as secret token (X-JFrog-Event-Auth)";
    case Format::jenkins: return "in the endpoint's URL as https://any-name:SECRET@host/... (Authorization: Basic)";
    case Format::alertmanager: return "in the receiver's http_config as authorization: {credentials: SECRET} (Authorization: Bearer)";
    case Format::slack:
    case Format::generic: break;
  }
  return "as Authorization: Bearer SECRET, or in the URL as https://any-name:SECRET@host/... (Authorization: Basic)";
}

}  // namespace

Verdict authenticate_head(Format format, const Secrets& secrets, const FindHeader& header, UnixSeconds now) {
  const auto is_hex = [](std::string_view text, std::size_t bytes) { return text.size() == 2 * bytes && from_hex(text).has_value(); };
  const auto of_body = [](bool well_formed) { return well_formed ? Verdict::needs_body : Verdict::wrong; };
  switch (format) {
    case Format::gitlab:
      if (has_signing_key(secrets) && !header("webhook-signature").empty()) return judge_standard_webhook_head(header);
      break;
    case Format::sonarqube:
      if (const auto hex = header("x-sonar-webhook-hmac-sha256"); !hex.empty()) return of_body(is_hex(hex, 32));
      break;
    case Format::gitea:
      for (const std::string_view name : gitea_signatures)
        if (const auto hex = header(name); !hex.empty()) return of_body(is_hex(hex, 32));
      [[fallthrough]];
    case Format::github:
      if (const auto signature = header("x-hub-signature-256"); !signature.empty())
        return of_body(signature.starts_with("sha256=") && is_hex(signature.substr(7), 32));
      break;
    case Format::artifactory:
      if (const auto value = header("x-jfrog-event-auth"); !value.empty()) {
        if (judge_text(format, secrets, value) == Verdict::good) return Verdict::good;
        return of_body(is_hex(value.substr(value.starts_with("sha256=") ? 7 : 0), 32) || (value.starts_with("sha1=") && is_hex(value.substr(5), 20)));
      }
      break;
    case Format::jenkins:
    case Format::alertmanager:
    case Format::slack:
    case Format::generic: break;
  }
  return authenticate(format, secrets, header, {}, now);  // what is left needs no body
}

Verdict authenticate(Format format, const Secrets& secrets, const FindHeader& header, std::string_view body, UnixSeconds now) {
  switch (format) {
    case Format::gitlab: return judge_gitlab(secrets, header, body, now);
    case Format::sonarqube:
      if (const auto signature = header("x-sonar-webhook-hmac-sha256"); !signature.empty()) return judge_hmac(EVP_sha256(), secrets, signature, body);
      break;
    case Format::gitea:
      for (const std::string_view name : gitea_signatures) {
        if (const auto signature = header(name); !signature.empty()) return judge_hmac(EVP_sha256(), secrets, signature, body);
      }
      [[fallthrough]];
    case Format::github:
      if (const auto signature = header("x-hub-signature-256"); !signature.empty()) return judge_prefixed_hmac(secrets, signature, body);
      break;
    case Format::artifactory:
      if (const auto value = header("x-jfrog-event-auth"); !value.empty()) return judge_artifactory(secrets, value, body);
      break;
    case Format::jenkins:
    case Format::alertmanager:
    case Format::slack:
    case Format::generic: break;
  }
  return judge_authorization(format, secrets, header);
}

std::string explain(Format format, Verdict verdict) {
  const std::string where(place(format));
  switch (verdict) {
    case Verdict::good:
    case Verdict::needs_body: return "the secret is right";
    case Verdict::missing: return "the request carries no secret that this source takes: set it " + where;
    case Verdict::wrong:
      return "the secret or signature is not one of this source: compare it with the source's secrets_file, "
             "and set it " +
             where;
    case Verdict::stale:
      return "the signature is right, but its time is more than 300 s off: compare the clocks of sender and notifier (an old delivery that is sent "
             "again by somebody else looks the same)";
  }
  return {};
}

}  // namespace radiotower::notifier
