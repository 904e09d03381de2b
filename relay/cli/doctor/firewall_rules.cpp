#include "firewall_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

namespace radiotower::cli {

namespace {

using Json = nlohmann::json;
enum class Match : std::uint8_t { no, perhaps, yes };

constexpr int deepest_jump = 16;  // the kernel's own limit

Match both(Match a, Match b) { return std::min(a, b); }
Match opposite(Match m) { return m == Match::perhaps ? m : m == Match::yes ? Match::no : Match::yes; }

/// What a packet says for `left` of a match: one text, or that it says nothing (another protocol), or that it is not known here.
struct Value {
  enum class Kind : std::uint8_t { known, absent, unknown } kind = Kind::unknown;
  std::string text;
  std::optional<net::IpAddress> ip;
};
Value known(std::string text) { return {Value::Kind::known, std::move(text), std::nullopt}; }

std::optional<long> number_of(const std::string& text) {
  long value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return !text.empty() && error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

std::string text_of(const Json& json) {
  return json.is_string() ? json.get<std::string>() : json.is_number_integer() ? std::to_string(json.get<long>()) : json.is_boolean()
      ? (json.get<bool>() ? "1" : "0") : std::string();
}

/// nft names some ports, protocols and families.
bool same(const std::string& a, const std::string& b) {
  constexpr std::pair<std::string_view, std::string_view> names[] = {{"udp", "17"}, {"tcp", "6"}, {"ip", "ipv4"}, {"ip6", "ipv6"}};
  if (a == b) return true;
  for (const auto& [one, other] : names)
    if ((a == one && b == other) || (a == other && b == one)) return true;
  return b.ends_with('*') && a.starts_with(b.substr(0, b.size() - 1));  // "eth*"
}

class Rules final : public FirewallRules {
 public:
  struct Chain {
    std::string family, table, name, hook, policy, type, device;
    long priority = 0;
    std::vector<const Json*> rules;
  };

  bool read_all(std::string_view text, std::string& why) {
    whole_ = Json::parse(text, nullptr, false);
    if (whole_.is_discarded() || !whole_.is_object() || !whole_.contains("nftables") || !whole_["nftables"].is_array()) {
      why = "what nft prints cannot be read";
      return false;
    }
    const auto field = [](const Json& from, const char* key) { return from.is_object() && from.contains(key) ? text_of(from[key]) : std::string(); };
    for (const Json& entry : whole_["nftables"]) {
      if (!entry.is_object()) continue;
      if (entry.contains("chain")) {
        const Json& c = entry["chain"];
        Chain chain{field(c, "family"), field(c, "table"), field(c, "name"), field(c, "hook"), field(c, "policy"), field(c, "type"), field(c, "dev"),
                    0, {}};
        chain.priority = number_of(field(c, "prio")).value_or(0);
        chains_.emplace(key(chain.family, chain.table, chain.name), chain);
      } else if (entry.contains("rule")) {
        const Json& r = entry["rule"];
        const auto chain = chains_.find(key(field(r, "family"), field(r, "table"), field(r, "chain")));
        if (chain != chains_.end() && r.contains("expr") && r["expr"].is_array()) chain->second.rules.push_back(&r);
      } else {
        for (const char* kind : {"set", "map"})
          if (entry.contains(kind)) sets_[key(field(entry[kind], "family"), field(entry[kind], "table"), field(entry[kind], "name"))] = &entry[kind];
      }
    }
    return true;
  }

  bool empty() const override {
    return std::none_of(chains_.begin(), chains_.end(),
                        [](const auto& c) { return c.second.hook == "input" || c.second.hook == "output" || c.second.hook == "prerouting"
                                           || c.second.hook == "ingress"; });
  }

  Passage in(const Packet& packet) const override { return through(packet, {"ingress", "prerouting", "input"}); }
  Passage out(const Packet& packet) const override { return through(packet, {"output", "postrouting", "egress"}); }

  std::set<std::uint16_t> ports() const override {
    std::set<std::uint16_t> found;
    for (const auto& [name, chain] : chains_)
      for (const Json* rule : chain.rules) numbers((*rule)["expr"], found);
    for (const auto& [name, set] : sets_) numbers(*set, found);
    return found;
  }

 private:
  enum class Verdict : std::uint8_t { none, accept, drop };
  struct Walk {
    const Packet& packet;
    std::string_view hook;
    std::string uncertain;  // the first rule that may have accepted
    std::string dropped_by, dropped_in;
  };

  bool has_ufw() const {
    return std::any_of(chains_.begin(), chains_.end(), [](const auto& c) { return c.second.name.starts_with("ufw-"); });
  }

  static std::string key(const std::string& family, const std::string& table, const std::string& name) { return family + ' ' + table + ' ' + name; }

  static void numbers(const Json& json, std::set<std::uint16_t>& found) {
    if (json.is_number_integer() && json.get<long>() > 0 && json.get<long>() < 65536) found.insert(static_cast<std::uint16_t>(json.get<long>()));
    else if (json.is_structured())
      for (const auto& part : json) numbers(part, found);
  }

  bool concerns(const Chain& chain, const Packet& packet) const {
    if (chain.type == "nat" || chain.type == "route") return false;
    if (chain.family == "netdev") return chain.device.empty() || chain.device == packet.interface;
    return chain.family == "inet" || chain.family == (packet.to.ip.is_v4() ? "ip" : "ip6");
  }

  Passage through(const Packet& packet, std::initializer_list<std::string_view> hooks) const {
    Passage passage;
    for (const std::string_view hook : hooks) {
      std::vector<const Chain*> order;
      for (const auto& [name, chain] : chains_)
        if (chain.hook == hook && concerns(chain, packet)) order.push_back(&chain);
      std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->priority < b->priority; });
      for (const Chain* chain : order) {
        Walk walk{packet, hook, {}, {}, {}};
        Verdict verdict = walk_chain(*chain, walk, 0);
        if (verdict == Verdict::none && chain->policy == "drop") {
          verdict = Verdict::drop;
          walk.dropped_by = fmt::format("no rule of chain {} in table {} {} accepts it, and its policy is drop", chain->name, chain->family,
                                        chain->table);
          walk.dropped_in = fmt::format("{} {} {}", chain->family, chain->table, chain->name);
        }
        if (verdict != Verdict::drop) continue;
        if (walk.uncertain.empty()) return {Passage::Verdict::dropped, walk.dropped_by, walk.dropped_in, has_ufw()};
        if (passage.verdict == Passage::Verdict::passes) passage = {Passage::Verdict::perhaps, walk.uncertain, {}, has_ufw()};
      }
    }
    return passage;
  }

