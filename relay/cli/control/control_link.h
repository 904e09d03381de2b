// The connection to a relay's control socket: a request out, JSON lines in (docs/control.md).
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

namespace radiotower::cli {

using Json = nlohmann::ordered_json;

/// RADIOTOWER_SOCKET, or where a relay of the service has it.
std::string default_control_socket();

class ControlLink {
 public:
  ControlLink() = default;
  ~ControlLink();
  ControlLink(const ControlLink&) = delete;
  ControlLink& operator=(const ControlLink&) = delete;

  /// False with a sentence for the operator in `why`.
  bool open(const std::string& path, std::string& why);
  bool ask(const Json& request, std::string& why);
  /// The next line. nullopt with `why`: the relay has hung up, was silent for `patience`, or said no JSON; none with an empty `why`: a signal came.
  std::optional<Json> next(std::string& why, std::chrono::milliseconds patience = std::chrono::seconds(60));
  int descriptor() const { return descriptor_; }
  bool has_line() const { return in_.find('\n') != std::string::npos; }

 private:
  int descriptor_ = -1;
  std::string in_;
};

}  // namespace radiotower::cli
