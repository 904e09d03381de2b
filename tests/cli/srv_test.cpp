// SRV records against a DNS server of a few lines, on loopback.
#include <doctest/doctest.h>

#include <map>
#include <thread>

#include "srv.h"
#include "udp.h"

using namespace radiotower;
using namespace radiotower::cli;

namespace {

void put(std::vector<std::uint8_t>& out, unsigned value) { out.insert(out.end(), {static_cast<std::uint8_t>(value >> 8), static_cast<std::uint8_t>(value)}); }

void put_name(std::vector<std::uint8_t>& out, std::string name) {
  while (!name.empty()) {
    const std::size_t dot = name.find('.');
    const std::string label = name.substr(0, dot);
    out.push_back(static_cast<std::uint8_t>(label.size()));
    out.insert(out.end(), label.begin(), label.end());
    name = dot == std::string::npos ? "" : name.substr(dot + 1);
  }
  out.push_back(0);
}

/// An answer to a question of that bytes, with these records; without any it says that there is no such name.
std::vector<std::uint8_t> answer_of(Bytes question, const std::vector<SrvRecord>& records) {
  std::vector<std::uint8_t> out(question.begin(), question.end());
  out[2] = 0x84;
  out[3] = records.empty() ? 3 : 0;
  out[6] = 0;
  out[7] = static_cast<std::uint8_t>(records.size());
  out.resize(out.size());
  for (const auto& record : records) {
    put(out, 0xC00C);  // the name of the question
    put(out, 33);
    put(out, 1);
    out.insert(out.end(), {0, 0, 0, 60});
    std::vector<std::uint8_t> data;
    put(data, record.priority);
    put(data, record.weight);
    put(data, record.port);
    put_name(data, record.target);
    put(out, static_cast<unsigned>(data.size()));
    out.insert(out.end(), data.begin(), data.end());
  }
  return out;
}

std::string name_in(Bytes question) {
  std::string out;
  for (std::size_t i = 12; i < question.size() && question[i] != 0; i += question[i] + 1u) out += (out.empty() ? "" : ".") + std::string(as_text(question.subspan(i + 1, question[i])));
  return out;
}

class Dns {
 public:
  explicit Dns(std::map<std::string, std::vector<SrvRecord>> zone) : zone_(std::move(zone)) {
    std::string why;
    socket_ = *UdpSocket::bound_to(*net::TransportAddress::parse("127.0.0.1:0"), why);
    thread_ = std::thread([this] { serve(); });
  }
  ~Dns() {
    std::string why;
    auto stop = UdpSocket::connected_to(socket_.local(), why);
    const std::uint8_t one = 0;
    stop->send({&one, 1});
    thread_.join();
  }
  net::TransportAddress address() const { return socket_.local(); }

 private:
  void serve() {
    std::vector<std::uint8_t> buffer(2048);
    for (;;) {
      std::size_t size = 0;
      net::TransportAddress from;
      if (socket_.receive(buffer, Clock::now() + std::chrono::seconds(60), size, from) != UdpSocket::Arrival::datagram || size < 17) return;
      const Bytes question = Bytes(buffer).first(size);
      // What follows the question (EDNS) is not repeated.
      std::size_t end = 12;
      while (end < size && buffer[end] != 0) end += buffer[end] + 1u;
      std::vector<std::uint8_t> alone(question.begin(), question.begin() + static_cast<std::ptrdiff_t>(end + 5));
      alone[10] = alone[11] = 0;
      const auto found = zone_.find(name_in(question));
      socket_.send_to(from, answer_of(alone, found == zone_.end() ? std::vector<SrvRecord>{} : found->second));
    }
  }
  std::map<std::string, std::vector<SrvRecord>> zone_;
  UdpSocket socket_;
  std::thread thread_;
};

Url turn(const char* text) {
  std::string why;
  const auto url = parse_turn_url(text, why);
  REQUIRE(url);
  return *url;
}

const RandomSource zeros = [](MutableBytes out) { std::fill(out.begin(), out.end(), std::uint8_t{0}); };

}  // namespace

