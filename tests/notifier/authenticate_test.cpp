#include "notifier/authenticate.h"

#include <doctest/doctest.h>

#include <cctype>
#include <map>
#include <tuple>

namespace radiotower::notifier {

namespace {

using Headers = std::map<std::string, std::string, std::less<>>;

FindHeader in(const Headers& headers) {
  return [&headers](std::string_view name) -> std::string_view {
    const auto found = headers.find(name);
    return found == headers.end() ? std::string_view() : found->second;
  };
}

constexpr UnixSeconds now = 1767225600;

Verdict judge(Format format, std::vector<std::string> secrets, const Headers& headers, std::string_view body = "", UnixSeconds at = now) {
  return authenticate(format, secrets, in(headers), body, at);
}

// Made beforehand: printf '%s' BODY | openssl dgst -sha256 -hmac alpha-secret
const std::string body = R"({"status":"SUCCESS","project":{"key":"pump"}})";
const std::string alpha_sha256 = "f95c0a265efe46ad197b62f26d832759272651ae6337c833fa45ed491c449f50";
const std::string alpha_sha1 = "b66a0fb07d18c7563d43f1a58d55cef27c3521ce";
const std::string beta_sha256 = "33f4b657e8849f416ade51190f8991fc0753c1019515db5917b7378d9fd9ccc6";
const std::vector<std::string> rotation = {"alpha-secret", "beta-secret"};

// The vector of GitLab 19's signing tokens, and a second key over the same.
const std::string push = R"({"object_kind":"push"})";
const std::string signing = "whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=";
const std::string signature = "v1,Z+TZ/7ZajOTsy7bHM+h4i59G6v4kjL/E1dgnWOBRNfw=";
const std::string second_signing = "whsec_YW5vdGhlciBrZXkgb2YgdGhpcnR5LXR3byBieXRlcyE=";
const std::string second_signature = "v1,iSYcJDoovscemvBAdB6mcgZSk4iJvsbSoKM0NFH1bwI=";

Headers signed_by(const std::string& signatures) {
  return {{"webhook-id", "f5e5f430-f57b-4e6e-9fac-d9128cd7232f"}, {"webhook-timestamp", "1767225600"}, {"webhook-signature", signatures}};
}

std::string changed(std::string text, std::size_t at) {
  text[at] = text[at] == 'a' ? 'b' : 'a';
  return text;
}

}  // namespace

TEST_CASE("GitLab's signing token: the published vector, and none with a byte changed") {
  CHECK(judge(Format::gitlab, {signing}, signed_by(signature), push) == Verdict::good);
  CHECK(judge(Format::gitlab, {second_signing}, signed_by(second_signature), push) == Verdict::good);
  for (std::size_t i = 0; i < push.size(); ++i) CHECK(judge(Format::gitlab, {signing}, signed_by(signature), changed(push, i)) == Verdict::wrong);
  for (std::size_t i = 0; i < signature.size(); ++i) {
    CHECK(judge(Format::gitlab, {signing}, signed_by(changed(signature, i)), push) == Verdict::wrong);
  }
  Headers other_id = signed_by(signature);
  other_id["webhook-id"] = "f5e5f430-f57b-4e6e-9fac-d9128cd7232e";
  CHECK(judge(Format::gitlab, {signing}, other_id, push) == Verdict::wrong);
  other_id.erase("webhook-id");
  CHECK(judge(Format::gitlab, {signing}, other_id, push) == Verdict::wrong);
}

TEST_CASE("one of several signatures and one of several signing tokens are enough") {
  CHECK(judge(Format::gitlab, {signing}, signed_by("v1,AAAA v1a,Zm9v " + signature), push) == Verdict::good);
  CHECK(judge(Format::gitlab, {signing}, signed_by("  " + second_signature + "  " + signature + " "), push) == Verdict::good);
  CHECK(judge(Format::gitlab, {second_signing, signing}, signed_by(signature), push) == Verdict::good);
  CHECK(judge(Format::gitlab, {signing}, signed_by(second_signature), push) == Verdict::wrong);
  CHECK(judge(Format::gitlab, {signing}, signed_by("v1," + signature), push) == Verdict::wrong);
  CHECK(judge(Format::gitlab, {signing}, signed_by(signature.substr(3)), push) == Verdict::wrong);
}

TEST_CASE("a signature holds for 300 s either way, and a wrong one is wrong before it is stale") {
  for (const UnixSeconds off : {-300, -1, 0, 1, 300}) CHECK(judge(Format::gitlab, {signing}, signed_by(signature), push, now + off) == Verdict::good);
  for (const UnixSeconds off : {-301, 301, 86'400}) {
    CHECK(judge(Format::gitlab, {signing}, signed_by(signature), push, now + off) == Verdict::stale);
    CHECK(judge(Format::gitlab, {signing}, signed_by(second_signature), push, now + off) == Verdict::wrong);
  }
  for (const char* timestamp : {"", " 1767225600", "+1767225600", "01767225600", "1767225600.0", "0x6955b900", "-1", "17672256000000", "now"}) {
    Headers headers = signed_by(signature);
    headers["webhook-timestamp"] = timestamp;
    CAPTURE(timestamp);
    CHECK(judge(Format::gitlab, {signing}, headers, push) == Verdict::wrong);
  }
}

TEST_CASE("GitLab's two kinds of secret: either is enough, but a signature that is there must be right") {
  const std::vector<std::string> both = {"plain-token", signing};
  Headers headers = signed_by(signature);
  CHECK(judge(Format::gitlab, both, headers, push) == Verdict::good);
  headers["x-gitlab-token"] = "wrong";
  CHECK(judge(Format::gitlab, both, headers, push) == Verdict::good);
  headers["x-gitlab-token"] = "plain-token";
  headers["webhook-signature"] = second_signature;
  CHECK(judge(Format::gitlab, both, headers, push) == Verdict::wrong);
  CHECK(judge(Format::gitlab, {"plain-token"}, headers, push) == Verdict::good);  // nothing to check the signature with
  headers.erase("webhook-signature");  // id and timestamp come with each delivery
  CHECK(judge(Format::gitlab, both, headers, push) == Verdict::good);
  CHECK(judge(Format::gitlab, {signing}, headers, push) == Verdict::missing);
  headers["x-gitlab-token"] = signing;  // the signing token itself is never a proof
  CHECK(judge(Format::gitlab, both, headers, push) == Verdict::wrong);
  CHECK(judge(Format::gitlab, both, {{"authorization", "Bearer " + signing}}, push) == Verdict::wrong);
  CHECK(judge(Format::gitlab, {"whsec_", "whsec_not base64"}, signed_by(signature), push) == Verdict::wrong);
}

TEST_CASE("X-Gitlab-Token is compared as a whole") {
  CHECK(judge(Format::gitlab, rotation, {{"x-gitlab-token", "alpha-secret"}}) == Verdict::good);
  CHECK(judge(Format::gitlab, rotation, {{"x-gitlab-token", "beta-secret"}}) == Verdict::good);
  for (const char* token : {"alpha-secre", "alpha-secrets", "Alpha-secret", " alpha-secret", "alpha-secret,beta-secret"}) {
    CHECK(judge(Format::gitlab, rotation, {{"x-gitlab-token", token}}) == Verdict::wrong);
  }
  CHECK(judge(Format::gitlab, rotation, {}) == Verdict::missing);
}

TEST_CASE("each sender's HMAC over the raw body, in either case of hex") {
  std::string upper = alpha_sha256;
  for (char& c : upper) c = static_cast<char>(std::toupper(c));
  const std::tuple<Format, const char*, std::string> cases[] = {
      {Format::sonarqube, "x-sonar-webhook-hmac-sha256", ""}, {Format::gitea, "x-gitea-signature", ""}, {Format::gitea, "x-forgejo-signature", ""},
      {Format::gitea, "x-gogs-signature", ""},                {Format::gitea, "x-hub-signature-256", "sha256="},
      {Format::github, "x-hub-signature-256", "sha256="},     {Format::artifactory, "x-jfrog-event-auth", ""},
      {Format::artifactory, "x-jfrog-event-auth", "sha256="}};
  for (const auto& [format, name, prefix] : cases) {
    CAPTURE(name);
    CHECK(judge(format, rotation, {{name, prefix + alpha_sha256}}, body) == Verdict::good);
    CHECK(judge(format, rotation, {{name, prefix + upper}}, body) == Verdict::good);
    CHECK(judge(format, rotation, {{name, prefix + beta_sha256}}, body) == Verdict::good);
    CHECK(judge(format, {"beta-secret"}, {{name, prefix + alpha_sha256}}, body) == Verdict::wrong);
    CHECK(judge(format, rotation, {{name, prefix + alpha_sha256}}, body + "\n") == Verdict::wrong);
    CHECK(judge(format, rotation, {{name, prefix + alpha_sha256.substr(2)}}, body) == Verdict::wrong);
    CHECK(judge(format, rotation, {{name, prefix + alpha_sha256 + "00"}}, body) == Verdict::wrong);
    CHECK(judge(format, rotation, {{name, prefix + changed(alpha_sha256, 63)}}, body) == Verdict::wrong);
    CHECK(judge(format, rotation, {{name, prefix + alpha_sha256.substr(1) + "g"}}, body) == Verdict::wrong);
    CHECK(judge(format, {""}, {{name, prefix + alpha_sha256}}, body) == Verdict::wrong);
    CHECK(judge(format, rotation, {{name, "x"}, {"authorization", "Bearer alpha-secret"}}, body) == Verdict::wrong);  // its own header decides
    CHECK(judge(format, rotation, {{"authorization", "Bearer alpha-secret"}}, body) == Verdict::good);
    CHECK(judge(format, rotation, {}, body) == Verdict::missing);
  }
  CHECK(judge(Format::github, rotation, {{"x-hub-signature-256", alpha_sha256}}, body) == Verdict::wrong);
  CHECK(judge(Format::github, rotation, {{"x-hub-signature", "sha1=" + alpha_sha1}}, body) == Verdict::missing);
}

TEST_CASE("an empty secret proves nothing, not even with an HMAC that anybody can make") {
  // printf '%s' BODY | openssl dgst -sha256 -mac HMAC -macopt hexkey:
  const char* of_empty_key = "64561015dcdb92c5d77e2bc868ed85ffe215024d96d440ad959f2cbe783b6124";
  CHECK(judge(Format::sonarqube, {""}, {{"x-sonar-webhook-hmac-sha256", of_empty_key}}, body) == Verdict::wrong);
  CHECK(judge(Format::jenkins, {""}, {{"authorization", "Bearer "}}) == Verdict::wrong);
  CHECK(judge(Format::jenkins, {""}, {{"authorization", "Basic Og=="}}) == Verdict::wrong);
}

TEST_CASE("Artifactory sends its secret, or signs with it") {
  CHECK(judge(Format::artifactory, rotation, {{"x-jfrog-event-auth", "beta-secret"}}, body) == Verdict::good);
  CHECK(judge(Format::artifactory, rotation, {{"x-jfrog-event-auth", "sha1=" + alpha_sha1}}, body) == Verdict::good);
  CHECK(judge(Format::artifactory, rotation, {{"x-jfrog-event-auth", alpha_sha1}}, body) == Verdict::wrong);
  CHECK(judge(Format::artifactory, rotation, {{"x-jfrog-event-auth", "sha1=" + alpha_sha256}}, body) == Verdict::wrong);
  CHECK(judge(Format::artifactory, rotation, {{"x-jfrog-event-auth", "sha1=" + alpha_sha1}}, body + " ") == Verdict::wrong);
}

TEST_CASE("Authorization: a bearer's token, or the password of Basic with any user name") {
  const std::pair<const char*, Verdict> cases[] = {
      {"Bearer alpha-secret", Verdict::good},
      {"bearer  beta-secret", Verdict::good},
      {"Basic amVua2luczphbHBoYS1zZWNyZXQ=", Verdict::good},  // jenkins:alpha-secret
      {"BASIC OmFscGhhLXNlY3JldA==", Verdict::good},          // :alpha-secret
      {"Basic amVua2luczphbHBoYS1zZWNyZXQ", Verdict::wrong},
      {"Basic amVua2luczphbHBoYS1zZWNyZXR=", Verdict::wrong},  // a second spelling of the same
      {"Basic YWxwaGEtc2VjcmV0", Verdict::wrong},              // alpha-secret, without a colon
      {"Basic YWxwaGEtc2VjcmV0Og==", Verdict::wrong},          // alpha-secret:
      {"Basic", Verdict::wrong},
      {"Bearer", Verdict::wrong},
      {"Bearer alpha-secret beta-secret", Verdict::wrong},
      {"Bearer Bearer alpha-secret", Verdict::wrong},
      {"Token alpha-secret", Verdict::wrong},
      {"alpha-secret", Verdict::wrong},
      {"", Verdict::missing}};
  for (const Format format : {Format::gitlab, Format::jenkins, Format::sonarqube, Format::artifactory, Format::gitea, Format::github,
                              Format::alertmanager, Format::slack, Format::generic}) {
    for (const auto& [value, verdict] : cases) {
      CAPTURE(value);
      CHECK(judge(format, rotation, {{"authorization", value}}, body) == verdict);
    }
  }
  // A secret may hold colons, and "whsec_" means something to GitLab alone.
  CHECK(judge(Format::jenkins, {"a:b"}, {{"authorization", "Basic ajphOmI="}}) == Verdict::good);
  CHECK(judge(Format::jenkins, {signing}, {{"authorization", "Bearer " + signing}}) == Verdict::good);
}

TEST_CASE("of a head alone: what is no signature is judged, and a signature has to look like one") {
  const std::string secret = "correct-horse-battery", hex64(64, 'a'), hex40(40, 'a');
  const std::string key = "whsec_" + std::string(43, 'A') + "=", signature = "v1," + std::string(43, 'A') + "=";
  const auto head = [&](Format format, const Headers& headers) { return authenticate_head(format, {secret}, in(headers), 1000); };
  CHECK(head(Format::gitlab, {}) == Verdict::missing);
  CHECK(head(Format::gitlab, {{"webhook-id", "1"}, {"webhook-timestamp", "1"}}) == Verdict::missing);
  CHECK(head(Format::gitlab, {{"webhook-signature", signature}}) == Verdict::missing);  // no signing token is set
  CHECK(head(Format::gitlab, {{"x-gitlab-token", "x"}}) == Verdict::wrong);
  CHECK(head(Format::gitlab, {{"x-gitlab-token", secret}}) == Verdict::good);
  const auto signing = [&](const Headers& headers) { return authenticate_head(Format::gitlab, {key}, in(headers), 1000); };
  CHECK(signing({{"webhook-id", "1"}, {"webhook-timestamp", "1000"}, {"webhook-signature", signature}}) == Verdict::needs_body);
  CHECK(signing({{"webhook-id", "1"}, {"webhook-timestamp", "1000"}, {"webhook-signature", "v1,AAAA"}}) == Verdict::wrong);
  CHECK(signing({{"webhook-id", "1"}, {"webhook-timestamp", "x"}, {"webhook-signature", signature}}) == Verdict::wrong);
  CHECK(signing({{"webhook-timestamp", "1000"}, {"webhook-signature", signature}}) == Verdict::wrong);
  CHECK(head(Format::sonarqube, {{"x-gitlab-token", secret}}) == Verdict::missing);
  CHECK(head(Format::sonarqube, {{"x-sonar-webhook-hmac-sha256", "x"}}) == Verdict::wrong);
  CHECK(head(Format::sonarqube, {{"x-sonar-webhook-hmac-sha256", hex64}}) == Verdict::needs_body);
  for (const char* name : {"x-gitea-signature", "x-forgejo-signature", "x-gogs-signature"}) {
    CHECK(head(Format::gitea, {{name, "x"}}) == Verdict::wrong);
    CHECK(head(Format::gitea, {{name, hex64}}) == Verdict::needs_body);
  }
  CHECK(head(Format::github, {{"x-hub-signature-256", hex64}}) == Verdict::wrong);
  CHECK(head(Format::github, {{"x-hub-signature-256", "sha256=" + hex64}}) == Verdict::needs_body);
  CHECK(head(Format::artifactory, {{"x-jfrog-event-auth", "x"}}) == Verdict::wrong);
  CHECK(head(Format::artifactory, {{"x-jfrog-event-auth", secret}}) == Verdict::good);
  for (const std::string& value : {hex64, "sha256=" + hex64, "sha1=" + hex40})
    CHECK(head(Format::artifactory, {{"x-jfrog-event-auth", value}}) == Verdict::needs_body);
  CHECK(head(Format::jenkins, {{"authorization", "Bearer x"}}) == Verdict::wrong);
  CHECK(head(Format::jenkins, {{"authorization", "Bearer " + secret}}) == Verdict::good);
  CHECK(head(Format::jenkins, {{"authorization", "Negotiate x"}}) == Verdict::wrong);
}

TEST_CASE("the sentence names the header and the place to set it in") {
  CHECK(explain(Format::gitlab, Verdict::missing).find("X-Gitlab-Token") != std::string::npos);
  CHECK(explain(Format::sonarqube, Verdict::wrong).find("X-Sonar-Webhook-HMAC-SHA256") != std::string::npos);
  CHECK(explain(Format::gitlab, Verdict::stale).find("clocks") != std::string::npos);
  CHECK(explain(Format::jenkins, Verdict::missing).find("Basic") != std::string::npos);
}

}  // namespace radiotower::notifier
