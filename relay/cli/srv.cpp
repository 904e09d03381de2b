#include "srv.h"

#include <arpa/nameser.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

namespace radiotower::cli {

namespace {

constexpr std::size_t most_records = 64;

struct Resolver {
  struct __res_state state {};
  bool open = res_ninit(&state) == 0;
  ~Resolver() {
    if (open) res_nclose(&state);
  }
};

/// The records of a name; none when it has none, or nobody answers.
std::vector<SrvRecord> ask(const std::string& name, const std::optional<net::TransportAddress>& dns, bool& answered) {
  Resolver resolver;
  if (!resolver.open) return {};
  resolver.state.retrans = 2;
  resolver.state.retry = 2;
  if (dns && dns->family() == net::Family::ipv4) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(dns->port);
    address.sin_addr.s_addr = htonl(dns->ip.v4_host_order());
    resolver.state.nscount = 1;
    resolver.state.nsaddr_list[0] = address;
  }
  std::vector<std::uint8_t> answer(65'536);
  const int size = res_nquery(&resolver.state, name.c_str(), ns_c_in, ns_t_srv, answer.data(), static_cast<int>(answer.size()));
  answered = size > 0 || resolver.state.res_h_errno != TRY_AGAIN;
  if (size <= 0) return {};
  return read_srv(Bytes(answer).first(std::min(answer.size(), static_cast<std::size_t>(size)))).value_or(std::vector<SrvRecord>{});
}

}  // namespace

std::optional<std::vector<SrvRecord>> read_srv(Bytes answer) {
  ns_msg message{};
  if (answer.size() > 65'535 || ns_initparse(answer.data(), static_cast<int>(answer.size()), &message) != 0) return std::nullopt;
  std::vector<SrvRecord> out;
  for (int i = 0; i < ns_msg_count(message, ns_s_an) && out.size() < most_records; ++i) {
    ns_rr record{};
    if (ns_parserr(&message, ns_s_an, i, &record) != 0) return std::nullopt;
    if (ns_rr_type(record) != ns_t_srv || ns_rr_rdlen(record) < 7) continue;
    const std::uint8_t* data = ns_rr_rdata(record);
    std::array<char, NS_MAXDNAME> target{};
    if (dn_expand(answer.data(), answer.data() + answer.size(), data + 6, target.data(), static_cast<int>(target.size())) < 0) continue;
    out.push_back({load_be16(data), load_be16(data + 2), load_be16(data + 4), target.data()});
  }
  return out;
}

std::vector<SrvRecord> in_order(std::vector<SrvRecord> records, const RandomSource& random) {
  // RFC 2782: those of weight 0 stand first among their priority, so that they have a small chance.
  std::stable_sort(records.begin(), records.end(), [](const SrvRecord& a, const SrvRecord& b) {
    return a.priority != b.priority ? a.priority < b.priority : (a.weight == 0) > (b.weight == 0);
  });
  std::vector<SrvRecord> out;
  while (!records.empty()) {
    const std::uint16_t priority = records.front().priority;
    const auto end = std::find_if(records.begin(), records.end(), [&](const SrvRecord& r) { return r.priority != priority; });
    std::uint64_t sum = 0;
    std::for_each(records.begin(), end, [&](const SrvRecord& r) { sum += r.weight; });
    std::array<std::uint8_t, 4> dice{};
    random(dice);
    const std::uint64_t drawn = load_be32(dice.data()) % (sum + 1);
    std::uint64_t running = 0;
    auto chosen = records.begin();
    for (auto r = records.begin(); r != end; ++r) {
      running += r->weight;
      chosen = r;
      if (running >= drawn) break;
    }
    out.push_back(std::move(*chosen));
    records.erase(chosen);
  }
  return out;
}

std::string service_of(Scheme scheme, net::Transport transport) {
  const bool secure = transport == net::Transport::tls || transport == net::Transport::dtls;
  const bool stun = scheme == Scheme::stun || scheme == Scheme::stuns;
  const bool udp = transport == net::Transport::udp || transport == net::Transport::dtls;
  return fmt::format("_{}{}._{}", stun ? "stun" : "turn", secure ? "s" : "", udp ? "udp" : "tcp");
}

Lookup find_servers(const Url& url, const std::optional<net::TransportAddress>& dns, const RandomSource& random) {
  Lookup out;
  const bool is_address = url.server.ipv6_literal || net::IpAddress::parse(url.server.host).has_value();
  if (is_address || url.port_given) {
    out.candidates.push_back({url.server, url.transport(), ""});
    return out;
  }
  // RFC 5928, 3 (4) and (5): the transports of the scheme, or the one that the URL names.
  std::vector<net::Transport> transports{url.transport()};
  if (!url.asked && url.scheme == Scheme::turn) transports.push_back(net::Transport::tcp);
  bool answered = true;
  std::string names;
  for (const net::Transport transport : transports) {
    const std::string name = service_of(url.scheme, transport) + "." + url.server.host;
    names += (names.empty() ? "" : ", ") + name;
    for (const SrvRecord& record : in_order(ask(name, dns, answered), random)) {
      if (record.target.empty() || record.target == ".") {
        out.note = fmt::format("SRV {} says that there is no such service", name);
        continue;
      }
      HostPort server;
      server.host = record.target;
      server.port = record.port;
      out.candidates.push_back({server, transport, "SRV " + name});
    }
  }
  if (!out.candidates.empty()) {
    out.note = fmt::format("browsers do not look at SRV records: they will try {}", url.server.text());
    return out;
  }
  if (!out.note.empty()) {
    out.why = out.note;
    return out;
  }
  // Most hosts have no such records; but who names a server to ask wants to know.
  if (dns && !answered) out.note = fmt::format("{} gave no answer when it was asked for SRV {}", dns->text(), names);
  out.candidates.push_back({url.server, url.transport(), ""});
  return out;
}

}  // namespace radiotower::cli
