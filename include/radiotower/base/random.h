// Where unpredictable bytes come from. The core is handed a source by constructor; programs hand in `system_random`,
// tests a seeded one.
#pragma once

#include <cstdint>
#include <functional>

#include "radiotower/base/bytes.h"

namespace radiotower {

/// Fills the span with random bytes. Must not fail.
using RandomSource = std::function<void(MutableBytes)>;

/// getrandom(2), buffered in pages and wiped as used; ends the process when the kernel has no randomness to give.
/// The returned source is for one thread.
RandomSource system_random();

/// A uniform number in [0, bound). `bound` > 0. No modulo bias.
std::uint32_t random_below(const RandomSource& random, std::uint32_t bound);

}  // namespace radiotower
