// A client on its way from one worker to another (turn::HandOver): RFC 6062's ConnectionBind and RFC 8016's Refresh may come to a worker that does not hold
// what they are about.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "radiotower/io/socket.h"
#include "radiotower/net/address.h"

namespace radiotower::daemon {

struct StreamConnection;  // stream_connection.h

struct Parcel {
  Parcel();
  Parcel(Parcel&&) noexcept;
  Parcel& operator=(Parcel&&) noexcept;
  ~Parcel();

  net::FiveTuple five_tuple;
  std::vector<std::uint8_t> message;  // the worker there takes it as if it had come there
  // Of a stream: its connection goes along, with what has come behind the message and what has not left yet. Else null.
  std::unique_ptr<StreamConnection> connection;
  io::Socket socket;
};

}  // namespace radiotower::daemon
