// `radiotower nat`: what the NAT between here and a server does (RFC 5780), and what that means for calls.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <memory>
#include <thread>
#include <vector>

#include "commands.h"
#include "json.h"
#include "nat.h"
#include "report.h"

namespace radiotower::cli {

using stun::Attribute;
using stun::Class;
using stun::Message;
using stun::Method;

namespace {

using namespace std::chrono_literals;

struct Options {
  std::string target;
  double timeout = 5;
  unsigned lifetime = 0;
  bool ipv4 = false, ipv6 = false, json = false;
};

class UdpProbes final : public NatProbes {
 public:
  UdpProbes(const net::TransportAddress& local, std::chrono::milliseconds timeout) : local_(local), timeout_(timeout), random_(system_random()) {}

  std::optional<unsigned> open() override {
    auto socket = UdpSocket::bound_to(local_, failure_);
    if (!socket) return std::nullopt;
    sockets_.push_back(std::move(*socket));
    return static_cast<unsigned>(sockets_.size() - 1);
  }
  net::TransportAddress local(unsigned socket) const override { return sockets_[socket].local(); }
  std::string failure() const override { return failure_; }
  void wait(std::chrono::milliseconds time) override { std::this_thread::sleep_for(time); }

  Answer ask(const Ask& ask) override {
    stun::TransactionId id;
    random_(id);
    const auto request = write(id, ask);
    Answer answer;
    repeat([&] { send(ask.from, ask.to, request); },
           [&](Clock::time_point until) {
             if (ask.response_port == 0) return listen(ask.from, until, id, answer);
             // In turns: the answer is awaited at two sockets.
             return listen(ask.answer_at, soon(until), id, answer) || listen(ask.from, soon(until), id, answer);
           });
    return answer;
  }

  bool meet(unsigned a, const net::TransportAddress& mapped_a, unsigned b, const net::TransportAddress& mapped_b) override {
    stun::TransactionId id_a, id_b;
    random_(id_a);
    random_(id_b);
    const auto from_a = write(id_a, {}), from_b = write(id_b, {});
    bool met = false;
    repeat([&] { send(a, mapped_b, from_a), send(b, mapped_a, from_b); },
           [&](Clock::time_point until) {
             met = met || hears(b, soon(until), id_a) || hears(a, soon(until), id_b);
             return met;
           });
    return met;
  }

 private:
  static Clock::time_point soon(Clock::time_point until) { return std::min(until, Clock::now() + 10ms); }

  /// Sends, and sends again (RFC 8489, 6.2.1), until `heard` says yes or the time is up.
  template <typename Sends, typename Heard>
  void repeat(const Sends& sends, const Heard& heard) {
    const Retransmission schedule;
    const auto start = Clock::now();
    const auto end = start + std::min(timeout_, schedule.give_up_at());
    for (unsigned n = 0; n < Retransmission::sends && Clock::now() < end; ++n) {
      sends();
      const auto until = n + 1 < Retransmission::sends ? std::min(end, start + schedule.send_at(n + 1)) : end;
      do {
        if (heard(until)) return;
      } while (Clock::now() < until);
    }
  }

  std::vector<std::uint8_t> write(const stun::TransactionId& id, const Ask& ask) {
    std::vector<std::uint8_t> bytes(128 + ask.padding);
    stun::Writer writer(bytes, Class::request, Method::binding, id);
    if (ask.change_ip || ask.change_port) writer.add_u32(Attribute::change_request, (ask.change_ip ? 4u : 0u) | (ask.change_port ? 2u : 0u));
    if (ask.response_port != 0) writer.add_u32(Attribute::response_port, std::uint32_t{ask.response_port} << 16);
    if (ask.padding != 0) writer.add(Attribute::padding, Bytes(std::vector<std::uint8_t>(ask.padding)));
    bytes.resize(writer.bytes().size());
    return bytes;
  }

  void send(unsigned socket, const net::TransportAddress& to, const std::vector<std::uint8_t>& bytes) { sockets_[socket].send_to(to, bytes); }

  std::optional<Message> receive(unsigned socket, Clock::time_point until, net::TransportAddress& source) {
    std::size_t size = 0;
    if (sockets_[socket].receive(buffer_, until, size, source) != UdpSocket::Arrival::datagram) return std::nullopt;
    return Message::read(Bytes(buffer_).first(size));
  }

  bool hears(unsigned socket, Clock::time_point until, const stun::TransactionId& id) {
    net::TransportAddress source;
    const auto message = receive(socket, until, source);
    return message && message->is(Class::request, Method::binding) && message->transaction_id() == id;
  }