  Verdict walk_chain(const Chain& chain, Walk& walk, int depth) const {
    if (depth > deepest_jump) return Verdict::none;
    for (const Json* rule : chain.rules) {
      Match match = Match::yes;
      for (const Json& expression : (*rule)["expr"]) {
        if (!expression.is_object() || expression.empty() || match == Match::no) continue;
        const std::string& kind = expression.begin().key();
        const Json& body = expression.begin().value();
        const auto here = [&] { return fmt::format("{} of the rule with handle {} in `nft -a list chain {} {} {}`", kind, text_of((*rule)["handle"]),
                                                   chain.family, chain.table, chain.name); };
        if (kind == "match") {
          match = both(match, matches(chain, body, walk));
        } else if (kind == "xt") {
          match = both(match, of_iptables(body));
        } else if (kind == "limit") {
          match = both(match, Match::perhaps);
        } else if (kind == "vmap") {
          for (const auto& [found, verdict] : entries(chain, body, walk)) {
            if (found == Match::no) continue;
            const Verdict reached = decide(chain, verdict, both(match, found), walk, depth, here());
            if (reached != Verdict::none) return reached;
            if (found == Match::yes) break;
          }
        } else if (kind == "return" && match == Match::yes) {
          return Verdict::none;
        } else {
          const Verdict reached = decide(chain, expression, match, walk, depth, here());
          if (reached != Verdict::none) return reached;
          if (kind == "goto" && match == Match::yes) return Verdict::none;
        }
      }
    }
    return Verdict::none;
  }

