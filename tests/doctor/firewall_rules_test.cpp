// Rules that no namespace of a test makes: those of iptables, rate limits, loops, and text that is none of nft's.
#include "firewall_rules.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace radiotower;
using namespace radiotower::cli;

namespace {

using Verdict = Passage::Verdict;

std::unique_ptr<FirewallRules> rules(const std::string& entries) {
  std::string why;
  auto read = FirewallRules::read("{\"nftables\": [" + entries + "]}", why);
  CHECK_MESSAGE(read, why);
  return read;
}

std::string chain(const char* name, const char* rest = R"(, "type": "filter", "hook": "input", "prio": 0, "policy": "drop")",
                  const char* family = "inet") {
  return fmt::format(R"({{"chain": {{"family": "{}", "table": "filter", "name": "{}"{}}}}})", family, name, rest);
}
std::string rule(const char* in, const std::string& expression, const char* family = "inet") {
  return fmt::format(R"(, {{"rule": {{"family": "{}", "table": "filter", "chain": "{}", "handle": 7, "expr": [{}]}}}})", family, in, expression);
}
std::string match(const char* protocol, const char* field, const std::string& right, const char* op = "==") {
  return fmt::format(R"({{"match": {{"op": "{}", "left": {{"payload": {{"protocol": "{}", "field": "{}"}}}}, "right": {}}}}})", op, protocol, field,
                     right);
}
const std::string accept = R"({"accept": null})", drop = R"({"drop": null})", to_3478 = match("udp", "dport", "3478");

Packet packet(std::uint16_t port = 3478, net::Transport transport = net::Transport::udp) {
  return {transport, *net::TransportAddress::parse("192.168.0.7:40000"), {*net::IpAddress::parse("192.168.0.105"), port, 0}, "eth0"};
}
Verdict in(const std::string& entries, const Packet& p = packet()) { return rules(entries)->in(p).verdict; }

}  // namespace

TEST_CASE("what is not understood neither drops nor lets through for certain") {
  const std::string unknown = R"({"xt": {"type": "match", "name": "geoip"}}, )", limit = R"({"limit": {"rate": 10, "per": "second"}}, )";
  CHECK(in(chain("input") + rule("input", unknown + accept)) == Verdict::perhaps);
  CHECK(in(chain("input") + rule("input", limit + to_3478 + ", " + accept)) == Verdict::perhaps);
  CHECK(in(chain("input") + rule("input", unknown + drop) + rule("input", accept)) == Verdict::passes);
  CHECK(in(chain("input") + rule("input", unknown + match("udp", "dport", "53") + ", " + accept)) == Verdict::dropped);
  CHECK(in(chain("input") + rule("input", R"({"match": {"op": "==", "left": {"meta": {"key": "cgroup"}}, "right": 5}}, )" + accept)) == Verdict::perhaps);
  CHECK(in(chain("input") + rule("input", match("udp", "dport", "\"@gone\"") + ", " + accept)) == Verdict::perhaps);
}

TEST_CASE("a rule of iptables about connections is about those that are there already") {
  const std::string established = R"({"xt": {"type": "match", "name": "conntrack"}}, )";
  CHECK(in(chain("input") + rule("input", established + accept)) == Verdict::dropped);
  CHECK(in(chain("input") + rule("input", established + drop) + rule("input", to_3478 + ", " + accept)) == Verdict::passes);
}

TEST_CASE("chains: jump, goto, return, and one that calls itself") {
  const std::string both = chain("input") + ", " + chain("ours", "");
  const auto to = [](const char* verb, const char* target) { return fmt::format(R"({{"{}": {{"target": "{}"}}}})", verb, target); };
  CHECK(in(both + rule("input", to("jump", "ours")) + rule("ours", to_3478 + ", " + accept)) == Verdict::passes);
  CHECK(in(both + rule("input", to("jump", "ours")) + rule("input", accept) + rule("ours", R"({"return": null})") + rule("ours", drop)) == Verdict::passes);
  CHECK(in(both + rule("input", to("goto", "ours")) + rule("input", accept) + rule("ours", match("udp", "dport", "53") + ", " + accept)) == Verdict::dropped);
  CHECK(in(both + rule("input", to("jump", "ours")) + rule("ours", to("jump", "ours"))) == Verdict::dropped);
  CHECK(in(both + rule("input", to("jump", "nowhere")) + rule("input", accept)) == Verdict::passes);
}

