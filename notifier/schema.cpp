// The tables, for both databases, and how an older set of them becomes this one. What the columns
// mean: DESIGN.md, "The queue".
#include "notifier/sql.h"

namespace radiotower::notifier {

namespace {

constexpr std::int64_t newest_version = 1;

// All that notifiers of PostgreSQL have in common while one of them makes the tables.
constexpr auto only_one_migrates = "SELECT pg_advisory_xact_lock(7020108931604)";

const char* const version_1[] = {
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
    "CREATE TABLE lane (channel TEXT PRIMARY KEY, owner TEXT NOT NULL DEFAULT '', "
    " lease_until BIGINT NOT NULL DEFAULT 0, not_before BIGINT NOT NULL DEFAULT 0)",
    // A lane in its order, without a look at what is held back; how much of it is due, or when the first is.
    "CREATE INDEX post_order ON post (channel, state, id, not_before)",
    "CREATE INDEX post_due ON post (channel, state, not_before)",
    // Counts and the oldest of a state, without the rows themselves.
    "CREATE INDEX post_state ON post (state, made)",
    "CREATE TABLE seen (key TEXT PRIMARY KEY, at BIGINT NOT NULL)",
    "CREATE INDEX seen_at ON seen (at)",
    "CREATE TABLE history (key TEXT PRIMARY KEY, status BIGINT NOT NULL, streak BIGINT NOT NULL,"
    " since BIGINT NOT NULL, at BIGINT NOT NULL)",
    "CREATE INDEX history_at ON history (at)",
    "CREATE TABLE thread (channel TEXT NOT NULL, subject TEXT NOT NULL, post_id TEXT NOT NULL, "
    " channel_id TEXT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (channel, subject))",
    "CREATE INDEX thread_at ON thread (at)",
    "CREATE TABLE counter (name TEXT PRIMARY KEY, n BIGINT NOT NULL)",
    "INSERT INTO meta (name, value) VALUES ('version', 1)",
};

// An id is never used twice, also after the newest row is gone: delivered() of a row that went must not meet another.
constexpr auto post_columns_sqlite =
    "CREATE TABLE post (id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, state BIGINT NOT NULL DEFAULT 0,"
    " attempts BIGINT NOT NULL DEFAULT 0,"
    " ambiguous BIGINT NOT NULL DEFAULT 0, not_before BIGINT NOT NULL,"
    " made BIGINT NOT NULL, died BIGINT NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '', json TEXT NOT NULL)";
constexpr auto post_columns_postgresql =
    "CREATE TABLE post (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
    " channel TEXT NOT NULL, state BIGINT NOT NULL DEFAULT 0, attempts BIGINT NOT NULL DEFAULT 0,"
    " ambiguous BIGINT NOT NULL DEFAULT 0, not_before BIGINT NOT NULL,"
    " made BIGINT NOT NULL, died BIGINT NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '', json TEXT NOT NULL)";

/// 0: there are none.
std::int64_t version_of(Sql& sql) {
  const char* const is_there =
      sql.skips_locked_rows()
          ? "SELECT COUNT(*) FROM pg_catalog.pg_tables WHERE schemaname = current_schema() AND tablename = 'meta'"
          : "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'meta'";
  if (sql.run(is_there).at(0).number(0) == 0) return 0;
  const auto rows = sql.run("SELECT value FROM meta WHERE name = 'version'");
  return rows.empty() ? 0 : rows[0].number(0);
}

/// A schema of our own where we may make one; else the tables stand in the first schema of the role's search_path.
void make_schema(Sql& sql) {
  const auto known = sql.run("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = 'radiotower_notifier'");
  const auto may_make = sql.run("SELECT 1 WHERE has_database_privilege(current_database(), 'CREATE')");
  if (known.empty() && !may_make.empty()) sql.run("CREATE SCHEMA radiotower_notifier");
}

void migrate(Sql& sql) {
  // Without taking a lock: the command line opens a queue that is in use.
  if (version_of(sql) == newest_version) return;
  sql.begin();
  try {
    if (sql.skips_locked_rows()) sql.run(only_one_migrates);
    const auto found = version_of(sql);
    if (found > newest_version) {
      throw SqlError(SqlError::Kind::other,
                     "the queue was made by a newer radiotower-notifier (its tables are version " +
                         std::to_string(found) + ", this program knows " + std::to_string(newest_version) +
                         "): install that version again, or start with an empty queue");
    }
    if (found == 0) {
      if (sql.skips_locked_rows()) make_schema(sql);
      sql.run(sql.skips_locked_rows() ? post_columns_postgresql : post_columns_sqlite);
      for (const char* const statement : version_1) sql.run(statement);
    }
    sql.commit();
  } catch (...) {
    sql.rollback();
    throw;
  }
}

}  // namespace

std::unique_ptr<Sql> open_queue_database(const std::string& queue, const std::string& state) {
  auto sql = queue == "sqlite" ? open_sqlite(state + "/queue.sqlite") : open_postgresql(queue);
  migrate(*sql);
  return sql;
}

}  // namespace radiotower::notifier
