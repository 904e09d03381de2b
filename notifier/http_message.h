// HTTP/1.1 as bytes: a request read strictly, an answer written. Pure: no socket, no clock.
//
// A head is read twice: by a scan of our own, which refuses whatever two readers might take differently, then by Boost.Beast's parser. Both
// must come to the same framing, or the request is refused. A body is read by us alone: Beast 1.74 asserts, and so ends the process, when the
// bytes "0\r\n\r" of an empty body in chunks arrive before the last "\n" (basic_parser.ipp, parse_chunk_header, n >= 5).
// tests/notifier/http-attacks.tsv shows each rule.
// May not know: sockets, connections, what a request is for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "notifier/http_server.h"

namespace radiotower::notifier {

inline constexpr std::size_t longest_head = 16 * 1024;  // request line, fields and the empty line
inline constexpr std::size_t most_fields = 100;
inline constexpr std::size_t longest_target = 2048;

/// A status to answer with, and why: a sentence of ours without any byte of the request. Status 0: nothing is refused.
struct Refusal {
  unsigned status = 0;
  const char* why = "";
  explicit operator bool() const { return status != 0; }
};

/// Looks for the end of a head that arrives in pieces, at each byte once, and refuses at the first byte that no head may hold: a control
/// character, CR or LF alone, an empty line in front.
class HeadSearch {
 public:
  /// `buffer`: all that came so far, from the request's first byte on. Returns the size of the head with its empty line; 0 while it is
  /// not all there, or when `refusal` is set.
  std::size_t look(std::string_view buffer, Refusal& refusal);

 private:
  std::size_t seen_ = 0, line_ = 0;  // line_: where the current one began
};

/// A body in chunks (RFC 9112, 7.1), without extensions and trailers. A byte is looked at once and never kept but as part of the body.
class ChunkReader {
 public:
  /// Appends to `body`, which is to stay within `longest`; `used`: all of `bytes`, or what comes before the next request.
  Refusal read(std::string_view bytes, std::size_t& used, std::string& body, std::size_t longest);
  bool complete() const { return next_ == Next::nothing; }

 private:
  enum class Next : std::uint8_t { first_digit, digit, size_lf, data, data_cr, data_lf, last_cr, last_lf, nothing };
  Refusal read_digit(char c, std::size_t room);

  Next next_ = Next::first_digit;
  unsigned digits_ = 0;
  std::size_t left_ = 0;  // of the chunk
};

/// One request: its head in one piece, then its body in any pieces.
class RequestReader {
 public:
  explicit RequestReader(std::size_t longest_body);
  ~RequestReader();

  /// `head`: what HeadSearch found.
  Refusal read_head(std::string_view head);
  /// `used`: all of `bytes`, or what comes before the next request.
  Refusal read_body(std::string_view bytes, std::size_t& used);

  bool complete() const;
  bool body_follows() const;      // a body was announced that is not empty
  std::size_t length() const;     // as announced; 0 when chunked
  bool expects_continue() const;  // "Expect: 100-continue" of somebody who waits for it
  bool keep_alive() const;        // HTTP/1.1 without "Connection: close"
  HttpRequest& request();         // whole once complete()

 private:
  class Parser;
  std::unique_ptr<Parser> parser_;
};

/// The bytes of an answer. `to_head`: without the body, whose length is told all the same.
std::string write_answer(const HttpAnswer& answer, bool to_head, bool keep_alive);

}  // namespace radiotower::notifier
