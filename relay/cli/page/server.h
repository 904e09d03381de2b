// The HTTP(S) server of the page: a handful of phones on the LAN, nobody else. It knows two paths, both behind a random token; all else is a 404.
// One thread, that of the io_context. Bounded: connections, one request on each, its size, its time.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

namespace radiotower::cli::page {

struct ServerSettings {
  std::string token;  // of random_token()
  /// The page for whoever asks from `address`, with this nonce at its script and its style. Called for each request, so that each gets fresh credentials.
  std::function<std::string(const std::string& nonce, const std::string& address, const std::string& user_agent)> page;
  /// A posted result: its body, the address it came from and the User-Agent header, both as they came. Returns the HTTP status.
  std::function<unsigned(const std::string& body, const std::string& address, const std::string& user_agent)> result;
  std::string ca_certificate;  // DER, at /TOKEN/ca.crt; empty: there is none
  boost::asio::ssl::context* tls = nullptr;  // nullptr: plain HTTP. Outlives the server

  std::size_t connections = 64, connections_an_address = 16;
  std::size_t header_bytes = 8 * 1024, body_bytes = 8 * 1024;
  std::chrono::seconds request_time{10};
};

/// 80 bits as 16 letters and digits that nobody mixes up: strangers on the LAN must not find the page, since it holds credentials.
std::string random_token();

class Server {
 public:
  /// Listens at once; throws boost::system::system_error when it cannot.
  Server(boost::asio::io_context& io, const boost::asio::ip::tcp::endpoint& at, ServerSettings settings);
  ~Server();  // stops listening; connections end by themselves
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  boost::asio::ip::tcp::endpoint endpoint() const;

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace radiotower::cli::page
