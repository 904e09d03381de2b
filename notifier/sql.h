// A database as the queue needs it: one connection, one transaction at a time, the same SQL for SQLite and PostgreSQL.
//
// Statements use $1, $2 ... and only what both understand (RETURNING, ON CONFLICT). Values are 64-bit integers and UTF-8 texts. A statement
// is prepared once and kept. One thread. Owns the connection.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace radiotower::notifier {

struct SqlError : std::runtime_error {
  enum class Kind : std::uint8_t {
    full,       // the disk is full
    busy,       // another one holds it, or PostgreSQL refused to serialise: the whole transaction may be tried again
    broken,     // I/O error, lost connection: reconnect() before anything else
    other,      // our own mistake, a damaged file
  };
  SqlError(Kind k, const std::string& what) : std::runtime_error(what), kind(k) {}
  Kind kind;
};

using Value = std::variant<std::int64_t, std::string_view>;  // the text lives as long as the call
struct Row {
  std::vector<std::variant<std::int64_t, std::string>> columns;  // NULL arrives as an empty text
  std::int64_t number(std::size_t i) const { return std::get<std::int64_t>(columns.at(i)); }
  const std::string& text(std::size_t i) const { return std::get<std::string>(columns.at(i)); }
};

class Sql {
 public:
  virtual ~Sql() = default;
  virtual std::vector<Row> run(const char* statement, std::initializer_list<Value> values = {}) = 0;  // `statement`: a literal, the key of the kept one
  virtual void begin() = 0;
  virtual void commit() = 0;    // returned: on disk. Thrown: not committed as far as anyone can tell; roll back, and tell senders 503
  virtual void rollback() = 0;  // never throws
  virtual void reconnect() = 0; // closes and opens anew; throws SqlError when that fails
  /// Before something is added: throws `full` when there would be no room left to take things out again.
  virtual void expect_room() {}
  virtual bool skips_locked_rows() const = 0;  // PostgreSQL: "FOR UPDATE SKIP LOCKED" is understood
};

/// WAL, synchronous=FULL, a busy timeout of 5 s, foreign to no one: the file is 0600 in a folder made 0700. Throws SqlError.
std::unique_ptr<Sql> open_sqlite(const std::string& file);
/// postgresql://... Throws SqlError; `std::runtime_error` with a sentence when the program was built without libpq.
std::unique_ptr<Sql> open_postgresql(const std::string& url);
bool postgresql_compiled_in();

/// By the `queue` and `state` of the settings; makes or updates the tables. Throws SqlError.
std::unique_ptr<Sql> open_queue_database(const std::string& queue, const std::string& state);

}  // namespace radiotower::notifier
