#include "gate.h"

#include <linux/filter.h>

#include <algorithm>
#include <cassert>
#include <utility>

namespace radiotower::io {

namespace {

constexpr std::uint32_t pass = 0xFFFFFFFF, drop = 0;
constexpr std::uint32_t at_port = 0;  // a filter of a UDP socket sees the UDP header first
constexpr std::uint32_t at_source4 = static_cast<std::uint32_t>(SKF_NET_OFF) + 12, at_source6 = static_cast<std::uint32_t>(SKF_NET_OFF) + 8;
constexpr std::uint32_t at_random = static_cast<std::uint32_t>(SKF_AD_OFF) + SKF_AD_RANDOM;
constexpr std::uint32_t bit_number = 0;  // of the scratch memory

class Program {
 public:
  void add(unsigned code, std::uint32_t k, std::size_t if_true = 0, std::size_t if_false = 0) {
    instructions_.push_back({static_cast<std::uint16_t>(code), static_cast<std::uint8_t>(if_true), static_cast<std::uint8_t>(if_false), k});
  }
  /// A = (A ^ other) by way of X.
  void mix_in(unsigned load, std::uint32_t k) {
    add(BPF_MISC | BPF_TAX, 0);
    add(load, k);
    add(BPF_ALU | BPF_XOR | BPF_X, 0);
  }
  std::size_t size() const { return instructions_.size(); }
  void jump_from_to_here(std::size_t from) { instructions_[from].k = static_cast<std::uint32_t>(size() - from - 1); }
  std::vector<FilterInstruction> take() { return std::move(instructions_); }

  /// A, a number in [from, to), becomes words[A]; then on to the end of the tree. Jumps behind a
  /// condition reach 255 instructions, so the far side is reached by a jump of its own.
  void look_up(const std::vector<std::uint32_t>& words, std::size_t from, std::size_t to, std::vector<std::size_t>& leaves) {
    const bool uniform = std::all_of(words.begin() + static_cast<std::ptrdiff_t>(from), words.begin() + static_cast<std::ptrdiff_t>(to),
                                     [&](std::uint32_t word) { return word == words[from]; });
    if (uniform) {
      add(BPF_LD | BPF_IMM, words[from]);
      leaves.push_back(size());
      add(BPF_JMP | BPF_JA, 0);
      return;
    }
    const std::size_t middle = (from + to) / 2;
    add(BPF_JMP | BPF_JGE | BPF_K, static_cast<std::uint32_t>(middle), 0, 1);
    const std::size_t far = size();
    add(BPF_JMP | BPF_JA, 0);
    look_up(words, from, middle, leaves);
    jump_from_to_here(far);
    look_up(words, middle, to, leaves);
  }

