#include "nat.h"

#include <fmt/format.h>

#include <algorithm>

namespace radiotower::cli {

using Ask = NatProbes::Ask;
using Answer = NatProbes::Answer;

namespace {

std::string refusal(const Answer& answer, std::string_view what) {
  if (answer.kind == Answer::Kind::error) return fmt::format("the server answered {} to {}", answer.code, what);
  return fmt::format("no answer to {}", what);
}

/// A fresh socket, and where the server sees it: the NAT has now a mapping that only A1:P1 was sent to.
struct Fresh {
  unsigned socket = 0;
  Answer answer;
};
std::optional<Fresh> fresh(NatProbes& probes, const NatServer& server, std::string& why) {
  const auto socket = probes.open();
  if (!socket) {
    why = probes.failure();
    return std::nullopt;
  }
  Ask ask;
  ask.from = *socket;
  ask.to = server.first;
  const Answer answer = probes.ask(ask);
  if (!answer.ok()) {
    why = refusal(answer, "a Binding request that it had answered before");
    return std::nullopt;
  }
  return Fresh{*socket, answer};
}

}  // namespace

std::string_view name(Dependence dependence) {
  switch (dependence) {
    case Dependence::endpoint_independent: return "endpoint-independent";
    case Dependence::address_dependent: return "address-dependent";
    case Dependence::address_and_port_dependent: return "address and port-dependent";
  }
  return "";
}

Finding<NatServer> find_server(NatProbes& probes, const net::TransportAddress& first) {
  NatServer server;
  server.first = first;
  const auto socket = probes.open();
  if (!socket) return {std::nullopt, probes.failure()};
  Ask ask;
  ask.from = *socket;
  ask.to = first;
  const Answer answer = probes.ask(ask);
  if (!answer.ok()) return {std::nullopt, refusal(answer, "a Binding request")};
  server.mapped = answer.mapped;
  const net::TransportAddress local = probes.local(*socket);
  server.translated = answer.mapped.ip != local.ip || answer.mapped.port != local.port;
  server.rewritten = answer.plain_mapped && (answer.plain_mapped->ip != answer.mapped.ip || answer.plain_mapped->port != answer.mapped.port);
  if (!answer.other) return {std::nullopt, "the server does not offer NAT behaviour discovery: its answer holds no OTHER-ADDRESS (RFC 5780, 7.4)"};
  server.other = *answer.other;
  if (server.other.ip == first.ip || server.other.port == first.port || server.other.port == 0 || server.other.ip.family() != first.ip.family())
    return {std::nullopt, fmt::format("the server's other address {} is not another address and another port than {}", server.other.text(), first.text())};
  return {server, {}};
}

Finding<Mapping> find_mapping(NatProbes& probes, const NatServer& server) {
  std::string why;
  const auto one = fresh(probes, server, why);  // test I
  if (!one) return {std::nullopt, why};
  Mapping mapping;
  mapping.keeps_port = one->answer.mapped.port == probes.local(one->socket).port;
  Ask ask;
  ask.from = one->socket;
  ask.to = {server.other.ip, server.first.port, server.first.scope};
  const Answer two = probes.ask(ask);  // test II
  if (!two.ok()) return {std::nullopt, refusal(two, fmt::format("a request to the server's other address, {}", ask.to.text()))};
  if (two.mapped == one->answer.mapped) return {mapping, {}};
  ask.to = server.other;
  const Answer three = probes.ask(ask);  // test III
  if (!three.ok()) return {std::nullopt, refusal(three, fmt::format("a request to the server's other address, {}", ask.to.text()))};
  mapping.dependence = three.mapped == two.mapped ? Dependence::address_dependent : Dependence::address_and_port_dependent;
  return {mapping, {}};
}

Finding<Dependence> find_filtering(NatProbes& probes, const NatServer& server) {
  std::string why;
  const auto one = fresh(probes, server, why);  // test I; a socket of its own, which has sent nothing to the other address
  if (!one) return {std::nullopt, why};
  Ask ask;
  ask.from = one->socket;
  ask.to = server.first;
  ask.change_ip = ask.change_port = true;
  const Answer two = probes.ask(ask);  // test II
  if (two.kind == Answer::Kind::error) return {std::nullopt, refusal(two, "CHANGE-REQUEST")};
  if (two.ok()) {
    if (two.source.ip == server.first.ip)
      return {std::nullopt, fmt::format("the server answered from {}, though asked to answer from its other address", two.source.text())};
    return {Dependence::endpoint_independent, {}};
  }
  ask.change_ip = false;
  const Answer three = probes.ask(ask);  // test III
  if (three.kind == Answer::Kind::error) return {std::nullopt, refusal(three, "CHANGE-REQUEST")};
  // Silence speaks of the NAT only if the server can be heard from there at all.
  const auto other = probes.open();
  if (!other) return {std::nullopt, probes.failure()};
  Ask direct;
  direct.from = *other;
  direct.to = server.other;
  const Answer heard = probes.ask(direct);
  if (!heard.ok()) return {std::nullopt, refusal(heard, fmt::format("a request to the server's other address, {}", server.other.text()))};
  return {three.ok() ? Dependence::address_dependent : Dependence::address_and_port_dependent, {}};
}

Finding<bool> find_hairpinning(NatProbes& probes, const NatServer& server) {
  std::string why;
  const auto one = fresh(probes, server, why);
  const auto two = one ? fresh(probes, server, why) : std::nullopt;
  if (!two) return {std::nullopt, why};
  return {probes.meet(one->socket, one->answer.mapped, two->socket, two->answer.mapped), {}};
}

Finding<bool> find_fragments(NatProbes& probes, const NatServer& server) {
  std::string why;
  const auto one = fresh(probes, server, why);
  if (!one) return {std::nullopt, why};
  Ask ask;
  ask.from = one->socket;
  ask.to = server.first;
  ask.padding = fragment_padding;
  const Answer answer = probes.ask(ask);
  if (answer.kind == Answer::Kind::error) return {std::nullopt, refusal(answer, "PADDING")};
  if (answer.ok() && !answer.padded) return {std::nullopt, "the server answered PADDING without PADDING"};
  return {answer.ok(), {}};
}

std::optional<std::chrono::seconds> LifetimeSearch::next() const {
  if (!asked_longest_) return longest_;
  if (outlives()) return std::nullopt;
  const auto gap = high_ - low_;
  if (gap <= std::max(std::chrono::seconds(1), (longest_ + std::chrono::seconds(15)) / 16)) return std::nullopt;
  return low_ + gap / 2;
}

void LifetimeSearch::heard(std::chrono::seconds after, bool alive) {
  asked_longest_ = true;
  if (alive) low_ = std::max(low_, after);
  else high_ = std::min(high_, after);
}

Finding<LifetimeSearch> find_lifetime(NatProbes& probes, const NatServer& server, std::chrono::seconds longest) {
  LifetimeSearch search(longest);
  std::string why;
  while (const auto time = search.next()) {
    const auto left_alone = fresh(probes, server, why);  // port X
    if (!left_alone) return {std::nullopt, why};
    probes.wait(*time);
    const auto other = probes.open();  // port Y
    if (!other) return {std::nullopt, probes.failure()};
    Ask ask;
    ask.from = *other;
    ask.to = server.first;
    ask.response_port = left_alone->answer.mapped.port;
    ask.answer_at = left_alone->socket;
    const Answer answer = probes.ask(ask);
    if (answer.kind == Answer::Kind::error) return {std::nullopt, refusal(answer, "RESPONSE-PORT")};
    // At Y: the old mapping is gone and the NAT has given its port to the new one.
    search.heard(*time, answer.ok() && answer.arrived_at == left_alone->socket);
  }
  return {search, {}};
}

std::string_view meaning_of_mapping(Dependence dependence) {
  switch (dependence) {
    case Dependence::endpoint_independent: return "good: one reflexive candidate works for all peers";
    case Dependence::address_dependent: return "bad: a reflexive candidate works for peers on the server's address alone, others see another port";
    case Dependence::address_and_port_dependent:
      return "bad: every peer sees another port, so that a reflexive candidate works for none; also called symmetric";
  }
  return "";
}

std::string_view meaning_of_filtering(Dependence dependence) {
  switch (dependence) {
    case Dependence::endpoint_independent: return "good for calls: peers get through without having been sent to; anybody else does too";
    case Dependence::address_dependent: return "usual: a peer's address gets through once it has been sent to, which ICE does";
    case Dependence::address_and_port_dependent: return "usual: a peer's address and port get through once they have been sent to, which ICE does";
  }
  return "";
}

std::string verdict(bool translated, const Finding<Mapping>& mapping, const Finding<Dependence>& filtering) {
  const bool open = filtering.value == Dependence::endpoint_independent;
  if (!translated) {
    if (!filtering.value) return "no address translation on the way";
    return open ? "no address translation and no filter on the way: calls work directly"
                : fmt::format("no address translation, but a firewall with {} filtering: calls work directly with ICE", name(*filtering.value));
  }
  if (!mapping.value) return "behind a NAT whose mapping could not be told";
  std::string nat = fmt::format("behind a NAT with {} mapping", name(mapping.value->dependence));
  if (filtering.value) nat += fmt::format(" and {} filtering", name(*filtering.value));
  if (mapping.value->dependence == Dependence::endpoint_independent)
    return nat + ": calls work directly with most peers, and through a relay with those behind symmetric NATs";
  return nat + ": calls work directly only with peers that let everybody in; with all others they need a relay (TURN)";
}

}  // namespace radiotower::cli