  Verdict decide(const Chain& chain, const Json& verdict, Match match, Walk& walk, int depth, const std::string& here) const {
    if (!verdict.is_object() || verdict.empty() || match == Match::no) return Verdict::none;
    const std::string& kind = verdict.begin().key();
    const Json& body = verdict.begin().value();
    if (kind == "accept" || kind == "queue") {
      if (match == Match::yes && kind == "accept") return Verdict::accept;
      if (walk.uncertain.empty()) walk.uncertain = here;
    } else if (kind == "drop" || kind == "reject") {
      if (match != Match::yes) return Verdict::none;
      walk.dropped_by = here;
      walk.dropped_in = fmt::format("{} {} {}", chain.family, chain.table, chain.name);
      return Verdict::drop;
    } else if (kind == "jump" || kind == "goto") {
      const std::string target = body.is_object() && body.contains("target") ? text_of(body["target"]) : std::string();
      const auto found = chains_.find(key(chain.family, chain.table, target));
      if (found == chains_.end()) return Verdict::none;
      if (match == Match::yes) return walk_chain(found->second, walk, depth + 1);
      Walk inside{walk.packet, walk.hook, {}, {}, {}};
      const Verdict reached = walk_chain(found->second, inside, depth + 1);
      if ((reached == Verdict::accept || !inside.uncertain.empty()) && walk.uncertain.empty()) walk.uncertain = here;
    }
    return Verdict::none;
  }

  /// Matches of iptables that nft only knows by name. One of connections is about those that are there already, nearly always.
  static Match of_iptables(const Json& body) {
    const std::string name = body.is_object() && body.contains("name") ? text_of(body["name"]) : std::string();
    if (name == "conntrack" || name == "state") return Match::no;
    if (name == "comment" || name == "LOG" || name == "NFLOG") return Match::yes;
    return Match::perhaps;
  }

  Value value_of(const Json& left, const Walk& walk) const {
    const Packet& p = walk.packet;
    const bool udp = p.transport == net::Transport::udp, v4 = p.to.ip.is_v4();
    const bool inwards = walk.hook == "ingress" || walk.hook == "prerouting" || walk.hook == "input";
    const auto field = [](const Json& from, const char* key) { return from.is_object() && from.contains(key) ? text_of(from[key]) : std::string(); };
    if (left.contains("payload")) {
      const std::string protocol = field(left["payload"], "protocol"), name = field(left["payload"], "field");
      if (protocol == "udp" || protocol == "tcp" || protocol == "th") {
        if (protocol != "th" && protocol != (udp ? "udp" : "tcp")) return {Value::Kind::absent, {}, {}};
        if (name == "dport") return known(std::to_string(p.to.port));
        if (name == "sport") return known(std::to_string(p.from.port));
      } else if (protocol == "ip" || protocol == "ip6") {
        if ((protocol == "ip") != v4) return {Value::Kind::absent, {}, {}};
        if (name == "protocol" || name == "nexthdr") return known(udp ? "udp" : "tcp");
        if (name == "saddr") return {Value::Kind::known, p.from.ip.text(), p.from.ip};
        if (name == "daddr") return {Value::Kind::known, p.to.ip.text(), p.to.ip};
      } else if (protocol == "sctp" || protocol == "icmp" || protocol == "icmpv6" || protocol == "dccp" || protocol == "udplite" || protocol == "esp"
                 || protocol == "ah") {
        return {Value::Kind::absent, {}, {}};
      }
    } else if (left.contains("meta")) {
      const std::string name = field(left["meta"], "key");
      if (name == "l4proto") return known(udp ? "udp" : "tcp");
      if (name == "nfproto" || name == "protocol") return known(v4 ? "ipv4" : "ipv6");
      if (name == "iifname" || name == "iif") return inwards ? known(p.interface) : Value{Value::Kind::absent, {}, {}};
      if (name == "oifname" || name == "oif") return inwards ? Value{Value::Kind::absent, {}, {}} : known(p.interface);
      if (name == "pkttype") return known("host");
    } else if (left.contains("ct")) {
      const std::string name = field(left["ct"], "key");
      if (name == "state") return known("new");
      if (name == "status") return known("");
      if (name == "mark") return known("0");
      if (name == "direction") return known("original");
    } else if (left.contains("fib")) {
      if (left["fib"].is_object() && field(left["fib"], "result") == "type") return known("local");
    }
    return {};
  }

