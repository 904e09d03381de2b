// Whether a request carries a secret of its source. Pure; constant time in what the secret is; before the body is parsed.
//
// gitlab        X-Gitlab-Token = a secret; or webhook-signature "v1,<base64>" (several, by blanks) = HMAC-SHA256 of "{id}.{timestamp}.{body}" with the
//               decoded part of a "whsec_<base64>" secret, timestamp within 300 s. With both kinds configured either is enough - but a
//               signature that is there must be right when a signing token is configured.
// sonarqube     X-Sonar-Webhook-HMAC-SHA256 = hex HMAC-SHA256 of the body
// gitea         X-Gitea-Signature (or X-Forgejo-Signature, X-Gogs-Signature) = hex HMAC-SHA256; also X-Hub-Signature-256
// github        X-Hub-Signature-256 = "sha256=" hex HMAC-SHA256
// artifactory   X-JFrog-Event-Auth = the secret itself, or "sha256="/bare hex HMAC-SHA256, or "sha1=" hex HMAC-SHA1 of the body
// every format  also Authorization: Bearer <secret>, or Basic with the secret as password (any user name), where none of the sender's own
//               headers is there: those decide alone. A "whsec_" token of gitlab is a key and never a password; an empty secret proves nothing.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "notifier/sources/source.h"

namespace radiotower::notifier {

enum class Verdict : std::uint8_t {
  good,
  missing,
  wrong,
  stale,       // signed rightly, but the time is off by more than 300 s
  needs_body,  // of a head: a well-formed signature of the body that is still to come
};

/// Of the headers alone, so that a stranger's body need not be read: what is no signature is judged for good. `secrets` is not empty.
Verdict authenticate_head(Format format, const std::vector<std::string>& secrets, const FindHeader& header, UnixSeconds now);
/// Of everything. `secrets` is not empty.
Verdict authenticate(Format format, const std::vector<std::string>& secrets, const FindHeader& header, std::string_view body, UnixSeconds now);

/// The sentence for log and answer: which header was looked for and what to set where in the sender. Holds no byte of the request.
std::string explain(Format format, Verdict verdict);

}  // namespace radiotower::notifier
