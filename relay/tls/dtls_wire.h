// The BIO between OpenSSL and the datagrams of an endpoint: one for all its sessions, since only one of them is at work at a time. A read takes the datagram
// that lies there, a write is a datagram of its own.
#pragma once

#include <openssl/bio.h>

#include "radiotower/tls/dtls.h"

namespace radiotower::tls {

struct DtlsWire {
  Bytes in;  // empty: nothing has come
  const DtlsPath* path = nullptr;
  DtlsOutput* out = nullptr;  // with `path`: set while a session is at work

  DtlsWire();  // std::bad_alloc
  ~DtlsWire();
  DtlsWire(const DtlsWire&) = delete;
  DtlsWire& operator=(const DtlsWire&) = delete;
  BIO* bio = nullptr;

 private:
  static int read(BIO* bio, char* into, int size);
  static int write(BIO* bio, const char* bytes, int size);
  static long control(BIO* bio, int what, long number, void* pointer);
  BIO_METHOD* method_ = nullptr;
};

}  // namespace radiotower::tls
