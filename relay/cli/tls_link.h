// TLS and DTLS of a client, and what a certificate means for those who will see it.
#pragma once

#include <openssl/ssl.h>

#include "link.h"
#include "wait.h"

namespace radiotower::cli {

/// Shakes hands over a connected descriptor. nullptr: see `failure`. The process ignores SIGPIPE, which OpenSSL's writes would raise.
std::unique_ptr<Link> open_tls_link(Fd fd, bool datagrams, const net::TransportAddress& server, const TlsOptions& options, std::vector<Link::Step> steps,
                                    std::chrono::milliseconds timeout, LinkFailure& failure);

/// The subject alternative names, DNS names and IP addresses as text.
std::vector<std::string> names_of(X509* certificate);

/// What is wrong with a certificate for a client that knows the server as `name`: a sentence and what to do. `result`: of SSL_get_verify_result().
/// Empty `what`: nothing is.
LinkFailure judge_certificate(long result, X509* certificate, const std::string& name, const std::string& ca_file);

}  // namespace radiotower::cli
