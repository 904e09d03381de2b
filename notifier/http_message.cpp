#include "notifier/http_message.h"

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/status.hpp>
#include <limits>

namespace radiotower::notifier {

namespace http = boost::beast::http;
using boost::beast::error_code;

namespace {

std::string_view standard(boost::beast::string_view text) { return {text.data(), text.size()}; }

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
bool one_of(char c, std::string_view set) { return set.find(c) != std::string_view::npos; }
bool is_token_byte(char c) { return is_letter(c) || is_digit(c) || one_of(c, "!#$%&'*+-.^_`|~"); }  // RFC 9110, 5.6.2
bool is_path_byte(char c) { return is_letter(c) || is_digit(c) || one_of(c, "-._~!$&'()*+,;=:@/"); }  // RFC 3986, 3.3; no "%"
bool is_host_byte(char c) { return is_letter(c) || is_digit(c) || one_of(c, "-._~!$&'()*+,;=:[]%"); }  // RFC 3986, 3.2.2

template <typename Predicate>
bool all(std::string_view text, Predicate predicate) {
  return std::all_of(text.begin(), text.end(), predicate);
}
bool is_token(std::string_view text) { return !text.empty() && all(text, is_token_byte); }

bool same_word(std::string_view a, std::string_view lower_case) {
  return std::equal(a.begin(), a.end(), lower_case.begin(), lower_case.end(), [](char x, char y) { return lower(x) == y; });
}

std::string_view without_outer_blanks(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  return first == std::string_view::npos ? std::string_view() : text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

/// Up to `end`, which is there, and takes both off the front.
std::string_view take(std::string_view& text, std::string_view end) {
  const std::size_t size = text.find(end);
  const std::string_view part = text.substr(0, size);
  text.remove_prefix(size + end.size());
  return part;
}

/// What the scan makes of a head, for Beast to agree with.
struct Framing {
  bool http_1_1 = false;
  bool chunked = false;
  bool has_length = false;
  std::uint64_t length = 0;  // saturated
};

/// RFC 9112, 3: method SP request-target SP HTTP-version.
Refusal scan_request_line(std::string_view line, Framing& framing) {
  if (std::count(line.begin(), line.end(), ' ') != 2 || line.find('\t') != line.npos) return {400, "the request line is not METHOD TARGET VERSION"};
  const std::string_view method = take(line, " "), target = take(line, " ");
  if (!is_token(method)) return {400, "the method is not a token"};
  if (line.size() != 8 || line.substr(0, 5) != "HTTP/" || !is_digit(line[5]) || line[6] != '.' || !is_digit(line[7])) {
    return {400, "the version is not HTTP/n.n"};
  }
  framing.http_1_1 = line == "HTTP/1.1";
  if (!framing.http_1_1 && line != "HTTP/1.0") return {505, "only HTTP/1.1 and HTTP/1.0 are spoken here"};
  if (target.size() > longest_target) return {414, "the target is longer than 2048 bytes"};
  if (target.empty() || target[0] != '/') return {400, "the target is not a path, as in POST /v1/gitlab"};
  const std::size_t question = std::min(target.find('?'), target.size());
  if (!all(target.substr(0, question), is_path_byte)) return {400, "the path holds a byte that a path here may not, such as % or #"};
  if (!all(target.substr(question), [](char c) { return c > ' ' && c < '\x7f' && c != '#'; })) return {400, "the query holds a byte that it may not"};
  static constexpr std::string_view known[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
  if (std::find(std::begin(known), std::end(known), method) == std::end(known)) return {501, "the method is not known here"};
  return {};
}

/// Digits alone. What does not fit becomes the largest number: it is too long in any case.
bool read_length(std::string_view text, std::uint64_t& length) {
  if (text.empty() || !all(text, is_digit)) return false;
  length = 0;
  for (const char c : text) {
    const auto digit = static_cast<std::uint64_t>(c - '0');
    if (length > (std::numeric_limits<std::uint64_t>::max() - digit) / 10) {
      length = std::numeric_limits<std::uint64_t>::max();
      return true;
    }
    length = length * 10 + digit;
  }
  return true;
}

/// RFC 9112, 5 and 6. `fields` ends with the empty line.
Refusal scan_fields(std::string_view fields, Framing& framing) {
  std::size_t count = 0, hosts = 0;
  while (fields.substr(0, 2) != "\r\n") {
    const std::string_view line = take(fields, "\r\n");
    if (++count > most_fields) return {431, "there are more than 100 fields"};
    if (line[0] == ' ' || line[0] == '\t') return {400, "a field goes on over a second line, or a blank stands before it"};
    const std::size_t colon = line.find(':');
    if (colon == line.npos || !is_token(line.substr(0, colon))) return {400, "a field's name is not a token, or a blank stands before its colon"};
    const std::string_view name = line.substr(0, colon), value = without_outer_blanks(line.substr(colon + 1));
    if (same_word(name, "host")) {
      if (++hosts > 1) return {400, "there are two Host fields"};
      if (value.empty() || !all(value, is_host_byte)) return {400, "Host is not a name or address"};
    } else if (same_word(name, "content-length")) {
      if (framing.has_length) return {400, "there are two Content-Length fields"};
      if (!read_length(value, framing.length)) return {400, "Content-Length is not a number"};
      framing.has_length = true;
    } else if (same_word(name, "transfer-encoding")) {
      if (framing.chunked) return {400, "there are two Transfer-Encoding fields"};
      if (!same_word(value, "chunked")) return {400, "Transfer-Encoding is not chunked alone"};
      framing.chunked = true;
    }
  }
  if (framing.chunked && framing.has_length) return {400, "there are both Content-Length and Transfer-Encoding"};
  if (framing.chunked && !framing.http_1_1) return {400, "HTTP/1.0 has no Transfer-Encoding"};
  if (hosts == 0 && framing.http_1_1) return {400, "there is no Host"};
  return {};
}

/// A name or value of an answer is ours, but a line break in it must never begin a second field.
std::string on_one_line(std::string text) {
  std::replace_if(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; }, ' ');
  return text;
}

}  // namespace

std::string_view HttpRequest::header(std::string_view lower_case_name) const {
  for (const auto& [name, value] : headers) {
    if (name == lower_case_name) return value;
  }
  return {};
}

std::size_t HeadSearch::look(std::string_view buffer, Refusal& refusal) {
  const std::size_t end = std::min(buffer.size(), longest_head);
  for (; seen_ < end; ++seen_) {
    const char c = buffer[seen_];
    const bool after_cr = seen_ > 0 && buffer[seen_ - 1] == '\r';
    if (after_cr != (c == '\n')) {
      refusal = {400, "a line ends with something else than CR LF"};
      return 0;
    }
    if (c == '\n') {
      const bool empty = seen_ - line_ == 1;
      line_ = seen_ + 1;
      if (!empty) continue;
      if (seen_ == 1) {
        refusal = {400, "an empty line stands before the request"};
        return 0;
      }
      return ++seen_;
    }
    if ((static_cast<unsigned char>(c) < ' ' && c != '\r' && c != '\t') || c == '\x7f') {
      refusal = {400, "there is a control character in the head, or this is not HTTP at all"};
      return 0;
    }
  }
  if (buffer.size() >= longest_head) {
    refusal = line_ == 0 ? Refusal{414, "the request line is longer than 16 KiB"} : Refusal{431, "the head is longer than 16 KiB"};
  }
  return 0;
}

Refusal ChunkReader::read_digit(char c, std::size_t room) {
  const int digit = is_digit(c) ? c - '0' : lower(c) >= 'a' && lower(c) <= 'f' ? lower(c) - 'a' + 10 : -1;
  if (digit < 0 || ++digits_ > 16) return {400, "the size of a chunk is not a number, or carries an extension"};
  left_ = left_ * 16 + static_cast<std::size_t>(digit);
  if (left_ > room) return {413, "the body is longer than this server takes"};  // long before it could overflow
  next_ = Next::digit;
  return {};
}

Refusal ChunkReader::read(std::string_view bytes, std::size_t& used, std::string& body, std::size_t longest) {
  for (used = 0; used < bytes.size() && !complete();) {
    if (next_ == Next::data) {
      const std::string_view part = bytes.substr(used, left_);
      body += part;
      used += part.size();
      left_ -= part.size();
      if (left_ == 0) next_ = Next::data_cr;
      continue;
    }
    const char c = bytes[used++];
    char expected = '\r';
    Next after = Next::size_lf;
    switch (next_) {
      case Next::digit:
        if (c == '\r') break;
        [[fallthrough]];
      case Next::first_digit:
        if (const Refusal refusal = read_digit(c, longest - body.size())) return refusal;
        continue;
      case Next::size_lf: expected = '\n', after = left_ > 0 ? Next::data : Next::last_cr; break;
      case Next::data_cr: after = Next::data_lf; break;
      case Next::data_lf: expected = '\n', after = Next::first_digit, digits_ = 0; break;
      case Next::last_cr: after = Next::last_lf; break;
      case Next::last_lf: expected = '\n', after = Next::nothing; break;
      case Next::data:
      case Next::nothing: break;  // not here
    }
    if (c != expected) return {400, "the chunks of the body are damaged, or end with trailers"};
    next_ = after;
  }
  return {};
}

/// Beast calls what it finds in a head; an error set here ends the parse. It never sees the body.
class RequestReader::Parser final : public http::basic_parser<true> {
 public:
  explicit Parser(std::size_t longest) : longest_body(longest) {
    header_limit(static_cast<std::uint32_t>(longest_head));
    body_limit(longest);
  }

