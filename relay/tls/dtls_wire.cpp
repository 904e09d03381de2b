#include "dtls_wire.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace radiotower::tls {

DtlsWire::DtlsWire() {
  method_ = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "datagrams");
  if (method_) {
    BIO_meth_set_read(method_, read);
    BIO_meth_set_write(method_, write);
    BIO_meth_set_ctrl(method_, control);
    bio = BIO_new(method_);
  }
  if (!bio) {
    BIO_meth_free(method_);
    throw std::bad_alloc();
  }
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
}

DtlsWire::~DtlsWire() {
  BIO_free(bio);
  BIO_meth_free(method_);
}

int DtlsWire::read(BIO* bio, char* into, int size) {
  auto& wire = *static_cast<DtlsWire*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (wire.in.empty()) {
    BIO_set_retry_read(bio);
    return -1;
  }
  // OpenSSL asks for as much as the largest record takes; what a longer datagram has behind it is cut off, as from a socket.
  const std::size_t n = std::min(wire.in.size(), static_cast<std::size_t>(size));
  std::memcpy(into, wire.in.data(), n);
  wire.in = {};
  return static_cast<int>(n);
}

int DtlsWire::write(BIO* bio, const char* bytes, int size) {
  auto& wire = *static_cast<DtlsWire*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (wire.out) wire.out->add_datagram(*wire.path, {reinterpret_cast<const std::uint8_t*>(bytes), static_cast<std::size_t>(size)});
  return size;
}

long DtlsWire::control(BIO*, int what, long, void*) {
  switch (what) {
    case BIO_CTRL_FLUSH: return 1;
    case BIO_CTRL_DGRAM_GET_MTU_OVERHEAD: return 48;  // IPv6 and UDP
    default: return 0;
  }
}

}  // namespace radiotower::tls
