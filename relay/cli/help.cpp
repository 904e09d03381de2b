#include "help.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace radiotower::cli {

namespace {

constexpr std::size_t columns = 100;

/// Breaks the lines of CLI11's lists at blanks. What stands in the left column stays as it is.
class Wrapped : public CLI::Formatter {
 public:
  std::string make_option(const CLI::Option* option, bool is_positional) const override { return wrapped(CLI::Formatter::make_option(option, is_positional)); }
  std::string make_subcommand(const CLI::App* sub) const override { return wrapped(CLI::Formatter::make_subcommand(sub)); }

 private:
  std::string wrapped(std::string_view text) const {
    std::string out;
    while (!text.empty()) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      std::string_view line = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      while (line.size() > columns) {
        const std::size_t at = line.rfind(' ', columns);
        if (at == line.npos || at <= column_width_) break;  // one long word
        out.append(line.substr(0, at)).append(1, '\n');
        rest_ = std::string(column_width_, ' ').append(line.substr(at + 1));
        line = rest_;
      }
      out.append(line).append(1, '\n');
    }
    return out;
  }
  mutable std::string rest_;  // of the line in hand
};

/// How many letters have to be changed, put in or left out.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j)
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0u : 1u)}));
  }
  return row[b.size()];
}

int no_such_command(const CLI::App& app, std::string_view word) {
  std::string near, all;
  std::size_t best = 3;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    const std::string& name = command->get_name();
    all += (all.empty() ? "" : ", ") + name;
    if (const std::size_t d = distance(word, name); d < best) best = d, near = name;
  }
  fmt::print(stderr, "radiotower: there is no command {}{}\ncommands: {}\n(radiotower --help shows what they do)\n", word,
             near.empty() ? "" : fmt::format("; did you mean {}?", near), all);
  return 2;
}

}  // namespace

void wrap_help(CLI::App& app) { app.formatter(std::make_shared<Wrapped>()); }

int parse_failed(const CLI::App& app, const CLI::ParseError& error, const char* first) {
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(error);  // --help, --version
  const CLI::App* command = &app;
  std::string name = app.get_name();
  for (auto below = command->get_subcommands(); !below.empty(); below = command->get_subcommands()) {
    command = below.front();
    name += " " + command->get_name();
  }
  if (command == &app) {
    if (!first || std::string_view(first) == "help") {
      fmt::print(first ? stdout : stderr, "{}", app.help());
      return first ? 0 : 2;
    }
    if (*first != '-') return no_such_command(app, first);
    fmt::print(stderr, "radiotower: say what to do first: radiotower COMMAND, then its flags; {} is no flag of radiotower itself\n(radiotower --help shows the commands)\n", first);
    return 2;
  }
  fmt::print(stderr, "{}: {}\n({} --help shows how it is used)\n", name, error.what(), name);
  return 2;
}

}  // namespace radiotower::cli
