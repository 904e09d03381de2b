#include "database.h"

#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>

namespace radiotower::cli {

namespace {

constexpr std::size_t most_rows = 1'000'000;  // of a table: a bound for a file that lies

struct Closer {
  void operator()(sqlite3* db) const { sqlite3_close(db); }
};
struct Finalizer {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};

class Reader {
 public:
  explicit Reader(sqlite3* db) : db_(db) {}

  bool has(const std::string& table) {
    bool found = false;
    rows(fmt::format("select count(*) from sqlite_master where type='table' and name='{}'", table), [&] { found = number(0) != 0; });
    return found;
  }

  /// Calls `row` for each row; nothing happens once something has gone wrong.
  void rows(const std::string& query, const std::function<void()>& row) {
    if (!why.empty()) return;
    sqlite3_stmt* raw = nullptr;
    if (sqlite3_prepare_v2(db_, query.c_str(), -1, &raw, nullptr) != SQLITE_OK) return wrong();
    const std::unique_ptr<sqlite3_stmt, Finalizer> statement(raw);
    statement_ = raw;
    for (std::size_t n = 0;; ++n) {
      const int step = sqlite3_step(raw);
      if (step == SQLITE_DONE) return;
      if (step != SQLITE_ROW) return wrong();
      if (n == most_rows) {
        why = fmt::format("a table has more than {} rows", most_rows);
        return;
      }
      row();
    }
  }
  /// The same for a table that may be missing.
  void table(const std::string& name, const std::string& columns, const std::function<void()>& row) {
    if (!has(name)) return;
    any = true;
    rows(fmt::format("select {} from {}", columns, name), row);
  }
  std::string text(int column) {
    const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    const int size = sqlite3_column_bytes(statement_, column);
    return bytes ? std::string(bytes, static_cast<std::size_t>(size)) : std::string();
  }
  std::int64_t number(int column) { return sqlite3_column_int64(statement_, column); }

  std::string why;
  bool any = false;

 private:
  void wrong() { why = sqlite3_errmsg(db_); }
  sqlite3* db_;
  sqlite3_stmt* statement_ = nullptr;
};

}  // namespace

bool read_coturn_database(const std::string& path, CoturnDatabase& out, std::string& why) {
  struct stat status {};
  // SQLite's own words for these are "unable to open database file".
  if (stat(path.c_str(), &status) != 0 || access(path.c_str(), R_OK) != 0) {
    why = fmt::format("{}: {}", path, std::strerror(errno));
    return false;
  }
  if (!S_ISREG(status.st_mode)) {
    why = fmt::format("{}: is no file", path);
    return false;
  }
  if (status.st_size == 0) {
    why = fmt::format("{}: is empty", path);
    return false;
  }
  sqlite3* raw = nullptr;
  const int opened = sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READONLY, nullptr);
  const std::unique_ptr<sqlite3, Closer> db(raw);
  if (opened != SQLITE_OK) {
    why = fmt::format("{}: {}", path, raw ? sqlite3_errmsg(raw) : "cannot be opened");
    return false;
  }
  sqlite3_busy_timeout(raw, 2000);  // turnserver may be writing
  Reader reader(raw);
  reader.table("turnusers_lt", "realm, name, hmackey", [&] { out.users.push_back({reader.text(0), reader.text(1), reader.text(2)}); });
  reader.table("turn_secret", "realm, value", [&] { out.secrets.push_back({reader.text(0), reader.text(1)}); });
  reader.table("allowed_peer_ip", "realm, ip_range", [&] { out.allowed.push_back({reader.text(0), reader.text(1)}); });
  reader.table("denied_peer_ip", "realm, ip_range", [&] { out.denied.push_back({reader.text(0), reader.text(1)}); });
  reader.table("turn_origin_to_realm", "realm, origin", [&] { out.origins.push_back({reader.text(0), reader.text(1)}); });
  reader.table("turn_realm_option", "realm, opt, value", [&] { out.realm_options[reader.text(0)][reader.text(1)] = reader.number(2); });
  reader.table("oauth_key", "kid, ikm_key, as_rs_alg, realm, timestamp, lifetime", [&] {
    out.oauth_keys.push_back({reader.text(0), reader.text(1), reader.text(2), reader.text(3), reader.number(4), reader.number(5)});
  });
  reader.table("admin_user", "name", [&] { ++out.admins; });
  if (reader.why.empty() && !reader.any) reader.why = "holds none of coturn's tables (turnusers_lt, turn_secret ...)";
  if (reader.why.empty()) return true;
  why = fmt::format("{}: {}", path, reader.why);
  return false;
}

}  // namespace radiotower::cli
