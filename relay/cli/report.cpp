#include "report.h"

#include <fmt/format.h>

#include <cstdio>

#include "json.h"
#include "printable.h"

namespace radiotower::cli {

using stun::ErrorCode;

namespace {

std::string json_list(const std::vector<std::string>& texts) {
  std::string out = "[";
  for (const auto& text : texts) out += (out.size() > 1 ? ", " : "") + json_string(text);
  return out + "]";
}

}  // namespace

double milliseconds_of(Clock::duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }

Report::Report(std::string target, bool json) : target_(std::move(target)), json_(json) {
  if (!json_) fmt::print("{}\n", target_);
}

void Report::step(std::string_view name, Clock::duration took, std::string detail) {
  steps_.push_back({std::string(name), milliseconds_of(took), std::move(detail)});
  if (json_) return;
  fmt::print("  {:<18}{:>9.1f} ms  {}\n", name, steps_.back().milliseconds, printable(steps_.back().detail));
  std::fflush(stdout);
}

void Report::note(std::string text) {
  notes_.push_back(std::move(text));
  if (!json_) fmt::print("  note: {}\n", printable(notes_.back()));
}

void Report::fact(std::string_view name, std::string value) { facts_.emplace_back(name, std::move(value)); }

void Report::failed(std::string_view name, std::string what, std::vector<std::string> check, std::uint16_t code) {
  failed_step_ = name;
  what_failed_ = std::move(what);
  check_ = std::move(check);
  code_ = code;
  if (json_) return;
  fmt::print("  {:<18}{:>12}  {}\n", name, "FAILED", printable(what_failed_));
  for (const auto& text : check_) fmt::print("    check: {}\n", printable(text));
}

int Report::end(std::string_view success) {
  const bool ok = failed_step_.empty();
  if (!json_) {
    if (ok) fmt::print("{}\n", success);
    else fmt::print("failed at {}: {}\n", failed_step_, printable(what_failed_));
    return ok ? 0 : 1;
  }
  std::string out = fmt::format("{{\"target\": {}, \"ok\": {}", json_string(target_), ok);
  for (const auto& [name, value] : facts_) out += fmt::format(", {}: {}", json_string(name), value);
  out += ", \"steps\": [";
  for (std::size_t i = 0; i < steps_.size(); ++i)
    out += fmt::format("{}{{\"step\": {}, \"milliseconds\": {:.3f}, \"detail\": {}}}", i ? ", " : "", json_string(steps_[i].name),
                       steps_[i].milliseconds, json_string(steps_[i].detail));
  out += fmt::format("], \"notes\": {}", json_list(notes_));
  if (!ok) {
    out += fmt::format(", \"failed_step\": {}, \"failure\": {}", json_string(failed_step_), json_string(what_failed_));
    if (code_ != 0) out += fmt::format(", \"error_code\": {}", code_);
    out += fmt::format(", \"check\": {}", json_list(check_));
  }
  fmt::print("{}}}\n", out);
  return ok ? 0 : 1;
}

std::string code_name(std::uint16_t code, std::string_view reason) {
  const std::string_view registered = stun::reason_phrase(static_cast<ErrorCode>(code));
  if (!registered.empty()) return fmt::format("{} {}", code, registered);
  return reason.empty() ? std::to_string(code) : fmt::format("{} {}", code, reason);
}

std::string describe(const Outcome& outcome, const Situation& situation) {
  switch (outcome.failure) {
    case Failure::none: return {};
    case Failure::refused:
      return "the server answered " + code_name(outcome.code, outcome.reason) +
             (outcome.code == 300 && !outcome.detail.empty() ? ", which sends us to " + outcome.detail : std::string());
    case Failure::unreachable: return fmt::format("nobody listens at {} over UDP (ICMP: port unreachable)", situation.server);
    case Failure::closed: return fmt::format("{} closed the connection", situation.server);
    case Failure::no_answer: {
      const std::string sent = fmt::format("{} {} sent", outcome.sends, outcome.sends == 1 ? "request" : "requests");
      if (!outcome.detail.empty()) return fmt::format("no answer that counts from {} ({}): {}", situation.server, sent, outcome.detail);
      return fmt::format("no answer from {} within {:g} s ({})", situation.server, static_cast<double>(situation.timeout.count()) / 1000, sent);
    }
    case Failure::socket:
    case Failure::bad_answer: return outcome.detail;
  }
  return {};
}

std::vector<std::string> advice(const Outcome& outcome, const Situation& s) {
  switch (outcome.failure) {
    case Failure::none: return {};
    case Failure::unreachable:
      return {"is the server running, and does it listen on this address and port? On its host: ss -lun", "is the port right? 3478 is the default"};
    case Failure::closed:
      return {"is this a port for TLS alone, as 5349 is? turns: instead of turn:, stuns: instead of stun:", "is this port one of a TURN server? What it takes for no STUN it closes",
              "too many connections from here, or from the NAT in front: the server's limits (connections_per_source), and its counters (SIGUSR1)"};
    case Failure::no_answer:
      if (!outcome.detail.empty()) return {"the password: an answer signed with another key looks just like this", "the server's version: some leave the integrity out of some errors"};
      if (s.answered_before && s.step == "Allocate")
        return {"is this a listener for STUN alone (listen.stun_only, coturn's stun-only)? It leaves an Allocate without an answer",
                "is the path losing packets? `radiotower stun` a few times tells", "the server's log, and its limits on errors and requests of one source"};
      if (s.answered_before) return {"is the path losing packets? `radiotower stun` a few times tells", "the server's log, and its limits on errors and requests of one source"};
      return {"is the address right, and is it the server's own? `radiotower stun` from the server's host tells the two apart",
              "does a firewall between here and there let UDP to that port through, and the answers back?",
              "is the server running? On its host: ss -lun"};
    case Failure::socket: return {"the route to the server: ip route get ADDRESS", "a firewall on this host"};
    case Failure::bad_answer: return {"is it a STUN/TURN server that listens there, and a current one?"};
    case Failure::refused: break;
  }
  std::vector<std::string> out;
  switch (static_cast<ErrorCode>(outcome.code)) {
    case ErrorCode::unauthenticated: {
      const auto expiry = rest_expiry(s.username);
      if (expiry && *expiry <= s.now) out.push_back(fmt::format("the user name ran out {} s ago: make a new one with `radiotower credentials`", s.now - *expiry));
      if (s.used_secret) out.emplace_back("the secret: its first line here must be one of the server's secrets, to the last byte");
      else if (expiry) out.emplace_back("the password: it belongs to exactly this user name, and to the secret it was made with");
      else out.emplace_back("user name and password; for a server with a shared secret use --secret-file instead of --password");
      out.emplace_back("`radiotower credentials explain`, on the host of a radiotower-relay, says what is wrong with a user name and password");
      if (expiry) out.emplace_back("the clocks of this host and the server: the expiry in the user name is compared with the server's");
      return out;
    }
    case ErrorCode::stale_nonce: return {"the server calls each of its own nonces stale: does a load balancer spread one client over several servers?"};
    case ErrorCode::bad_request: return {"the server's log says what it did not like"};
    case ErrorCode::forbidden:
      if (s.step == "Allocate" || s.step == "Binding") return {"the server refuses this host: its list of denied clients"};
      return {"the server's list of allowed and denied peers; its log names the entry that would allow it"};
    case ErrorCode::allocation_mismatch:
      if (s.step == "Allocate") return {"an older allocation still holds this address and port: wait some minutes, or is an address translator reusing ports?"};
      return {"the server has forgotten the allocation: was it restarted, or is this host's address seen to change (NAT)?"};
    case ErrorCode::allocation_quota_reached:
      return {"this user has as many allocations as it may: those of ended calls go by themselves within ten minutes", "the server's limit on allocations per user"};
    case ErrorCode::insufficient_capacity:
      return {"the server takes no new calls while it drains: `radiotower stats`, on the host of a radiotower-relay, says so",
              "or it has no relay port left, or has reached its limit on allocations: widen its port range",
              "on its host: is another program using the relay ports?"};
    case ErrorCode::address_family_not_supported: return {"the server has no relay address of this family: --relay-family, and on the server its relay addresses"};
    case ErrorCode::peer_address_family_mismatch: return {"the peer's address is of another family than the relayed one: --relay-family"};
    case ErrorCode::wrong_credentials: return {"one allocation belongs to one user name for all its life"};
    case ErrorCode::unsupported_transport_protocol: return {"the server does not relay UDP"};
    case ErrorCode::try_alternate: return {"the server sends its clients to another one: test that one"};
    case ErrorCode::server_error: return {"the server's log"};
    default: return {"the server's log"};
  }
}

}  // namespace radiotower::cli