 private:
  std::vector<FilterInstruction> instructions_;
};

std::uint32_t odd(std::uint64_t key, unsigned shift) { return static_cast<std::uint32_t>(key >> shift) | 1; }

}  // namespace

Gate::Gate(net::Family family, std::uint64_t key, unsigned bits)
    : family_(family),
      bits_(std::clamp(bits, fewest_bits, most_bits)),
      port_factor_(odd(key, 0)),
      address_factor_(odd(key, 16)),
      last_factor_(odd(key, 32)),
      known_((std::size_t{1} << bits_) / 32) {}

void Gate::forget() {
  std::fill(known_.begin(), known_.end(), 0u);
  suspects_.clear();
}

// The same arithmetic as in program().
std::uint32_t Gate::hash(const net::TransportAddress& source) const {
  std::uint32_t a = source.port * port_factor_;
  if (family_ == net::Family::ipv4) {
    a ^= source.ip.v4_host_order();
  } else {
    for (std::size_t i = 0; i < 4; ++i) {
      a ^= load_be32(source.ip.bytes.data() + 4 * i);
      a *= address_factor_;
      a ^= a >> 13;
    }
  }
  a *= address_factor_;
  a ^= a >> 15;
  a *= last_factor_;
  return a >> (32 - bits_);
}

void Gate::know(const net::TransportAddress& source) {
  if (source.family() != family_) return;
  const std::uint32_t h = hash(source);
  known_[h / 32] |= 1u << (h % 32);
}

bool Gate::suspect(const net::IpAddress& ip) {
  if (ip.family() != family_ || is_suspect(ip)) return true;
  if (suspects_.size() == most_suspects) return false;
  suspects_.push_back(ip.as_source());
  return true;
}

bool Gate::is_suspect(const net::IpAddress& ip) const {
  return std::find(suspects_.begin(), suspects_.end(), ip.as_source()) != suspects_.end();
}

std::vector<FilterInstruction> Gate::program(double share) const {
  Program p;
  const auto fold = [&](unsigned shift) {  // A ^= A >> shift
    p.add(BPF_MISC | BPF_TAX, 0);
    p.add(BPF_ALU | BPF_RSH | BPF_K, shift);
    p.add(BPF_ALU | BPF_XOR | BPF_X, 0);
  };
  p.add(BPF_LD | BPF_H | BPF_ABS, at_port);
  p.add(BPF_ALU | BPF_MUL | BPF_K, port_factor_);
  if (family_ == net::Family::ipv4) {
    p.mix_in(BPF_LD | BPF_W | BPF_ABS, at_source4);
  } else {
    for (std::uint32_t i = 0; i < 4; ++i) {
      p.mix_in(BPF_LD | BPF_W | BPF_ABS, at_source6 + 4 * i);
      p.add(BPF_ALU | BPF_MUL | BPF_K, address_factor_);
      fold(13);
    }
  }
  p.add(BPF_ALU | BPF_MUL | BPF_K, address_factor_);
  fold(15);
  p.add(BPF_ALU | BPF_MUL | BPF_K, last_factor_);
  p.add(BPF_ALU | BPF_RSH | BPF_K, 32 - bits_);
  p.add(BPF_MISC | BPF_TAX, 0);
  p.add(BPF_ALU | BPF_AND | BPF_K, 31);
  p.add(BPF_ST, bit_number);
  p.add(BPF_MISC | BPF_TXA, 0);
  p.add(BPF_ALU | BPF_RSH | BPF_K, 5);
  std::vector<std::size_t> leaves;
  p.look_up(known_, 0, known_.size(), leaves);
  for (const std::size_t leaf : leaves) p.jump_from_to_here(leaf);
  p.add(BPF_LDX | BPF_MEM, bit_number);
  p.add(BPF_ALU | BPF_RSH | BPF_X, 0);
  p.add(BPF_JMP | BPF_JSET | BPF_K, 1, 0, 1);
  p.add(BPF_RET | BPF_K, pass);

  for (const net::IpAddress& ip : suspects_) {
    if (family_ == net::Family::ipv4) {
      p.add(BPF_LD | BPF_W | BPF_ABS, at_source4);
      p.add(BPF_JMP | BPF_JEQ | BPF_K, ip.v4_host_order(), 0, 1);
    } else {
      p.add(BPF_LD | BPF_W | BPF_ABS, at_source6);
      p.add(BPF_JMP | BPF_JEQ | BPF_K, load_be32(ip.bytes.data()), 0, 3);
      p.add(BPF_LD | BPF_W | BPF_ABS, at_source6 + 4);
      p.add(BPF_JMP | BPF_JEQ | BPF_K, load_be32(ip.bytes.data() + 4), 0, 1);
    }
    p.add(BPF_RET | BPF_K, drop);
  }

  const double clamped = std::clamp(share, 0.0, 1.0);
  if (clamped < 1) {
    p.add(BPF_LD | BPF_W | BPF_ABS, at_random);
    p.add(BPF_JMP | BPF_JGE | BPF_K, static_cast<std::uint32_t>(clamped * 4294967295.0), 0, 1);
    p.add(BPF_RET | BPF_K, drop);
  }
  p.add(BPF_RET | BPF_K, pass);
  assert(p.size() <= BPF_MAXINSNS);
  return p.take();
}

}  // namespace radiotower::io
