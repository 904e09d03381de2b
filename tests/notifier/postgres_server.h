// A PostgreSQL server of the test's own: Debian's binaries, a temporary folder, a Unix socket there and no port. fsync
// is off.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

class PostgresServer {
 public:
  /// nullptr with a sentence in `why` when there is no server installed or it does not start. As root it runs as
  /// "postgres" or nobody. `options`: further ones, as in {"-c", "max_connections=5"}.
  static std::unique_ptr<PostgresServer> start(std::string& why, const std::vector<std::string>& options = {});
  /// The one that all cases of a program share, made with the first call; ended with the program.
  static PostgresServer* shared(std::string& why);
  ~PostgresServer();
  PostgresServer(const PostgresServer&) = delete;

  /// A new, empty database; its URL. Throws std::runtime_error.
  std::string make_database();
  std::string url(const std::string& database) const;
  /// Runs one statement as the superuser in `database`; the first column of the first row.
  std::string run(const std::string& database, const std::string& statement) const;
  /// Ends it at once, as if its host lost power; `resume` starts it on the same folder.
  void kill();
  bool resume(std::string& why);

 private:
  PostgresServer() = default;
  bool make_folder(std::string& why);

  std::string folder_, binaries_;
  std::vector<std::string> options_;
  pid_t server_ = -1;
  uid_t user_ = 0;
  gid_t group_ = 0;
  int databases_ = 0;
};
