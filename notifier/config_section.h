// One table of the configuration file: typed reading, each mistake with its line, its key and a hint. For config.cpp
// alone.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "radiotower/service/configuration.h"
#include "radiotower/service/toml.h"

namespace radiotower::notifier {

/// One table of the file. Remembers which of its keys somebody asked for, so that the others can be called unknown.
class Section {
 public:
  Section(const toml::table& table, std::string name, const std::string& path, ConfigErrors& errors)
      : table_(table), name_(std::move(name)), path_(path), errors_(errors) {}

  const toml::node* find(std::string_view key) {
    known_.emplace(key);
    return table_.get(key);
  }
  bool wrong(const toml::node& node, std::string_view key, std::string what, std::string hint) const {
    errors_.push_back({where(node), full(key), std::move(what), std::move(hint)});
    return false;
  }
  bool wrong(std::string_view key, std::string what, std::string hint) const {
    const toml::node* node = table_.get(key);
    return wrong(node ? *node : static_cast<const toml::node&>(table_), key, std::move(what), std::move(hint));
  }
  bool has(std::string_view key) const { return table_.contains(key); }

  bool text(std::string_view key, std::string& out) {
    const toml::node* node = find(key);
    if (!node) return false;
    if (!node->is_string()) return wrong(*node, key, "must be a text", fmt::format("{} = \"...\", in quotes", key));
    if (node->as_string()->get().find('\0') != std::string::npos)
      return wrong(*node, key, "holds a NUL character", "plain text");
    out = node->as_string()->get();
    return true;
  }
  bool boolean(std::string_view key, bool& out) {
    const toml::node* node = find(key);
    if (!node) return false;
    if (!node->is_boolean())
      return wrong(*node, key, "must be true or false", fmt::format("{} = true, without quotes", key));
    out = node->as_boolean()->get();
    return true;
  }
  /// `meaning`: what the key says, for a value that is out of range.
  template <typename Number>
  bool number(std::string_view key, Number& out, std::int64_t smallest, std::int64_t largest,
              std::string_view meaning) {
    const toml::node* node = find(key);
    if (!node) return false;
    if (!node->is_integer())
      return wrong(*node, key, "must be a whole number", fmt::format("{} = 10, without quotes", key));
    const std::int64_t value = node->as_integer()->get();
    if (value < smallest || value > largest)
      return wrong(*node, key, fmt::format("{} is out of range {}-{}", value, smallest, largest),
                   fmt::format("it is {}", meaning));
    out = static_cast<Number>(value);
    return true;
  }
  /// A list of texts; where `single_too`, one text is a list of one.
  bool list(std::string_view key, std::vector<std::string>& out, bool single_too) {
    const toml::node* node = find(key);
    if (!node) return false;
    std::vector<std::string> values;
    if (node->is_string() && single_too) {
      values.push_back(node->as_string()->get());
    } else if (node->is_array()) {
      for (const toml::node& element : *node->as_array()) {
        if (!element.is_string())
          return wrong(element, key, "must be a list of texts", fmt::format("{} = [\"...\", \"...\"]", key));
        values.push_back(element.as_string()->get());
      }
    } else {
      return wrong(*node, key, "must be a list of texts", fmt::format("{} = [\"...\", \"...\"]", key));
    }
    if (values.empty()) return wrong(*node, key, "the list is empty", "leave the key out for all");
    if (values.size() > 1000)
      return wrong(*node, key, "more than 1000 entries", "globs such as \"group/*\" say it in fewer");
    out = std::move(values);
    return true;
  }
  template <typename Function>
  void section(std::string_view key, Function&& read) {
    const toml::node* node = find(key);
    if (!node) return;
    if (!node->is_table()) {
      wrong(*node, key, "is a section", fmt::format("[{}]", full(key)));
      return;
    }
    Section inner(*node->as_table(), full(key), path_, errors_);
    read(inner);
    inner.finish();
  }
  template <typename Function>
  void each(Function&& read) {  // every key, known before or not
    for (const auto& [key, node] : table_) {
      known_.emplace(key.str());
      read(std::string(key.str()), node);
    }
  }
  /// Complains about the keys that nobody asked for.
  void finish() {
    for (const auto& [key, node] : table_) {
      if (known_.contains(key.str())) continue;
      const std::string_view written = key.str().substr(0, 64);
      std::string_view best;
      std::size_t nearest = std::min<std::size_t>(4, written.size() / 2 + 1);
      for (const auto& candidate : known_) {
        const bool begun = written.size() >= 4 && candidate.starts_with(written);  // secrets: secrets_file
        if (const std::size_t d = begun ? 0 : edit_distance(written, candidate); d < nearest)
          best = candidate, nearest = d;
      }
      wrong(node, key.str(), "unknown key",
            best.empty() ? "docs/notifier.md lists the keys" : fmt::format("did you mean {}?", best));
    }
  }
  std::string full(std::string_view key) const {
    return name_.empty() ? std::string(key) : fmt::format("{}.{}", name_, key);
  }
  std::string where(const toml::node& node) const { return fmt::format("{}:{}", path_, node.source().begin.line); }
  std::string place() const { return where(table_); }
  const std::string& path() const { return path_; }
  ConfigErrors& errors() const { return errors_; }

 private:
  const toml::table& table_;
  std::string name_;
  const std::string& path_;
  ConfigErrors& errors_;
  std::set<std::string, std::less<>> known_;
};

}  // namespace radiotower::notifier
