// toml++ as every service includes it: what it asserts becomes an exception.
#pragma once

// toml++ 3.3 asserts what some malformed keys break. Such a file is a mistake like any other, and must not end a running relay at a reload.
namespace radiotower {
struct TomlAssertion {};
[[noreturn, gnu::noinline]] inline void toml_assertion_failed() { throw TomlAssertion(); }

/// The hint for a file that is not TOML.
inline constexpr const char* toml_in_short = "texts stand in quotes, lists in brackets, sections as [name], and no key or section twice";
}  // namespace radiotower
#define TOML_ASSERT(expression) ((expression) ? static_cast<void>(0) : radiotower::toml_assertion_failed())
#include <toml++/toml.h>