  bool listen(unsigned socket, Clock::time_point until, const stun::TransactionId& id, Answer& answer) {
    net::TransportAddress source;
    const auto message = receive(socket, until, source);
    if (!message || message->transaction_id() != id || message->method() != Method::binding) return false;
    if (message->is(Class::error, Method::binding)) {
      const auto value = message->find(Attribute::error_code);
      const auto error = value ? stun::read_error_code(*value) : std::nullopt;
      if (!error) return false;
      answer.kind = Answer::Kind::error;
      answer.code = error->code;
      return true;
    }
    if (!message->is(Class::success, Method::binding)) return false;
    const auto address = [&](Attribute type) -> std::optional<net::TransportAddress> {
      const auto value = message->find(type);
      const auto read = !value ? std::nullopt : type == Attribute::xor_mapped_address ? stun::read_xor_address(*value, id) : stun::read_address(*value);
      return read ? std::optional(read->address) : std::nullopt;
    };
    const auto mapped = address(Attribute::xor_mapped_address);
    if (!mapped) return false;
    answer.kind = Answer::Kind::success;
    answer.arrived_at = socket;
    answer.source = source;
    answer.mapped = *mapped;
    answer.plain_mapped = address(Attribute::mapped_address);
    answer.origin = address(Attribute::response_origin);
    answer.other = address(Attribute::other_address);
    answer.padded = message->has(Attribute::padding);
    return true;
  }

  net::TransportAddress local_;
  std::chrono::milliseconds timeout_;
  RandomSource random_;
  std::vector<UdpSocket> sockets_;
  std::vector<std::uint8_t> buffer_ = std::vector<std::uint8_t>(65536);
  std::string failure_;
};

class Walk {
 public:
  Walk(const Options& o, const HostPort& target)
      : options_(o), target_(target), timeout_(static_cast<std::int64_t>(o.timeout * 1000)), report_(stun_url(target), o.json) {}

  int run() {
    if (!reach() || !support()) return report_.end({});
    Finding<Mapping> mapping;
    if (server_.translated) {
      mapping = tell("mapping", "mapping", find_mapping,
                     [](const Mapping& m) {
                       const std::string_view port = m.keeps_port ? "; it keeps the local port" : "";
                       return fmt::format("{} ({}){}", name(m.dependence), meaning_of_mapping(m.dependence), port);
                     },
                     [](const Mapping& m) { return json_string(name(m.dependence)); });
    } else {
      report_.step("mapping", Clock::duration{}, "none: the server sees this host's own address");
      report_.fact("mapping", json_string("none"));
    }
    const auto filtering = tell("filtering", "filtering", find_filtering,
                                [](Dependence d) { return fmt::format("{} ({})", name(d), meaning_of_filtering(d)); },
                                [](Dependence d) { return json_string(name(d)); });
    if (server_.translated)
      tell("hairpinning", "hairpinning", find_hairpinning,
           [](bool yes) {
             return yes ? "yes (good: two clients behind this NAT meet at its outer address)"
                        : "no (two clients behind this NAT do not meet at its outer address: they need each other's inner one, or a relay)";
           },
           [](bool yes) { return yes ? "true" : "false"; });
    tell("fragments", "fragments", find_fragments,
         [](bool yes) {
           return yes ? "pass, both ways" : "are lost (media does not need them; large certificates in DTLS, and large SIP messages, may)";
         },
         [](bool yes) { return yes ? "true" : "false"; });
    if (options_.lifetime > 0 && server_.translated) lifetime();
    return report_.end(verdict(server_.translated, mapping, filtering));
  }

 private:
  bool fail(std::string_view step, std::string what, std::vector<std::string> check) {
    report_.failed(step, std::move(what), std::move(check));
    return false;
  }

  /// RFC 5780, 4.2: is there UDP at all.
  bool reach() {
    std::string why;
    auto start = Clock::now();
    const auto family = options_.ipv4 ? std::optional(net::Family::ipv4) : options_.ipv6 ? std::optional(net::Family::ipv6) : std::nullopt;
    const auto addresses = resolve(target_, family, why);
    if (addresses.empty()) return fail("resolve", why, {"the host's name, and this host's resolver", "an address instead of a name"});
    first_ = addresses.front();
    report_.step("resolve", Clock::now() - start, first_.text());
    report_.fact("server", json_string(first_.text()));
    auto client = Client::open(first_, {}, system_random(), {timeout_}, why);
    if (!client) return fail("socket", why, {"the route to the server: ip route get " + first_.ip.text()});
    start = Clock::now();
    Outcome outcome;
    const auto reflexive = client->binding(outcome);
    if (!reflexive) {
      Situation situation;
      situation.step = "Binding";
      situation.server = first_.text();
      situation.timeout = timeout_;
      auto check = advice(outcome, situation);
      if (outcome.failure == Failure::no_answer) check.emplace_back("some networks let no UDP out at all: calls then need a relay over TCP or TLS");
      report_.failed("Binding", describe(outcome, situation), std::move(check), outcome.code);
      return false;
    }
    report_.step("Binding", Clock::now() - start, fmt::format("the server sees us at {}, here it is {}", reflexive->text(), client->local().text()));
    report_.fact("reflexive_address", json_string(reflexive->text()));
    report_.fact("local_address", json_string(client->local().text()));
    net::TransportAddress local = client->local();
    local.port = 0;
    probes_.emplace(local, timeout_);
    return true;
  }

