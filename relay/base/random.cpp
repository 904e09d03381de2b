#include "radiotower/base/random.h"

#include <sys/random.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <utility>

namespace radiotower {

RandomSource system_random() {
  struct Pool {
    std::array<std::uint8_t, 512> bytes{};
    std::size_t used = 512;
    void refill() {
      std::size_t have = 0;
      while (have < bytes.size()) {
        const ssize_t n = getrandom(bytes.data() + have, bytes.size() - have, 0);
        if (n > 0) have += static_cast<std::size_t>(n);
        else if (errno != EINTR) std::abort();  // no randomness: every promise about nonces and ports would be void
      }
      used = 0;
    }
  };
  return [pool = std::make_shared<Pool>()](MutableBytes out) {
    for (auto& byte : out) {
      if (pool->used == pool->bytes.size()) pool->refill();
      byte = std::exchange(pool->bytes[pool->used++], 0);  // handed out once, never kept
    }
  };
}

std::uint32_t random_below(const RandomSource& random, std::uint32_t bound) {
  // Rejection: numbers below 2^32 mod bound would make the low results likelier.
  const std::uint32_t threshold = (0u - bound) % bound;
  for (;;) {
    std::uint32_t value;
    random({reinterpret_cast<std::uint8_t*>(&value), sizeof value});
    if (value >= threshold) return value % bound;
  }
}

}  // namespace radiotower
