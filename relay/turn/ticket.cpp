#include "radiotower/turn/ticket.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cassert>
#include <stdexcept>

#include "radiotower/base/encoding.h"
#include "radiotower/stun/crypto.h"

namespace radiotower::turn {

namespace {

constexpr std::size_t tag_size = 16, place_size = 8;
static_assert((tag_size + place_size) / 3 * 4 == Ticket::size);

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, FreeContext>;

}  // namespace

struct TicketMint::Cipher {
  EVP_CIPHER* cipher = EVP_CIPHER_fetch(nullptr, "AES-256-SIV", nullptr);
  ~Cipher() { EVP_CIPHER_free(cipher); }
};

TicketMint::TicketMint(const RandomSource& random) : cipher_(std::make_unique<Cipher>()) {
  if (!cipher_->cipher) throw std::runtime_error("OpenSSL has no AES-256-SIV, which the tickets of features.mobility need");
  random(key_);
}

TicketMint::~TicketMint() { OPENSSL_cleanse(key_.data(), key_.size()); }

Ticket TicketMint::make(const TicketPlace& place) const {
  assert(place.worker < TicketPlace::most_workers && place.index < TicketPlace::most_indexes);
  std::array<std::uint8_t, place_size> plain;
  store_be32(plain.data(), place.worker << 22 | place.index);
  store_be32(plain.data() + 4, place.serial);

  std::array<std::uint8_t, tag_size + place_size> sealed;
  const Context context(EVP_CIPHER_CTX_new());
  int size = 0, rest = 0;
  [[maybe_unused]] const bool ok = context && EVP_EncryptInit_ex2(context.get(), cipher_->cipher, key_.data(), nullptr, nullptr) == 1 &&
                                   EVP_EncryptUpdate(context.get(), sealed.data() + tag_size, &size, plain.data(), place_size) == 1 &&
                                   EVP_EncryptFinal_ex(context.get(), sealed.data() + tag_size + size, &rest) == 1 &&
                                   EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, tag_size, sealed.data()) == 1;
  if (!ok) throw std::bad_alloc();  // nothing else can be wrong with a fixed cipher and fixed sizes
  Ticket ticket;
  const std::string text = stun::base64(sealed);
  std::copy_n(text.begin(), Ticket::size, ticket.text_.begin());
  return ticket;
}

std::optional<TicketPlace> TicketMint::open(Bytes ticket) const {
  if (ticket.size() != Ticket::size) return std::nullopt;
  auto sealed = from_base64(as_text(ticket));
  if (!sealed || sealed->size() != tag_size + place_size) return std::nullopt;
  std::array<std::uint8_t, place_size> plain;
  const Context context(EVP_CIPHER_CTX_new());
  auto* bytes = reinterpret_cast<std::uint8_t*>(sealed->data());
  int size = 0;
  const bool ok = context && EVP_DecryptInit_ex2(context.get(), cipher_->cipher, key_.data(), nullptr, nullptr) == 1 &&
                  EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, tag_size, bytes) == 1 &&
                  EVP_DecryptUpdate(context.get(), plain.data(), &size, bytes + tag_size, place_size) == 1 && size == place_size;
  if (!ok) return std::nullopt;
  const std::uint32_t first = load_be32(plain.data());
  return TicketPlace{first >> 22, first & (TicketPlace::most_indexes - 1), load_be32(plain.data() + 4)};
}

}  // namespace radiotower::turn