TEST_CASE("a name without a port is looked up as SRV records, by priority (RFC 5928, 3)") {
  const Dns dns({{"_turn._udp.tower.lan", {{20, 0, 3479, "second.tower.lan"}, {10, 0, 3478, "first.tower.lan"}}},
                 {"_turns._tcp.tower.lan", {{0, 0, 443, "secure.tower.lan"}}}});
  const Lookup plain = find_servers(turn("turn:tower.lan"), dns.address(), zeros);
  REQUIRE(plain.candidates.size() == 2);
  CHECK(plain.candidates[0].server.text() == "first.tower.lan:3478");
  CHECK(plain.candidates[1].server.text() == "second.tower.lan:3479");
  CHECK(plain.candidates[0].found_by == "SRV _turn._udp.tower.lan");
  CHECK(plain.note.find("browsers") != std::string::npos);
  const Lookup secure = find_servers(turn("turns:tower.lan"), dns.address(), zeros);
  REQUIRE(secure.candidates.size() == 1);
  CHECK(secure.candidates[0].server.text() == "secure.tower.lan:443");
  CHECK(secure.candidates[0].transport == net::Transport::tls);
}

TEST_CASE("an address, and a name with a port, are asked for in no DNS (RFC 5928, 3)") {
  const Dns dns({{"_turn._udp.tower.lan", {{0, 0, 1, "elsewhere.lan"}}}});
  CHECK(find_servers(turn("turn:tower.lan:5000"), dns.address(), zeros).candidates.at(0).server.text() == "tower.lan:5000");
  CHECK(find_servers(turn("turn:192.0.2.1"), dns.address(), zeros).candidates.at(0).server.text() == "192.0.2.1:3478");
  CHECK(find_servers(turn("turn:[2001:db8::1]"), dns.address(), zeros).candidates.at(0).server.text() == "[2001:db8::1]:3478");
}

TEST_CASE("without records the default port is used; \".\" says that there is no service (RFC 2782)") {
  const Dns dns({{"_turn._udp.none.lan", {{0, 0, 0, ""}}}});
  CHECK(find_servers(turn("turn:plain.lan"), dns.address(), zeros).candidates.at(0).server.text() == "plain.lan:3478");
  const Lookup none = find_servers(turn("turn:none.lan?transport=udp"), dns.address(), zeros);
  CHECK(none.candidates.empty());
  CHECK(none.why.find("no such service") != std::string::npos);
}

TEST_CASE("weights decide within a priority (RFC 2782)") {
  std::vector<SrvRecord> records{{1, 10, 1, "a"}, {1, 30, 2, "b"}, {0, 0, 3, "c"}};
  unsigned b_first = 0;
  for (unsigned i = 0; i < 41; ++i) {  // each number that can be drawn once
    bool first = true;
    const RandomSource dice = [&](MutableBytes out) {
      std::fill(out.begin(), out.end(), std::uint8_t{0});
      if (first && out.size() == 4) first = false;
      out.back() = static_cast<std::uint8_t>(i);
    };
    const auto ordered = in_order(records, dice);
    REQUIRE(ordered.size() == 3);
    CHECK(ordered[0].target == "c");
    b_first += ordered[1].target == "b";
  }
  CHECK(b_first == 30);
}

TEST_CASE("no answer of a DNS server breaks the reader") {
  std::vector<std::uint8_t> question{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0};
  put_name(question, "_turn._udp.a");
  put(question, 33);
  put(question, 1);
  const auto good = answer_of(question, {{1, 2, 3, "b.c"}, {4, 5, 6, "d"}});
  REQUIRE(read_srv(good));
  CHECK(read_srv(good)->at(0).target == "b.c");
  for (std::size_t i = 0; i < good.size(); ++i) {
    read_srv(Bytes(good).first(i));
    for (int byte = 0; byte < 256; byte += 3) {
      auto changed = good;
      changed[i] = static_cast<std::uint8_t>(byte);
      read_srv(changed);
    }
  }
}