TEST_CASE("every chain of a hook has a say, in the families of the packet alone") {
  const std::string open = chain("input", R"(, "type": "filter", "hook": "input", "prio": 0, "policy": "accept")");
  const std::string raw = ", " + chain("early", R"(, "type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept")", "ip");
  CHECK(in(open + raw + rule("early", to_3478 + ", " + drop, "ip")) == Verdict::dropped);
  CHECK(in(open + ", " + chain("input", R"(, "type": "filter", "hook": "input", "prio": 0, "policy": "drop")", "ip6")) == Verdict::passes);
  CHECK(in(open + ", " + chain("nat", R"(, "type": "nat", "hook": "prerouting", "prio": -100, "policy": "drop")", "ip")) == Verdict::passes);
  CHECK(in(open + ", " + chain("other", R"(, "type": "filter", "hook": "ingress", "dev": "eth1", "prio": 0, "policy": "drop")",
                               "netdev")) == Verdict::passes);
  CHECK(in(open + ", " + chain("this", R"(, "type": "filter", "hook": "ingress", "dev": "eth0", "prio": 0, "policy": "drop")",
                               "netdev")) == Verdict::dropped);
}

TEST_CASE("sets: single values, ranges, prefixes, elements with a comment, named ones, negated ones") {
  const auto one = [](const std::string& right, const char* protocol, const char* field, const char* op = "==") {
    return in(chain("input") + rule("input", match(protocol, field, right, op) + ", " + accept));
  };
  CHECK(one(R"({"set": [53, {"range": [3000, 4000]}]})", "udp", "dport") == Verdict::passes);
  CHECK(one(R"({"set": [53, {"range": [3000, 3477]}]})", "th", "dport") == Verdict::dropped);
  CHECK(one(R"({"set": [{"elem": {"val": 3478, "comment": "TURN"}}]})", "th", "dport") == Verdict::passes);
  CHECK(one(R"({"prefix": {"addr": "192.168.0.0", "len": 24}})", "ip", "saddr") == Verdict::passes);
  CHECK(one(R"({"range": ["192.168.0.100", "192.168.0.110"]})", "ip", "daddr") == Verdict::passes);
  CHECK(one(R"({"prefix": {"addr": "10.0.0.0", "len": 8}})", "ip", "saddr", "!=") == Verdict::passes);
  CHECK(one(R"("2001:db8::7")", "ip6", "saddr", "!=") == Verdict::dropped);  // not an IPv6 packet at all
  CHECK(one("3478", "tcp", "dport") == Verdict::dropped);
  CHECK(one("1024", "udp", "sport", ">") == Verdict::passes);
  const std::string named = R"(, {"set": {"family": "inet", "name": "ports", "table": "filter", "elem": [3478]}})";
  CHECK(in(chain("input") + named + rule("input", match("udp", "dport", "\"@ports\"") + ", " + accept)) == Verdict::passes);
  CHECK(in(chain("input") + named + rule("input", match("udp", "dport", "\"@ports\"") + ", " + accept), packet(3479)) == Verdict::dropped);
}

TEST_CASE("who drops it is said") {
  const auto passage = rules(chain("input") + rule("input", to_3478 + ", " + drop))->in(packet());
  CHECK(passage.by == "drop of the rule with handle 7 in `nft -a list chain inet filter input`");
  CHECK(passage.chain == "inet filter input");
  CHECK_FALSE(passage.has_ufw);
  CHECK(rules(chain("input") + ", " + chain("ufw-user-input", ""))->in(packet()).has_ufw);
}

TEST_CASE("text that is none of nft's") {
  std::string why;
  for (const char* text : {"", "nothing", "[]", "{}", R"({"nftables": 1})", R"({"nftables": [)"}) CHECK_FALSE(FirewallRules::read(text, why));
  for (const char* odd : {"1", "{}", "null", R"({"chain": 1})", R"({"rule": {"expr": 1}})", R"({"set": []})"}) CHECK(rules(odd)->empty());
  for (const char* odd : {"1", "{}", "null", R"({"match": 1})", R"({"match": {"left": 1, "right": 1}})",
                          R"({"match": {"left": {"payload": 7}, "right": []}})", R"({"vmap": 5})", R"({"jump": null})", R"({"vmap": {"key": {}, "data": {"set": [1, [2]]}}})"})
    CHECK(in(chain("input") + rule("input", odd)) == Verdict::dropped);
}