  const std::size_t longest_body;
  Framing framing;
  HttpRequest request;
  std::size_t expectations = 0;  // Expect fields
  ChunkReader chunks;

 private:
  void on_request_impl(http::verb, boost::beast::string_view method, boost::beast::string_view target, int, error_code&) override {
    request.method = standard(method);
    const std::string_view text = standard(target);
    const std::size_t question = std::min(text.find('?'), text.size());
    request.path = text.substr(0, question);
    request.query = text.substr(std::min(question + 1, text.size()));
  }
  void on_field_impl(http::field field, boost::beast::string_view name, boost::beast::string_view value, error_code&) override {
    if (field == http::field::expect) ++expectations;
    std::string lower_case(standard(name));
    std::transform(lower_case.begin(), lower_case.end(), lower_case.begin(), lower);
    request.headers.emplace_back(std::move(lower_case), standard(value));
  }
  void on_header_impl(error_code&) override {}
  void on_finish_impl(error_code&) override {}
  void on_response_impl(int, boost::beast::string_view, int, error_code& error) override { error = http::error::bad_method; }
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code& error) override { error = http::error::body_limit; }
  std::size_t on_body_impl(boost::beast::string_view, error_code& error) override { return error = http::error::body_limit, 0; }
  void on_chunk_header_impl(std::uint64_t, boost::beast::string_view, error_code& error) override { error = http::error::bad_chunk; }
  std::size_t on_chunk_body_impl(std::uint64_t, boost::beast::string_view, error_code& error) override { return error = http::error::bad_chunk, 0; }
};

RequestReader::RequestReader(std::size_t longest_body) : parser_(std::make_unique<Parser>(longest_body)) {}
RequestReader::~RequestReader() = default;

Refusal RequestReader::read_head(std::string_view head) {
  std::string_view rest = head;
  Framing& framing = parser_->framing;
  if (const Refusal refusal = scan_request_line(take(rest, "\r\n"), framing)) return refusal;
  if (const Refusal refusal = scan_fields(rest, framing)) return refusal;
  if (framing.length > parser_->longest_body) return {413, "the body is longer than this server takes"};

  error_code error;
  const std::size_t used = parser_->put(boost::asio::const_buffer(head.data(), head.size()), error);
  if (error || used != head.size() || !parser_->is_header_done()) return {400, "the head is not HTTP"};  // also a Connection that is no list
  const auto length = parser_->content_length();  // asserts that the head is whole
  if (parser_->chunked() != framing.chunked || length.has_value() != framing.has_length || (length && *length != framing.length)) {
    return {400, "the head can be read in more than one way"};
  }
  if (framing.http_1_1 && parser_->expectations > 0 &&
      (parser_->expectations > 1 || !same_word(parser_->request.header("expect"), "100-continue"))) {
    return {417, "nothing but 100-continue can be expected"};
  }
  return {};
}

Refusal RequestReader::read_body(std::string_view bytes, std::size_t& used) {
  std::string& body = parser_->request.body;
  if (parser_->framing.chunked) return parser_->chunks.read(bytes, used, body, parser_->longest_body);
  const std::string_view part = bytes.substr(0, length() - body.size());
  body += part;  // grows by doubling: what is announced is not yet worth a mebibyte
  used = part.size();
  return {};
}

bool RequestReader::complete() const {
  return parser_->framing.chunked ? parser_->chunks.complete() : parser_->request.body.size() == parser_->framing.length;
}
bool RequestReader::body_follows() const { return parser_->framing.chunked || parser_->framing.length > 0; }
std::size_t RequestReader::length() const { return static_cast<std::size_t>(parser_->framing.length); }
bool RequestReader::expects_continue() const { return parser_->framing.http_1_1 && parser_->expectations > 0 && body_follows(); }
bool RequestReader::keep_alive() const { return parser_->framing.http_1_1 && parser_->keep_alive(); }
HttpRequest& RequestReader::request() { return parser_->request; }

std::string write_answer(const HttpAnswer& answer, bool to_head, bool keep_alive) {
  const bool has_body = answer.status != 204 && answer.status != 304;
  std::string out = "HTTP/1.1 " + std::to_string(answer.status) + ' ';
  out += standard(http::obsolete_reason(static_cast<http::status>(answer.status)));
  if (has_body) {
    out += "\r\nContent-Length: " + std::to_string(answer.body.size());
    if (!answer.body.empty()) out += "\r\nContent-Type: " + on_one_line(answer.content_type);
  }
  for (const auto& [name, value] : answer.headers) out += "\r\n" + on_one_line(name) + ": " + on_one_line(value);
  out += "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff";
  if (!keep_alive) out += "\r\nConnection: close";
  out += "\r\n\r\n";
  if (has_body && !to_head) out += answer.body;
  return out;
}

}  // namespace radiotower::notifier
