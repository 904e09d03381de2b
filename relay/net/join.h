// Text from pieces, for the sentences and spellings of this layer.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

namespace radiotower::net {

inline std::string join(std::initializer_list<std::string_view> pieces) {
  std::string text;
  for (const std::string_view piece : pieces) text += piece;
  return text;
}

}  // namespace radiotower::net
