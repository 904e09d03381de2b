#include "external_address.h"

#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <system_error>
#include <thread>

#include "clock.h"
#include "privileges.h"
#include "radiotower/base/random.h"
#include "radiotower/io/socket.h"
#include "radiotower/stun/message.h"

namespace radiotower::daemon {

namespace {

using namespace std::chrono_literals;

constexpr std::size_t most_servers = 3;         // addresses of one STUN server's name that are tried
constexpr std::size_t most_remembered = 64;
constexpr nanoseconds told_again_after = 600s;  // a warning that goes on

bool is_name(std::string_view text) {
  const auto good = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '.' || c == '_'; };
  return !text.empty() && text.size() <= 253 && text.front() != '.' && text.front() != '-' && std::all_of(text.begin(), text.end(), good);
}

bool is_private(const net::IpAddress& ip) {
  for (const char* text : {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"}) {
    std::string why;
    if (const auto range = net::AddressRange::parse(text, why); range && range->contains(ip)) return true;
  }
  return false;
}

std::vector<net::IpAddress> look_up(const std::string& host, net::Family family, std::string& why) {
  if (const auto ip = net::IpAddress::parse(host)) {
    if (ip->family() == family) return {*ip};
    why = fmt::format("{} is of the other address family", host);
    return {};
  }
  addrinfo hints{};
  hints.ai_family = family == net::Family::ipv4 ? AF_INET : AF_INET6;
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(host.c_str(), nullptr, &hints, &list);
  std::vector<net::IpAddress> found;
  for (const addrinfo* one = list; error == 0 && one; one = one->ai_next)
    if (const auto address = net::TransportAddress::from_sockaddr(one->ai_addr, one->ai_addrlen); address && address->family() == family) found.push_back(address->ip);
  if (list) freeaddrinfo(list);
  const char* const kind = family == net::Family::ipv4 ? "IPv4" : "IPv6";
  if (error == EAI_NONAME || error == EAI_NODATA || (error == 0 && found.empty())) why = fmt::format("the DNS knows no {} address of {}", kind, host);
  else if (error == EAI_AGAIN) why = fmt::format("no DNS server answered about {}; /etc/resolv.conf names them", host);
  else if (error != 0) why = fmt::format("{} cannot be looked up: {}", host, error == EAI_SYSTEM ? std::strerror(errno) : gai_strerror(error));
  return found;
}

/// A Binding transaction over UDP with the timers of RFC 8489, 6.2.1: RTO 500 ms, Rc 7, Rm 16.
std::optional<net::IpAddress> bind_at(const net::TransportAddress& server, const net::IpAddress& local, const std::atomic<bool>& stop, std::string& why) {
  int error = 0;
  const io::Socket socket = io::open_udp({local, 0, 0}, {}, error);
  if (!socket) {
    why = fmt::format("no socket on {}: {}", local.text(), std::strerror(error));
    return std::nullopt;
  }
  // Connected: the kernel then takes datagrams from the server that was asked, and from nobody else.
  alignas(8) std::uint8_t name[28];
  const std::size_t length = server.to_sockaddr(name);
  if (::connect(socket.descriptor(), reinterpret_cast<const sockaddr*>(name), static_cast<socklen_t>(length)) != 0) {
    why = fmt::format("no way from {} to {}: {}", local.text(), server.text(), std::strerror(errno));
    return std::nullopt;
  }
  std::uint8_t space[64];
  stun::TransactionId id;
  system_random()(id);
  stun::Writer writer(space, stun::Class::request, stun::Method::binding, id);
  writer.add_fingerprint();
  constexpr int requests = 7;
  nanoseconds rto = 500ms;
  for (int i = 0; i < requests; ++i, rto *= 2) {
    // What a send says, ICMP's word about an earlier one included, is no answer: the next request may get through.
    [[maybe_unused]] const auto sent = ::send(socket.descriptor(), writer.bytes().data(), writer.bytes().size(), 0);
    const Time until = steady_now() + (i + 1 < requests ? rto : nanoseconds(16 * 500ms));
    for (nanoseconds left = until - steady_now(); left > 0ns; left = until - steady_now()) {
      if (stop.load()) return std::nullopt;
      pollfd wait{socket.descriptor(), POLLIN, 0};
      if (poll(&wait, 1, static_cast<int>(std::chrono::ceil<milliseconds>(std::min<nanoseconds>(left, 200ms)).count())) <= 0) continue;
      std::uint8_t answer[1500];
      const ssize_t size = recv(socket.descriptor(), answer, sizeof answer, 0);
      if (size < 0) continue;
      const auto message = stun::Message::read(Bytes(answer, static_cast<std::size_t>(size)));
      if (!message || message->transaction_id() != id || message->method() != stun::Method::binding) continue;
      if (message->message_class() == stun::Class::error) {
        const auto value = message->find(stun::Attribute::error_code);
        const auto code = value ? stun::read_error_code(*value) : std::nullopt;
        why = fmt::format("{} refuses to say: error {}", server.text(), code ? code->code : 0);
        return std::nullopt;
      }
      if (message->message_class() != stun::Class::success) continue;
      const auto value = message->find(stun::Attribute::xor_mapped_address);
      const auto mapped = value ? stun::read_xor_address(*value, id) : std::nullopt;
      if (mapped && mapped->family == mapped->address.family()) return mapped->address.ip;
      why = fmt::format("{} answers without an address", server.text());
      return std::nullopt;
    }
  }
  why = fmt::format("no answer from {} to seven requests in forty seconds", server.text());
  return std::nullopt;
}

}  // namespace

std::optional<ExternalEntry> parse_external(std::string_view text, std::string& what, std::string& hint) {
  const auto wrong = [&](std::string w, std::string h) -> std::optional<ExternalEntry> {
    what = std::move(w);
    hint = std::move(h);
    return std::nullopt;
  };
  ExternalEntry entry;
  const std::size_t slash = text.rfind('/');
  const std::string_view front = text.substr(0, slash);
  const bool has_local = slash != std::string_view::npos;
  if (has_local) entry.local = net::IpAddress::parse(text.substr(slash + 1));
  const bool dns = front.starts_with("dns:"), stun = front.starts_with("stun:");
  if (!dns && !stun) {
    const auto external = net::IpAddress::parse(front);
    if (!external || (has_local && !entry.local))
      return wrong(fmt::format("\"{}\" is not \"public/private\" or \"public\"", text),
                   "two addresses without ports: \"198.51.100.7/192.168.0.105\"; where the address changes, \"dns:tower.example.org\" or \"stun:stun.example.org:3478\"");
    entry.address = *external;
    if (entry.local && external->family() != entry.local->family())
      return wrong(fmt::format("\"{}\" mixes IPv4 and IPv6", text), "one entry a family: \"198.51.100.7/192.168.0.105\"");
    if (external->is_unspecified() || external->is_multicast() || external->is_link_local())
      return wrong(fmt::format("no peer can reach {}", external->text()), "the address that the NAT shows to the Internet, first: \"198.51.100.7/192.168.0.105\"");
    return entry;
  }
  const char* const example = dns ? "\"dns:tower.example.org\" or \"dns:tower.example.org/192.168.0.105\"" : "\"stun:stun.example.org:3478\" or \"stun:192.0.2.1:3478/192.168.0.105\"";
  if (has_local && !entry.local) return wrong(fmt::format("\"{}\" behind the slash is not an IP address", text.substr(slash + 1)), fmt::format("a relay address of this host: {}", example));
  entry.kind = dns ? ExternalEntry::Kind::dns : ExternalEntry::Kind::stun;
  entry.source = front;
  std::string_view host = front.substr(dns ? 4 : 5);
  if (dns && net::IpAddress::parse(host)) return wrong(fmt::format("{} is an address, not a name", host), fmt::format("leave \"dns:\" out: \"{}\"", host));
  if (stun) {
    std::string_view port;
    if (!host.empty() && host.front() == '[') {
      const std::size_t end = host.find(']');
      port = end == std::string_view::npos ? std::string_view() : host.substr(end + 1);
      host = host.substr(1, end == std::string_view::npos ? end : end - 1);
      if (end == std::string_view::npos || !net::IpAddress::parse(host) || (!port.empty() && port.front() != ':'))
        return wrong(fmt::format("\"{}\" is not a STUN server", front), "\"stun:[2001:db8::7]:3478\" with brackets round IPv6");
      if (!port.empty()) port.remove_prefix(1);
    } else if (const std::size_t colon = host.rfind(':'); colon != std::string_view::npos && host.find(':') == colon) {
      port = host.substr(colon + 1);
      host = host.substr(0, colon);
      if (port.empty()) return wrong(fmt::format("\"{}\" lacks the port behind the colon", front), example);
    }
    unsigned number = 3478;
    if (!port.empty()) {
      const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
      if (error != std::errc() || end != port.data() + port.size() || number == 0 || number > 65535)
        return wrong(fmt::format("port \"{}\" is not a number from 1 to 65535", port), "3478 is the port of STUN");
    }
    entry.port = static_cast<std::uint16_t>(number);
  }
  entry.host = host;
  if (!is_name(host) && !(stun && net::IpAddress::parse(host))) return wrong(fmt::format("\"{}\" is not a name", host), example);
  return entry;
}

std::string unfit_external(const net::IpAddress& answer, const net::IpAddress& local, const net::IpAddress* server) {
  if (answer.family() != local.family()) return fmt::format("{} is of the other address family", answer.text());
  if (answer == local) return {};  // no NAT stands between
  if (answer.is_loopback()) return fmt::format("{} is this machine itself; does /etc/hosts say so?", answer.text());
  const bool is_reserved = answer.is_v4() && (answer.bytes[12] == 0 || answer.bytes[12] >= 240);  // "this network", class E, broadcast
  if (answer.is_unspecified() || answer.is_multicast() || answer.is_link_local() || is_reserved) return fmt::format("nobody can reach {}", answer.text());
  // A server on the Internet that sees a private address is one that lies, or that has been answered for. One inside sees us as others there do.
  if (server && is_private(answer) && !is_private(*server)) return fmt::format("{} says {}, a private address", server->text(), answer.text());
  return {};
}

std::optional<net::IpAddress> choose_external(std::vector<net::IpAddress> answers, const std::optional<net::IpAddress>& last, const net::IpAddress& local,
                                              std::string& why) {
  std::sort(answers.begin(), answers.end());
  std::string last_why;
  std::optional<net::IpAddress> chosen;
  for (const auto& answer : answers) {
    if (std::string unfit = unfit_external(answer, local, nullptr); !unfit.empty()) {
      last_why = std::move(unfit);
      continue;
    }
    if (!chosen || (last && answer == *last)) chosen = answer;
  }
  if (!chosen) why = last_why;
  return chosen;
}

std::optional<net::IpAddress> ask_external(const ExternalQuestion& question, const std::optional<net::IpAddress>& last, const std::atomic<bool>& stop,
                                           std::string& why) {
  std::string hint;
  const auto entry = parse_external(question.source, why, hint);
  if (!entry) return std::nullopt;
  auto found = look_up(entry->host, question.local.family(), why);
  if (found.empty()) return std::nullopt;
  if (entry->kind == ExternalEntry::Kind::dns) return choose_external(std::move(found), last, question.local, why);
  std::sort(found.begin(), found.end());  // the same server each time: another one may be seen through another address
  if (found.size() > most_servers) found.resize(most_servers);
  for (const auto& ip : found) {
    const auto answer = bind_at({ip, entry->port, 0}, question.local, stop, why);
    if (stop.load()) return std::nullopt;
    if (!answer) continue;
    why = unfit_external(*answer, question.local, &ip);
    if (why.empty()) return answer;
  }
  return std::nullopt;
}

// ---------------------------------------------------------------------------------------------------------------------

struct ExternalAddresses::State {
  State(Log& l, std::function<void()> w, Ask a) : log(l), wake(std::move(w)), ask(std::move(a)) {}