  static Match one(const Value& value, const Json& right) {
    if (right.is_object() && right.contains("prefix") && right["prefix"].is_object()) {
      if (!value.ip) return Match::perhaps;
      std::string why;
      const Json& prefix = right["prefix"];
      const auto range = net::AddressRange::parse(fmt::format("{}/{}", text_of(prefix.value("addr", Json(""))),
                                                              text_of(prefix.value("len", Json(0)))), why);
      return !range ? Match::perhaps : range->contains(*value.ip) ? Match::yes : Match::no;
    }
    if (right.is_object() && right.contains("range") && right["range"].is_array() && right["range"].size() == 2) {
      const std::string low = text_of(right["range"][0]), high = text_of(right["range"][1]);
      if (value.ip) {
        const auto first = net::IpAddress::parse(low), last = net::IpAddress::parse(high);
        return !first || !last ? Match::perhaps : net::AddressRange{*first, *last}.contains(*value.ip) ? Match::yes : Match::no;
      }
      const auto n = number_of(value.text), first = number_of(low), last = number_of(high);
      return !n || !first || !last ? Match::perhaps : *first <= *n && *n <= *last ? Match::yes : Match::no;
    }
    if (right.is_object() && right.contains("elem") && right["elem"].is_object())
      return one(value, right["elem"].value("val", Json()));  // with a time or a comment
    const std::string text = text_of(right);
    if (text.empty()) return Match::perhaps;
    if (value.ip) {
      const auto ip = net::IpAddress::parse(text);
      return ip ? (*ip == *value.ip ? Match::yes : Match::no) : Match::perhaps;
    }
    return same(value.text, text) ? Match::yes : Match::no;
  }

  const Json* elements(const Chain& chain, const Json& right) const {
    if (right.is_object() && right.contains("set")) return &right["set"];
    if (right.is_array()) return &right;
    const std::string name = text_of(right);
    if (!name.starts_with('@')) return nullptr;
    static const Json nothing = Json::array();
    const auto found = sets_.find(key(chain.family, chain.table, name.substr(1)));
    if (found == sets_.end()) return nullptr;
    return found->second->contains("elem") ? &(*found->second)["elem"] : &nothing;
  }

  Match any(const Chain& chain, const Value& value, const Json& right) const {
    const Json* list = elements(chain, right);
    if (!list || !list->is_array()) return list ? one(value, *list) : text_of(right).starts_with('@') ? Match::perhaps : one(value, right);
    Match best = Match::no;
    for (const Json& element : *list) best = std::max(best, one(value, element));
    return best;
  }

  Match matches(const Chain& chain, const Json& body, const Walk& walk) const {
    if (!body.is_object() || !body.contains("left") || !body.contains("right") || !body["left"].is_object()) return Match::perhaps;
    const std::string op = body.value("op", Json("==")).is_string() ? text_of(body.value("op", Json("=="))) : "==";
    const Value value = value_of(body["left"], walk);
    if (value.kind == Value::Kind::absent) return Match::no;  // nft asks for the protocol first, for != too
    if (value.kind == Value::Kind::unknown) return Match::perhaps;
    if (op == "==" || op == "in") return any(chain, value, body["right"]);
    if (op == "!=") return opposite(any(chain, value, body["right"]));
    const auto a = number_of(value.text), b = number_of(text_of(body["right"]));
    if (!a || !b) return Match::perhaps;
    const bool holds = op == "<" ? *a < *b : op == "<=" ? *a <= *b : op == ">" ? *a > *b : *a >= *b;
    return holds ? Match::yes : Match::no;
  }

  /// Of a verdict map: each entry with how it matches.
  std::vector<std::pair<Match, Json>> entries(const Chain& chain, const Json& body, const Walk& walk) const {
    std::vector<std::pair<Match, Json>> found;
    if (!body.is_object() || !body.contains("key") || !body.contains("data") || !body["key"].is_object()) return found;
    const Value value = value_of(body["key"], walk);
    const Json* list = elements(chain, body["data"]);
    if (!list || !list->is_array() || value.kind == Value::Kind::absent) return found;
    for (const Json& pair : *list)
      if (pair.is_array() && pair.size() == 2) found.emplace_back(value.kind == Value::Kind::unknown ? Match::perhaps : one(value, pair[0]), pair[1]);
    return found;
  }

  Json whole_;
  std::map<std::string, Chain> chains_;
  std::map<std::string, const Json*> sets_;
};

}  // namespace

std::unique_ptr<FirewallRules> FirewallRules::read(std::string_view json, std::string& why) {
  auto rules = std::make_unique<Rules>();
  if (!rules->read_all(json, why)) return nullptr;
  return rules;
}

}  // namespace radiotower::cli
