// PostgreSQL as the queue's database, through libpq: for a notifier on more than one host. A pooler between that hands
// out another session for each transaction does not keep prepared statements: connect to the server itself.
#include "notifier/sql.h"

#if RADIOTOWER_HAVE_POSTGRESQL
#include <libpq-fe.h>

#include <charconv>
#include <cstring>
#include <unordered_map>
#include <utility>

namespace radiotower::notifier {

namespace {

using Kind = SqlError::Kind;
using Result = std::unique_ptr<PGresult, void (*)(PGresult*)>;

Kind kind_of(std::string_view state, const PGconn* connection) {
  if (state.empty()) return Kind::broken;  // libpq's own error: the connection, even where PQstatus() does not know yet
  // Serialisation, deadlock, lock timeout.
  if (state == "40001" || state == "40P01" || state == "55P03") return Kind::busy;
  if (state == "53100") return Kind::full;
  if (state.starts_with("08") || state == "57P01" || state == "57P02" || state == "57P03" || state == "25P03" ||
      state == "26000")  // the last: a prepared statement that is gone
    return Kind::broken;
  if (state == "25006") return Kind::broken;  // read-only: a standby, or what was the primary until now
  return PQstatus(connection) == CONNECTION_BAD ? Kind::broken : Kind::other;
}

/// The server's sentence in one line, without secrets.
std::string one_line(std::string_view message, const std::vector<std::string>& secrets) {
  std::string line(message);
  for (const auto& secret : secrets) {
    for (auto at = line.find(secret); at != std::string::npos; at = line.find(secret, at + 3))
      line.replace(at, secret.size(), "***");
  }
  for (auto& c : line) {
    if (c == '\n' || c == '\t') c = ' ';
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

class Postgresql final : public Sql {
 public:
  explicit Postgresql(const std::string& url) : url_(url) {
    find_secrets();
    connect();
  }
  ~Postgresql() override { PQfinish(connection_); }

  std::vector<Row> run(const char* statement, std::initializer_list<Value> values) override {
    const auto& name = prepare(statement);
    std::vector<std::string> numbers(values.size());  // terminated texts of their own, which libpq needs
    std::vector<const char*> texts(values.size());
    std::size_t i = 0;
    for (const auto& value : values) {
      const auto* const text = std::get_if<std::string_view>(&value);
      numbers[i] = text != nullptr ? std::string(*text) : std::to_string(std::get<std::int64_t>(value));
      texts[i] = numbers[i].c_str();
      ++i;
    }
    const Result result(
        PQexecPrepared(connection_, name.c_str(), static_cast<int>(values.size()), texts.data(), nullptr, nullptr, 0),
        PQclear);
    check(result.get());
    return rows(result.get());
  }

  void begin() override { execute("BEGIN"); }
  void commit() override {
    const Result result(PQexec(connection_, "COMMIT"), PQclear);
    check(result.get());
    // After an error within, COMMIT succeeds and rolls back.
    if (std::strcmp(PQcmdStatus(result.get()), "COMMIT") != 0)
      throw SqlError(Kind::other, "PostgreSQL rolled back instead of a commit");
  }
  void rollback() noexcept override {
    if (connection_ != nullptr && PQtransactionStatus(connection_) != PQTRANS_IDLE)
      PQclear(PQexec(connection_, "ROLLBACK"));
  }
  void reconnect() override { connect(); }
  bool skips_locked_rows() const override { return true; }

 private:
  /// What may stand in no text. A URL that libpq does not understand is a secret as a whole, and so is what libpq says
  /// about it.
  void find_secrets() {
    char* message = nullptr;
    const std::unique_ptr<PQconninfoOption, void (*)(PQconninfoOption*)> options(
        PQconninfoParse(url_.c_str(), &message), PQconninfoFree);
    PQfreemem(message);
    if (!options)
      throw SqlError(Kind::other,
                     "the queue's URL is not one of PostgreSQL: postgresql://user:password@host:5432/database");
    for (const auto* option = options.get(); option->keyword != nullptr; ++option) {
      const bool secret = std::strstr(option->keyword, "password") != nullptr;
      if (secret && option->val != nullptr && *option->val != '\0') secrets_.emplace_back(option->val);
    }
  }

  void connect() {
    PQfinish(connection_);
    prepared_.clear();
    // What stands before dbname are defaults, which the URL may change; what stands after it holds.
    const std::pair<const char*, const char*> options[] = {
        {"connect_timeout", "10"},     {"keepalives", "1"},
        {"keepalives_idle", "30"},     {"keepalives_interval", "10"},
        {"keepalives_count", "3"},     {"tcp_user_timeout", "30000"},
        {"application_name", "radiotower-notifier"},
        {"dbname", url_.c_str()},      {"client_encoding", "UTF8"},
    };
    std::vector<const char*> keys, values;
    for (const auto& [key, value] : options) keys.push_back(key), values.push_back(value);
    keys.push_back(nullptr), values.push_back(nullptr);
    connection_ = PQconnectdbParams(keys.data(), values.data(), 1);
    if (PQstatus(connection_) != CONNECTION_OK) {
      const auto why =
          connection_ == nullptr ? std::string("out of memory") : one_line(PQerrorMessage(connection_), secrets_);
      PQfinish(connection_);
      connection_ = nullptr;
      throw SqlError(Kind::broken, "PostgreSQL: " + why);
    }
    PQsetNoticeReceiver(connection_, [](void*, const PGresult*) {}, nullptr);
    execute("SET synchronous_commit = on");  // COMMIT returns when it is on the disk, whatever the server's default
    execute("SET statement_timeout = '30s'");
    execute("SET idle_in_transaction_session_timeout = '60s'");
    execute("SET default_transaction_isolation = 'read committed'");  // the statements lock what they depend on
    // Our own schema where it is there and may be used, else what the role has; a schema that is missing is passed
    // over.
    execute("SET search_path = radiotower_notifier, \"$user\", public");
  }

  void execute(const char* statement) {
    const Result result(PQexec(connection_, statement), PQclear);
    check(result.get());
  }

  const std::string& prepare(const char* statement) {
    if (connection_ == nullptr) throw SqlError(Kind::broken, "PostgreSQL is not connected");
    const auto known = prepared_.find(statement);
    if (known != prepared_.end()) return known->second;
    const auto name = "s" + std::to_string(prepared_.size());
    const Result result(PQprepare(connection_, name.c_str(), statement, 0, nullptr), PQclear);
    check(result.get());
    return prepared_.emplace(statement, name).first->second;
  }

  void check(const PGresult* result) const {
    if (connection_ == nullptr) throw SqlError(Kind::broken, "PostgreSQL is not connected");
    const auto status = PQresultStatus(result);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) return;
    const char* const state = result == nullptr ? nullptr : PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char* const primary = result == nullptr ? nullptr : PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    // The primary sentence alone: details quote the row.
    const auto message = one_line(primary != nullptr ? primary : PQerrorMessage(connection_), secrets_);
    throw SqlError(kind_of(state == nullptr ? "" : state, connection_),
                   "PostgreSQL: " + message + (state == nullptr ? "" : std::string(" [") + state + "]"));
  }

  static std::vector<Row> rows(const PGresult* result) {
    std::vector<Row> rows(static_cast<std::size_t>(PQntuples(result)));
    const int columns = PQnfields(result);
    for (int i = 0; i < static_cast<int>(rows.size()); ++i) {
      auto& row = rows[static_cast<std::size_t>(i)].columns;
      row.reserve(static_cast<std::size_t>(columns));
      for (int column = 0; column < columns; ++column) {
        constexpr Oid int8 = 20, int2 = 21, int4 = 23;
        const Oid type = PQftype(result, column);
        const std::string_view text(PQgetvalue(result, i, column),
                                    static_cast<std::size_t>(PQgetlength(result, i, column)));
        std::int64_t number = 0;
        if ((type == int8 || type == int4 || type == int2) &&
            std::from_chars(text.data(), text.data() + text.size(), number).ec == std::errc()) {
          row.emplace_back(number);
        } else {
          row.emplace_back(std::string(text));
        }
      }
    }
    return rows;
  }

  const std::string url_;
  std::vector<std::string> secrets_;
  PGconn* connection_ = nullptr;
  std::unordered_map<std::string, std::string> prepared_;
};

}  // namespace

bool postgresql_compiled_in() { return true; }
std::unique_ptr<Sql> open_postgresql(const std::string& url) { return std::make_unique<Postgresql>(url); }

}  // namespace radiotower::notifier

#else

namespace radiotower::notifier {

bool postgresql_compiled_in() { return false; }
std::unique_ptr<Sql> open_postgresql(const std::string&) {
  throw std::runtime_error("this radiotower-notifier was built without PostgreSQL (libpq): set queue = \"sqlite\"");
}

}  // namespace radiotower::notifier

#endif
