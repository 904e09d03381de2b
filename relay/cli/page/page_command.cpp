// `radiotower page`: a page on the LAN with which a phone finds out by itself what of the relay it can reach.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>

#include "../commands.h"
#include "../credentials.h"
#include "certificate.h"
#include "ice_list.h"
#include "page_html.h"
#include "qr.h"
#include "results.h"
#include "server.h"
#include "text.h"

namespace radiotower::cli {

namespace {

using page::refuse;
using page::Target;
using boost::asio::ip::tcp;
using Json = nlohmann::json;

constexpr const char* command_name = "page";
constexpr std::uint16_t usual_port = 8090;
constexpr std::int64_t credential_seconds = 3600;

struct Options {
  std::string ice_file, server, secret_file, listen, certificate, private_key, ca;
  std::vector<std::string> transports{"udp", "tcp"};
  std::uint16_t tls_port = default_tls_port;
  unsigned seconds = 3600;
  bool json = false, once = false, no_call = false, no_stun = false;
};

/// What to test, from --ice or from --server.
std::optional<std::vector<Target>> targets_of(const Options& o, std::string& why) {
  std::string json;
  if (!o.ice_file.empty()) {
    std::string others_may_read;  // a list of URLs is no secret
    const auto text = read_small_file(o.ice_file, why, others_may_read);
    if (!text) return std::nullopt;
    json = *text;
  } else {
    const auto server = parse_host_port(o.server, default_port, why);
    if (!server) return refuse(why, "--server: " + why);
    std::vector<net::Transport> transports;
    for (const auto& name : o.transports)
      transports.push_back(name == "udp" ? net::Transport::udp : name == "tcp" ? net::Transport::tcp : net::Transport::tls);
    auto urls = turn_urls(*server, o.tls_port, transports);
    if (!o.no_stun) urls.insert(urls.begin(), stun_url(*server));
    json = Json::array({{{"urls", urls}}}).dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  std::vector<std::string> notes;
  auto targets = page::read_ice_list(json, notes, why);
  for (const auto& note : notes) warn(note);
  if (!targets && !o.ice_file.empty()) why = o.ice_file + ": " + why;
  return targets;
}

/// The address of this host that others on the LAN know: the one that the relay is reached from, if it is given as an address.
std::optional<net::IpAddress> lan_address(const std::vector<Target>& targets) {
  for (const auto& target : targets) {
    const auto relay = net::IpAddress::parse(target.url.server.host);
    if (!relay || relay->is_loopback()) continue;
    sockaddr_storage address{};
    const auto length = static_cast<socklen_t>(net::TransportAddress{*relay, 9}.to_sockaddr(&address));
    const int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t size = sizeof address;
    // connect(2) of UDP sends nothing: it asks the routes.
    const bool known = fd >= 0 && connect(fd, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
                       getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
    if (fd >= 0) close(fd);
    if (!known) continue;
    if (const auto mine = net::TransportAddress::from_sockaddr(reinterpret_cast<sockaddr*>(&address), size); mine && !mine->ip.is_loopback()) return mine->ip;
  }
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return std::nullopt;
  std::optional<net::IpAddress> found;
  for (const ifaddrs* each = all; each && !found; each = each->ifa_next) {
    if (!each->ifa_addr || each->ifa_addr->sa_family != AF_INET || (each->ifa_flags & IFF_UP) == 0) continue;
    const auto mine = net::TransportAddress::from_sockaddr(each->ifa_addr, sizeof(sockaddr_in));
    if (mine && !mine->ip.is_loopback() && !mine->ip.is_link_local()) found = mine->ip;
  }
  freeifaddrs(all);
  return found;
}

/// The page for one device, with credentials that are good for an hour.
std::string make_page(const std::string& nonce, std::vector<Target> targets, const std::string& secret, bool call, bool ca) {
  Json wanted = {{"targets", Json::array()}, {"call", call}, {"ca", ca}};
  const Credential fresh = secret.empty() ? Credential{} : make_rest_credential(secret, "page", std::time(nullptr) + credential_seconds);
  for (auto& target : targets) {
    if (target.is_turn() && (target.username.empty() || target.credential.empty())) target.username = fresh.username, target.credential = fresh.password;
    wanted["targets"].push_back({{"url", target.text}, {"username", target.username}, {"credential", target.credential}});
  }
  std::string json;
  // Inside <script>, where "</script>" in a text would end it.
  for (const char c : wanted.dump(-1, ' ', true, Json::error_handler_t::replace)) {
    if (c == '<' || c == '>' || c == '&') json += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    else json += c;
  }
  std::string out;
  for (std::string_view rest = page::page_html; !rest.empty();) {
    const auto at = rest.find("{{");
    out += rest.substr(0, at);
    if (at == std::string_view::npos) break;
    rest.remove_prefix(at);
    const bool is_nonce = rest.starts_with("{{nonce}}"), is_wanted = rest.starts_with("{{wanted}}");
    out += is_nonce ? nonce : is_wanted ? json : "{{";
    rest.remove_prefix(is_nonce ? 9 : is_wanted ? 10 : 2);
  }
  return out;
}

/// Takes what phones post, prints it, and says in `exit_code` when it is time to go.
class Desk {
 public:
  Desk(const Options& o, const std::vector<Target>& targets, boost::asio::io_context& io) : o_(o), targets_(targets), io_(io), devices_(targets.size()) {}

  void welcome(const std::string& address, const std::string& user_agent) const {
    if (!o_.json) say(fmt::format("{}, {}: has opened the page\n", page::printable(address, 64), page::short_user_agent(user_agent)));
  }

  unsigned take(const std::string& body, const std::string& address, const std::string& user_agent) {
    std::string why;
    const auto result = page::parse_result(body, targets_.size(), why);
    if (!result) return 400;
    const auto taken = devices_.take(*result);
    if (taken == page::Devices::Taken::too_many) return 429;
    if (taken == page::Devices::Taken::again) return 204;
    const page::Sender sender{page::printable(address, 64), page::short_user_agent(user_agent)};
    const bool colour = isatty(STDOUT_FILENO) == 1;
    say(o_.json ? page::json_line(sender, targets_[result->index], *result) : page::text_line(sender, targets_[result->index], *result, colour));
    if (taken != page::Devices::Taken::completes) return 204;
    const auto summary = devices_.summary(result->device);
    say(o_.json ? page::json_summary(sender, result->device, summary) : page::text_summary(sender, summary, colour));
    if (o_.once) {
      exit_code = summary.good() ? 0 : 1;
      // The phone gets its answer first.
      end_.expires_after(std::chrono::milliseconds(300));
      end_.async_wait([this](const boost::system::error_code&) { io_.stop(); });
    }
    return 204;
  }

  int exit_code = 0;

 private:
  static void say(const std::string& line) {
    std::fputs(line.c_str(), stdout);
    std::fflush(stdout);
  }
  const Options& o_;
  const std::vector<Target>& targets_;
  boost::asio::io_context& io_;
  page::Devices devices_;
  boost::asio::steady_timer end_{io_};
};

std::optional<tcp::endpoint> where(const Options& o, const std::vector<Target>& targets, bool& port_given, std::string& why) {
  net::TransportAddress at;
  port_given = false;
  if (o.listen.empty()) {
    const auto mine = lan_address(targets);
    if (!mine) return refuse(why, "this host has no address on a LAN: give one with --listen ADDRESS:PORT");
    at = {*mine, usual_port};
  } else {
    const auto both = net::TransportAddress::parse(o.listen);
    const auto ip = both ? std::nullopt : net::IpAddress::parse(o.listen);
    if (!both && !ip) return refuse(why, "--listen takes an address of this host, and a port if you like: 192.168.0.105:8090");
    port_given = both.has_value();
    at = both ? *both : net::TransportAddress{*ip, usual_port};
  }
  return tcp::endpoint(boost::asio::ip::make_address(at.ip.text()), at.port);
}

void introduce(const Options& o, const std::string& url, std::size_t count) {
  if (o.json) {
    fmt::print("{}\n", Json({{"page", url}}).dump());
    std::fflush(stdout);
    if (isatty(STDERR_FILENO) != 1) return;
  }
  std::FILE* const out = o.json ? stderr : stdout;
  fmt::print(out, "Open this on a phone, in the network that calls are made from:\n\n  {}\n\n{}\n", url, page::qr_code(url, isatty(fileno(out)) == 1));
  fmt::print(out, "It tests {} {} by itself and reports here. Whoever has this address gets credentials for an hour. Ctrl-C ends.\n"
                  "If the phone cannot open it: it is in another network, or a firewall on this host does not let TCP in at this port.\n\n",
             count, count == 1 ? "URL" : "URLs");
  std::fflush(out);
}

int run_page(const Options& o) {
  std::string why, warning, secret;
  if (o.ice_file.empty() == o.server.empty()) return usage_error(command_name, "say what to test: --server ADDRESS --secret-file FILE, or --ice FILE");
  if (o.certificate.empty() != o.private_key.empty()) return usage_error(command_name, "--certificate and --private-key belong together");
  const auto targets = targets_of(o, why);
  if (!targets) return usage_error(command_name, why);
  if (page::lacks_credential(*targets)) {
    if (o.secret_file.empty())
      return usage_error(command_name, "there are TURN entries without user name and credential: --secret-file FILE makes them, from the relay's secrets");
    const auto read = read_secret(o.secret_file, why, warning);
    if (!read) return usage_error(command_name, "--secret-file: " + why);
    secret = *read;
    if (!warning.empty()) warn(warning);
  }
  bool port_given = false;
  const auto at = where(o, *targets, port_given, why);
  if (!at) return usage_error(command_name, why);

  boost::asio::io_context io(1);
  boost::asio::ssl::context tls(boost::asio::ssl::context::tls_server);
  Desk desk(o, *targets, io);
  page::ServerSettings settings;
  settings.token = page::random_token();
  if (!o.ca.empty()) {
    const auto der = certificate::der_of_ca(o.ca, why);
    if (!der) return usage_error(command_name, "--ca: " + why);
    settings.ca_certificate = *der;
  }
  settings.page = [&](const std::string& nonce, const std::string& address, const std::string& agent) {
    desk.welcome(address, agent);
    return make_page(nonce, *targets, secret, !o.no_call, !o.ca.empty());
  };
  settings.result = [&](const std::string& body, const std::string& address, const std::string& agent) { return desk.take(body, address, agent); };
  if (!o.certificate.empty()) {
    try {
      SSL_CTX_set_min_proto_version(tls.native_handle(), TLS1_2_VERSION);
      SSL_CTX_set_options(tls.native_handle(), SSL_OP_NO_RENEGOTIATION);
      tls.use_certificate_chain_file(o.certificate);
      tls.use_private_key_file(o.private_key, boost::asio::ssl::context::pem);
    } catch (const boost::system::system_error& error) {
      return usage_error(command_name, fmt::format("--certificate {} and --private-key {}: {}", o.certificate, o.private_key, error.code().message()));
    }
    settings.tls = &tls;
  }
  std::unique_ptr<page::Server> server;
  try {
    try {
      server = std::make_unique<page::Server>(io, *at, settings);
    } catch (const boost::system::system_error& error) {
      if (port_given || error.code() != boost::asio::error::address_in_use) throw;
      server = std::make_unique<page::Server>(io, tcp::endpoint(at->address(), 0), settings);
    }
  } catch (const boost::system::system_error& error) {
    return usage_error(command_name, fmt::format("cannot listen at {}, port {}: {}. --listen ADDRESS:PORT takes another one",
                                                 at->address().to_string(), at->port(), error.code().message()));
  }
  auto shown = server->endpoint();
  if (shown.address().is_unspecified())
    if (const auto mine = lan_address(*targets)) shown.address(boost::asio::ip::make_address(mine->text()));
  const std::string host = shown.address().is_v6() ? "[" + shown.address().to_string() + "]" : shown.address().to_string();
  introduce(o, fmt::format("{}://{}:{}/{}/", settings.tls ? "https" : "http", host, shown.port(), settings.token), targets->size());

  if (o.once) desk.exit_code = 1;  // until a device has said something better
  boost::asio::signal_set signals(io, SIGINT, SIGTERM);
  signals.async_wait([&](const boost::system::error_code& error, int) { if (!error) io.stop(); });
  boost::asio::steady_timer bound(io, std::chrono::seconds(o.seconds));
  bound.async_wait([&](const boost::system::error_code& error) {
    if (error) return;
    warn(fmt::format("the page was there for {} seconds, as --seconds says", o.seconds));
    io.stop();
  });
  io.run();
  return desk.exit_code;
}

}  // namespace

void add_page_command(CLI::App& app, Run& run) {
  auto* command = app.add_subcommand("page", "serve a page on the LAN with which a phone tests by itself what of the relay it can reach");
  auto o = std::make_shared<Options>();
  command->add_option("--server", o->server, "the relay, as phones reach it")->type_name("ADDRESS[:PORT]");
  command->add_option("--secret-file", o->secret_file, "the relay's secrets file, for credentials that are good for an hour; - reads standard input")
      ->type_name("FILE");
  command->add_option("--transport", o->transports, "ways to test, with commas: udp, tcp, tls")
      ->type_name("LIST")->delimiter(',')->capture_default_str()->check(CLI::IsMember({"udp", "tcp", "tls"}));
  command->add_option("--tls-port", o->tls_port, "the relay's port of TLS")->type_name("PORT")->capture_default_str()->check(CLI::Range(1, 65535));
  command->add_option("--ice", o->ice_file, "test this list instead: a browser's iceServers, or Mattermost's iceserversconfigs, as JSON; - reads standard input")
      ->type_name("FILE");
  command->add_option("--listen", o->listen, "where the page is served; default: the LAN address, port 8090 or a free one")->type_name("ADDRESS[:PORT]");
  command->add_option("--certificate", o->certificate, "serve HTTPS with this chain")->type_name("FILE");
  command->add_option("--private-key", o->private_key, "its key")->type_name("FILE");
  command->add_option("--ca", o->ca, "offer this CA certificate on the page, so that a phone can install it")->type_name("FILE");
  command->add_option("--seconds", o->seconds, "how long the page is there")->type_name("SECONDS")->capture_default_str()->check(CLI::Range(1, 86'400));
  command->add_flag("--no-call", o->no_call, "ask for relayed addresses alone: for relays with peers.allow_only, which refuse a call of a phone with itself");
  command->add_flag("--no-stun", o->no_stun, "with --server: leave stun: out");
  command->add_flag("--once", o->once, "end when the first device is through; exit code 0 if all it could test works, else 1");
  command->add_flag("--json", o->json, "print a JSON object a line");
  command->footer("Examples:\n"
                  "  radiotower page --server 192.168.0.105 --secret-file /etc/radiotower/secrets\n"
                  "  radiotower page --server 192.168.0.105 --secret-file secrets --transport udp,tcp,tls --ca ca.pem\n"
                  "  radiotower page --ice iceserversconfigs.json --secret-file secrets --once --json");
  command->callback([o, &run] { run = [o] { return run_page(*o); }; });
}

}  // namespace radiotower::cli
