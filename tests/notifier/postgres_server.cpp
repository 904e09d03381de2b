#include "postgres_server.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <stdexcept>
#include <thread>

#if RADIOTOWER_HAVE_POSTGRESQL
#include <libpq-fe.h>
#endif

namespace {

#if RADIOTOWER_HAVE_POSTGRESQL
/// The newest of /usr/lib/postgresql/VERSION/bin; empty: none.
std::string find_binaries() {
  std::error_code error;
  std::string newest;
  int version = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/usr/lib/postgresql", error)) {
    const int found = std::atoi(entry.path().filename().c_str());
    const auto folder = entry.path() / "bin";
    if (found > version && access((folder / "initdb").c_str(), X_OK) == 0 &&
        access((folder / "postgres").c_str(), X_OK) == 0) {
      version = found;
      newest = folder;
    }
  }
  return newest;
}

/// As another user, in `folder`, silent: what it says goes to folder/log. It ends when this program does.
pid_t spawn(const std::vector<std::string>& command, const std::string& folder, uid_t user, gid_t group) {
  std::vector<char*> arguments;
  for (const auto& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const auto log = folder + "/log";
  const bool change_user = geteuid() == 0;
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child != 0) return child;
  if (change_user && (setgroups(0, nullptr) != 0 || setgid(group) != 0 || setuid(user) != 0)) _exit(126);
  prctl(PR_SET_PDEATHSIG, SIGQUIT);  // after setuid(), which clears it
  if (getppid() != parent) _exit(126);
  const int out = open(log.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
  if (out >= 0) dup2(out, 1), dup2(out, 2);
  if (chdir(folder.c_str()) != 0) _exit(126);
  unsetenv("LD_PRELOAD");
  execv(arguments[0], arguments.data());
  _exit(127);
}
#endif

}  // namespace

#if RADIOTOWER_HAVE_POSTGRESQL
std::unique_ptr<PostgresServer> PostgresServer::start(std::string& why, const std::vector<std::string>& options) {
  std::unique_ptr<PostgresServer> server(new PostgresServer);
  server->binaries_ = find_binaries();
  server->options_ = options;
  if (server->binaries_.empty()) {
    why = "no PostgreSQL server is installed";
    return nullptr;
  }
  if (!server->make_folder(why) || !server->resume(why)) return nullptr;
  return server;
}

bool PostgresServer::make_folder(std::string& why) {
  const auto* user = getpwnam("postgres");
  if (user == nullptr) user = getpwnam("nobody");
  if (user != nullptr) user_ = user->pw_uid, group_ = user->pw_gid;
  folder_ = (std::filesystem::temp_directory_path() / "radiotower-postgres.XXXXXX").string();
  if (mkdtemp(folder_.data()) == nullptr ||
      (geteuid() == 0 && (user == nullptr || chown(folder_.c_str(), user_, group_) != 0))) {
    why = "no folder for a PostgreSQL server";
    return false;
  }
  const pid_t child = spawn({binaries_ + "/initdb", "-D", folder_ + "/data", "-U", "postgres", "-A", "trust", "-E",
                             "UTF8", "--locale=C", "-N"},
                            folder_, user_, group_);
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
    why = "initdb did not succeed";
    return false;
  }
  return true;
}

bool PostgresServer::resume(std::string& why) {
  std::vector<std::string> command = {binaries_ + "/postgres",
                                      "-D",
                                      folder_ + "/data",
                                      "-k",
                                      folder_,
                                      "-c",
                                      "listen_addresses=",
                                      "-c",
                                      "fsync=off",
                                      "-c",
                                      "shared_buffers=16MB"};
  command.insert(command.end(), options_.begin(), options_.end());
  server_ = spawn(command, folder_, user_, group_);
  for (int i = 0; i < 1200; ++i) {
    if (PQping(url("postgres").c_str()) == PQPING_OK) return true;
    if (server_ <= 0 || waitpid(server_, nullptr, WNOHANG) == server_) {
      server_ = -1;
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  why = "the PostgreSQL server did not start";
  return false;
}

void PostgresServer::kill() {
  if (server_ <= 0) return;
  ::kill(server_, SIGQUIT);  // its children with it, no checkpoint
  waitpid(server_, nullptr, 0);
  server_ = -1;
}

PostgresServer::~PostgresServer() {
  kill();
  std::error_code error;
  if (!folder_.empty()) std::filesystem::remove_all(folder_, error);
}

std::string PostgresServer::run(const std::string& database, const std::string& statement) const {
  const std::unique_ptr<PGconn, void (*)(PGconn*)> connection(PQconnectdb(url(database).c_str()), PQfinish);
  const std::unique_ptr<PGresult, void (*)(PGresult*)> result(PQexec(connection.get(), statement.c_str()), PQclear);
  const auto status = PQresultStatus(result.get());
  if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
    throw std::runtime_error(PQerrorMessage(connection.get()));
  return PQntuples(result.get()) > 0 ? PQgetvalue(result.get(), 0, 0) : "";
}
#else
std::unique_ptr<PostgresServer> PostgresServer::start(std::string& why, const std::vector<std::string>&) {
  why = "built without libpq";
  return nullptr;
}
bool PostgresServer::make_folder(std::string&) { return false; }
bool PostgresServer::resume(std::string&) { return false; }
void PostgresServer::kill() {}
PostgresServer::~PostgresServer() = default;
std::string PostgresServer::run(const std::string&, const std::string&) const { return {}; }
#endif

PostgresServer* PostgresServer::shared(std::string& why) {
  static std::string reason;
  static const auto server = start(reason);
  why = reason;
  return server.get();
}

std::string PostgresServer::url(const std::string& database) const {
  return "postgresql://postgres@/" + database + "?host=" + folder_;
}

std::string PostgresServer::make_database() {
  const auto name = "queue_" + std::to_string(++databases_);
  run("postgres", "CREATE DATABASE " + name);
  return url(name);
}
