// What radiotower-notifier does beside serving. Each returns the exit status of the process; text goes to stdout,
// mistakes to stderr.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "notifier/settings.h"

namespace radiotower::notifier {

struct PostCommand {
  std::string source, text, title, status, link, project, branch, commit,
      author;  // source: the name in the path, or a format
  std::string duration, number;
  std::vector<std::string> headers;       // "X-GitHub-Event: push"
  std::string url, secret_file, ca_file;  // of a service that runs elsewhere; empty url: the queue of this host
  unsigned wait_s = 30;                   // how long to try while the service cannot be reached or says 503
};
/// 0 stored (or dropped on purpose), 1 refused or not stored, 2 wrong use, 3 the service could not be reached.
int post(const PostCommand& command, const Settings* settings);

/// What would be posted for the event on stdin, where, and by which route.
int preview(const Settings& settings, const std::string& source, const std::string& change,
            const std::vector<std::string>& headers);
/// Posts one test message now, past the queue, and explains what happens.
int send_test(const Settings& settings, const std::string& channel);

/// `program`: how it was called, for the commands that the last line names ("radiotower-notifier --config x.toml").
int dead_list(const Settings& settings, const std::string& program);
int dead_show(const Settings& settings, std::int64_t id);
int dead_retry(const Settings& settings, const std::vector<std::int64_t>& ids, bool all);
int dead_drop(const Settings& settings, const std::vector<std::int64_t>& ids, bool all);

/// For --check: where it listens, what it takes, where it posts.
void describe(const Settings& settings);

}  // namespace radiotower::notifier