  bool support() {
    const auto start = Clock::now();
    const auto found = find_server(*probes_, first_);
    if (!found.value)
      return fail("server", found.why_not,
                  {"another server: it takes one with two addresses and two ports, of which there are few",
                   "if it is a radiotower-relay: features.nat_discovery = true, and two addresses in listen.udp",
                   "calls do not need this: `radiotower stun` and `radiotower turn` test what they need"});
    server_ = *found.value;
    report_.step("server", Clock::now() - start, fmt::format("it has a second address, {}", server_.other.text()));
    report_.fact("other_address", json_string(server_.other.text()));
    report_.fact("translated", server_.translated ? "true" : "false");
    if (server_.rewritten)
      report_.note("MAPPED-ADDRESS and XOR-MAPPED-ADDRESS differ: something on the way rewrites addresses inside of packets (an ALG)");
    return true;
  }

  template <typename Value, typename Text, typename Json>
  Finding<Value> tell(std::string_view step, std::string_view fact, Finding<Value> (*find)(NatProbes&, const NatServer&), const Text& text,
                      const Json& json) {
    const auto start = Clock::now();
    auto found = find(*probes_, server_);
    report_.step(step, Clock::now() - start, found.value ? std::string(text(*found.value)) : "not known: " + found.why_not);
    report_.fact(fact, found.value ? std::string(json(*found.value)) : "null");
    return found;
  }

  void lifetime() {
    const auto start = Clock::now();
    const std::chrono::seconds longest(options_.lifetime);
    const auto found = find_lifetime(*probes_, server_, longest);
    std::string text = "not known: " + found.why_not;
    if (found.value && found.value->outlives()) {
      text = fmt::format("a mapping that nobody uses lasts for at least {} s (good: ICE sends every 15 s)", longest.count());
    } else if (found.value) {
      const auto low = found.value->alive_after().count(), high = found.value->dead_after().count();
      text = fmt::format("a mapping that nobody uses lasts for {} to {} s ({})", low, high,
                         low >= 15 ? "good enough: ICE sends every 15 s"
                                   : "short: ICE sends every 15 s, so that silent calls may break; RFC 4787 asks for two minutes");
    }
    report_.step("lifetime", Clock::now() - start, text);
    report_.fact("lifetime_at_least_seconds", found.value ? std::to_string(found.value->alive_after().count()) : "null");
    report_.fact("lifetime_less_than_seconds", found.value && !found.value->outlives() ? std::to_string(found.value->dead_after().count()) : "null");
  }

  const Options& options_;
  HostPort target_;
  std::chrono::milliseconds timeout_;
  Report report_;
  net::TransportAddress first_;
  std::optional<UdpProbes> probes_;
  NatServer server_;
};

int run_nat(const Options& o) {
  std::string why;
  const auto target = parse_stun_target(o.target, why);
  if (!target) return usage_error("nat", why);
  return Walk(o, *target).run();
}

}  // namespace

void add_nat_command(CLI::App& app, Run& run) {
  auto* command = app.add_subcommand("nat", "find out what the NAT between here and a STUN server does (RFC 5780)");
  auto o = std::make_shared<Options>();
  command->add_option("server", o->target, "HOST[:PORT] or stun:HOST[:PORT]; a server with two addresses")->required()->type_name("");
  command->add_option("--timeout", o->timeout, "take silence for an answer after this long; requests are repeated meanwhile "
                                               "(RFC 8489, 6.2.1: 39.5 s for all seven)")
      ->type_name("SECONDS")
      ->capture_default_str()
      ->check(CLI::Range(0.05, 60.0));
  command->add_option("--lifetime", o->lifetime,
                      fmt::format("find out too how long an unused mapping lasts, up to this long; takes up to {} times as long",
                                  LifetimeSearch::most_tries()))
      ->type_name("SECONDS")
      ->check(CLI::Range(1u, 3600u));
  auto* four = command->add_flag("-4,--ipv4", o->ipv4, "over IPv4 only");
  command->add_flag("-6,--ipv6", o->ipv6, "over IPv6 only")->excludes(four);
  command->add_flag("--json", o->json, "one JSON object instead of text");
  command->footer("Examples:\n"
                  "  radiotower nat tower.lan\n"
                  "  radiotower nat stun:192.0.2.1:3478 --lifetime 180\n"
                  "  radiotower nat tower.lan --json\n"
                  "A filter that lets nothing through is silence: expect two or three times --timeout.");
  command->callback([o, &run] { run = [o] { return run_nat(*o); }; });
}

}  // namespace radiotower::cli
