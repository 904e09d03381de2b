// SQLite as the queue's database: what each pragma is for, and which of its errors mean what.
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>
#include <unordered_map>
#include <utility>

#include "notifier/sql.h"

namespace radiotower::notifier {

namespace {

using Kind = SqlError::Kind;

/// `error`: errno of the system call below, where SQLite knows it. A failed write or fsync names the reason only there.
Kind kind_of(int extended, int error) {
  switch (extended & 0xff) {
    case SQLITE_FULL: return Kind::full;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL: return Kind::busy;
    case SQLITE_IOERR: return error == ENOSPC || error == EDQUOT ? Kind::full : Kind::broken;
    case SQLITE_CANTOPEN:
    case SQLITE_MISUSE:
    case SQLITE_READONLY: return Kind::broken;  // a file system that went read-only after an I/O error
    default: return Kind::other;
  }
}

void sync_folder(const std::string& folder) {
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  fsync(descriptor);  // what it says is judged by the first commit, which syncs the folder again
  close(descriptor);
}

/// An empty file that nobody else may read, in a folder of the same kind. A file that is there is never opened here:
/// closing any descriptor of it would drop the locks that another connection of this process holds on it (POSIX).
void make_file(const std::string& file) {
  const auto refuse = [&](const std::string& what) {
    const int error = errno;
    throw SqlError(error == ENOSPC || error == EDQUOT ? Kind::full : Kind::broken,
                   "cannot make " + what + ": " + std::strerror(error));
  };
  struct stat status{};
  if (stat(file.c_str(), &status) == 0) return;
  const auto folder = std::filesystem::path(file).parent_path().string();
  if (!folder.empty() && mkdir(folder.c_str(), 0700) == 0) {
    sync_folder(std::filesystem::path(folder).parent_path().string());
  } else if (!folder.empty() && errno != EEXIST) {
    refuse("the folder " + folder);
  }
  const int descriptor = open(file.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (descriptor < 0 && errno != EEXIST) refuse(file);
  if (descriptor < 0) return;  // another connection was quicker
  close(descriptor);
  if (!folder.empty()) sync_folder(folder);
}

// On a full disk posts must still get out, and taking one out needs room in the log too. So 8 MiB are kept in a file
// beside the queue; when the disk is full it is removed, the log is written back, and only taking out goes on until it
// can be made again.
constexpr off_t reserve_size = 8 << 20;  // twice the log before it is written back

/// For other connections that hold a lock.
constexpr std::chrono::milliseconds busy_patience{5000};

class Sqlite final : public Sql {
 public:
  explicit Sqlite(std::string file) : file_(std::move(file)), reserve_(file_ + "-reserve") { connect(); }
  ~Sqlite() override { disconnect(); }

  std::vector<Row> run(const char* statement, std::initializer_list<Value> values) override {
    sqlite3_stmt* const prepared = prepare(statement);
    const struct Reset {
      sqlite3_stmt* statement;
      ~Reset() { sqlite3_reset(statement); }
    } reset{prepared};  // also when a row did not fit into memory: one that is not reset takes no values any more
    int number = 0;
    for (const auto& value : values) {
      // "$7" is a name to SQLite, numbered by where it first stands in the text: look it up.
      const int index = sqlite3_bind_parameter_index(prepared, ("$" + std::to_string(++number)).c_str());
      if (index == 0) continue;
      const auto* const text = std::get_if<std::string_view>(&value);
      // A null pointer would bind NULL, and an empty string_view may hold one.
      const int bound = text == nullptr ? sqlite3_bind_int64(prepared, index, std::get<std::int64_t>(value))
                                        : sqlite3_bind_text64(prepared, index, text->empty() ? "" : text->data(),
                                                              text->size(), SQLITE_STATIC, SQLITE_UTF8);
      if (bound != SQLITE_OK) fail("bind");
    }
    std::vector<Row> rows;
    int step = SQLITE_ROW;
    while ((step = sqlite3_step(prepared)) == SQLITE_ROW) rows.push_back(row(prepared));
    if (step == SQLITE_DONE) return rows;
    const auto error = last_error(statement);
    if (error.kind == Kind::full) unlink(reserve_.c_str()), is_full_ = true;
    throw error;
  }

  // The write lock at once: an upgrade in the midst would be refused, not waited for.
  void begin() override { run("BEGIN IMMEDIATE", {}); }
  void commit() override { run("COMMIT", {}); }
  void rollback() noexcept override {
    if (database_ == nullptr) return;
    try {
      if (sqlite3_get_autocommit(database_) == 0) run("ROLLBACK", {});  // else SQLite rolled back by itself
    } catch (...) {  // the next begin() says what is the matter
    }
    // The log begins anew in its own place, if the file has room for it.
    if (std::exchange(is_full_, false))
      sqlite3_wal_checkpoint_v2(database_, nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  }
  void expect_room() override {
    int moved = 0;
    if (database_ != nullptr && sqlite3_file_control(database_, "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK && moved != 0)
      throw SqlError(Kind::other, file_ + " was removed or replaced while it was in use: put it back, or restart");
    struct stat status{};
    if (stat(reserve_.c_str(), &status) == 0) return;
    const int descriptor = open(reserve_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
    const int error = descriptor < 0 ? errno : posix_fallocate(descriptor, 0, reserve_size);
    if (descriptor >= 0) close(descriptor);
    if (error == 0 || error == EEXIST) return;
    unlink(reserve_.c_str());
    // What was taken out makes room within the file.
    if (run("PRAGMA freelist_count", {}).at(0).number(0) * 4096 >= reserve_size) return;
    throw SqlError(error == ENOSPC || error == EDQUOT ? Kind::full : Kind::broken,
                   file_ + ": no room for more posts: " + std::strerror(error));
  }
  void reconnect() override {
    disconnect();
    connect();
  }
  bool skips_locked_rows() const override { return false; }

 private:
  void connect() {
    // Of several that turn a new file over to WAL at once, all but one are refused without any waiting (two readers that both want to write).
    for (const auto patience_ends = std::chrono::steady_clock::now() + busy_patience;;) {
      try {
        return connect_once();
      } catch (const SqlError& error) {
        // A full disk: opening needs room for 32 KiB of shared memory.
        if (error.kind == Kind::full && unlink(reserve_.c_str()) == 0) continue;
        if (error.kind != Kind::busy || std::chrono::steady_clock::now() >= patience_ends) throw;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }

  void connect_once() {
    make_file(file_);
    if (sqlite3_open_v2(file_.c_str(), &database_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                        nullptr) != SQLITE_OK) {
      const auto error = last_error("open");
      disconnect();
      throw error;
    }
    try {
      sqlite3_extended_result_codes(database_, 1);
      sqlite3_busy_timeout(database_, static_cast<int>(busy_patience.count()));
      execute("PRAGMA auto_vacuum=INCREMENTAL");  // of a new file alone: before WAL and before its first table
      execute("PRAGMA journal_mode=WAL");  // readers and the writer don't wait for each other; one fsync a commit
      execute("PRAGMA synchronous=FULL");  // that one: COMMIT returns when the log is on the disk
      // The log keeps so much after a checkpoint: on a full disk posts can still be taken out through what it has.
      execute("PRAGMA journal_size_limit=16777216");
      execute("PRAGMA cache_size=-2048");
      execute("PRAGMA mmap_size=0");  // an I/O error is to be an answer, not SIGBUS
      execute("PRAGMA temp_store=MEMORY");
    } catch (...) {
      disconnect();
      throw;
    }
  }

  void disconnect() noexcept {
    for (const auto& [text, prepared] : prepared_) sqlite3_finalize(prepared);
    prepared_.clear();
    sqlite3_close(database_);
    database_ = nullptr;
  }

  void execute(const char* statement) {
    if (sqlite3_exec(database_, statement, nullptr, nullptr, nullptr) != SQLITE_OK) fail(statement);
  }

  sqlite3_stmt* prepare(const char* statement) {
    if (database_ == nullptr) throw SqlError(Kind::broken, file_ + " is not open");
    if (const auto known = prepared_.find(statement); known != prepared_.end()) return known->second;
    sqlite3_stmt* prepared = nullptr;
    if (sqlite3_prepare_v3(database_, statement, -1, SQLITE_PREPARE_PERSISTENT, &prepared, nullptr) != SQLITE_OK)
      fail(statement);
    prepared_.emplace(statement, prepared);
    return prepared;
  }

  static Row row(sqlite3_stmt* prepared) {
    Row row;
    const int columns = sqlite3_column_count(prepared);
    row.columns.reserve(static_cast<std::size_t>(columns));
    for (int i = 0; i < columns; ++i) {
      if (sqlite3_column_type(prepared, i) == SQLITE_INTEGER) {
        row.columns.emplace_back(static_cast<std::int64_t>(sqlite3_column_int64(prepared, i)));
        continue;
      }
      const auto* const text = reinterpret_cast<const char*>(sqlite3_column_text(prepared, i));
      row.columns.emplace_back(text == nullptr
                                   ? std::string()
                                   : std::string(text, static_cast<std::size_t>(sqlite3_column_bytes(prepared, i))));
    }
    return row;
  }

  SqlError last_error(const char* statement) const {
    const int code = database_ == nullptr ? SQLITE_NOMEM : sqlite3_extended_errcode(database_);
    const int error = database_ == nullptr ? 0 : sqlite3_system_errno(database_);
    std::string what = file_ + ": " + (database_ == nullptr ? "out of memory" : sqlite3_errmsg(database_));
    const Kind kind = kind_of(code, error);
    if ((kind == Kind::broken || kind == Kind::full) && error != 0) what += std::string(": ") + std::strerror(error);
    if (kind == Kind::other) what += std::string(" (in: ") + statement + ")";
    return SqlError(kind, what + " [SQLite " + std::to_string(code) + "]");
  }
  [[noreturn]] void fail(const char* statement) const { throw last_error(statement); }

  const std::string file_, reserve_;
  bool is_full_ = false;
  sqlite3* database_ = nullptr;
  std::unordered_map<std::string, sqlite3_stmt*> prepared_;
};

}  // namespace

std::unique_ptr<Sql> open_sqlite(const std::string& file) { return std::make_unique<Sqlite>(file); }

}  // namespace radiotower::notifier