  struct Entry {
    std::uint64_t number = 0;  // of its thread: one that finds another number here, or none, ends
    bool asked = false;
    bool again = false;  // at once
    bool failed = false;
    unsigned failures = 0;
    Time told_at{};
  };
  void ask_for_ever(ExternalQuestion question, std::uint64_t number);
  void record(const ExternalQuestion& question, Entry& entry, const std::optional<net::IpAddress>& answer, const std::string& why);
  void tell_failure(const ExternalQuestion& question, Entry& entry, std::string_view why);
  /// Another question of the same source that has its answer, or still may get one: a name need not have addresses of both families.
  bool has_sibling(const ExternalQuestion& question) const {
    return std::any_of(entries.begin(), entries.end(), [&](const auto& e) {
      return e.first.source == question.source && !(e.first == question) && (!e.second.asked || answers.contains(e.first));
    });
  }

  std::mutex mutex;
  std::condition_variable bell;
  Log& log;                    // only under the lock, and only while not over
  std::function<void()> wake;  // likewise
  const Ask ask;
  std::atomic<bool> over{false};
  std::map<ExternalQuestion, Entry> entries;
  ExternalAnswers answers;
  seconds refresh{60};
  std::uint64_t last_number = 0;
  bool changed = false;
};

void ExternalAddresses::State::record(const ExternalQuestion& question, Entry& entry, const std::optional<net::IpAddress>& answer, const std::string& why) {
  entry.asked = true;
  const auto known = answers.find(question);
  if (answer) {
    if (std::exchange(entry.failed, false))
      log.write(Priority::notice, "external address known again", fmt::format("{} says {}", question.source, answer->text()), {{"local", question.local.text()}});
    entry.failures = 0;
    if (known != answers.end() && known->second == *answer) return;
    answers[question] = *answer;
    changed = true;
    wake();
    return;
  }
  ++entry.failures;
  if (known == answers.end() && has_sibling(question)) return;
  tell_failure(question, entry, why);
}

/// The first time, and again every ten minutes.
void ExternalAddresses::State::tell_failure(const ExternalQuestion& question, Entry& entry, std::string_view why) {
  const auto known = answers.find(question);
  if (entry.failed && steady_now() - entry.told_at < told_again_after) return;
  entry.failed = true;
  entry.told_at = steady_now();
  log.write(Priority::warning, known == answers.end() ? "external address unknown" : "external address not confirmed",
            fmt::format("relay.external = \"{}\": {}; {}", question.source, why,
                        known == answers.end() ? fmt::format("until it is known clients are told {}, which peers beyond the NAT cannot reach", question.local.text())
                                               : fmt::format("clients are told {} as before", known->second.text())),
            {{"local", question.local.text()}});
}

void ExternalAddresses::State::ask_for_ever(ExternalQuestion question, std::uint64_t number) {
  std::string why_not_dropped;
  drop_offload_capabilities(why_not_dropped);  // a thread's own: see privileges.h
  std::unique_lock lock(mutex);
  const auto mine = [&]() -> Entry* {
    const auto found = entries.find(question);
    return over || found == entries.end() || found->second.number != number ? nullptr : &found->second;
  };
  while (Entry* entry = mine()) {
    entry->again = false;
    std::optional<net::IpAddress> last;
    if (const auto known = answers.find(question); known != answers.end()) last = known->second;
    lock.unlock();
    std::string why;
    const auto answer = ask(question, last, over, why);
    lock.lock();
    if (!(entry = mine())) return;
    record(question, *entry, answer, why);
    bell.notify_all();
    // A question that failed is asked again sooner: the network may just be coming up.
    const seconds pause = entry->failures == 0 ? refresh : std::min(refresh == 0s ? seconds(60) : refresh, seconds(2) * (1 << std::min(entry->failures, 5u)));
    const auto ready = [&] {
      const Entry* e = mine();
      return !e || e->again;
    };
    if (pause == 0s) bell.wait(lock, ready);
    else bell.wait_for(lock, pause, ready);
  }
}

ExternalAddresses::ExternalAddresses(Log& log, std::function<void()> wake, Ask ask) : state_(std::make_shared<State>(log, std::move(wake), std::move(ask))) {}

ExternalAddresses::~ExternalAddresses() { close(); }

void ExternalAddresses::close() {
  const std::lock_guard lock(state_->mutex);
  state_->over = true;
  state_->entries.clear();
  state_->bell.notify_all();
}

void ExternalAddresses::follow(const std::vector<ExternalQuestion>& questions, seconds refresh) {
  const std::lock_guard lock(state_->mutex);
  State& state = *state_;
  state.refresh = refresh;
  std::erase_if(state.entries, [&](const auto& e) { return std::find(questions.begin(), questions.end(), e.first) == questions.end(); });
  // What was known of an address that has gone is the best guess when it comes back; not for ever, and not for any number of them.
  if (state.answers.size() > most_remembered)
    std::erase_if(state.answers, [&](const auto& a) { return std::find(questions.begin(), questions.end(), a.first) == questions.end(); });
  for (const auto& question : questions) {
    const auto [entry, fresh] = state.entries.try_emplace(question);
    entry->second.again = !fresh;
    if (!fresh) continue;
    entry->second.number = ++state.last_number;
    try {
      std::thread thread([shared = state_, question, number = entry->second.number] { shared->ask_for_ever(question, number); });
      pthread_setname_np(thread.native_handle(), "external");
      thread.detach();
    } catch (const std::system_error& error) {  // the process has as many threads as it may; the next reload tries again
      state.log.write(Priority::warning, "external address unknown", fmt::format("{} is not asked: no thread: {}", question.source, error.what()));
      state.entries.erase(entry);
    }
  }
  state.bell.notify_all();
}

bool ExternalAddresses::wait(milliseconds patience) {
  std::unique_lock lock(state_->mutex);
  if (state_->bell.wait_for(lock, patience, [&] {
        return std::all_of(state_->entries.begin(), state_->entries.end(), [](const auto& e) { return e.second.asked; });
      }))
    return true;
  // A STUN server is given up after 40 seconds, a resolver perhaps later: too long to say nothing to whoever has just started this.
  for (auto& [question, entry] : state_->entries)
    if (!entry.asked && std::none_of(state_->answers.begin(), state_->answers.end(), [&](const auto& a) { return a.first.source == question.source; }))
      state_->tell_failure(question, entry, "no answer so far, and it is still being asked");
  return false;
}

ExternalAnswers ExternalAddresses::answers() const {
  const std::lock_guard lock(state_->mutex);
  return state_->answers;
}

bool ExternalAddresses::take_change() {
  const std::lock_guard lock(state_->mutex);
  return std::exchange(state_->changed, false);
}

}  // namespace radiotower::daemon
