#include "dtls_clients.h"

#include <algorithm>
#include <cstring>

namespace radiotower::daemon {

using tls::DtlsOutput;
using tls::DtlsPath;

static_assert(DtlsOutput::headroom >= turn::Train::headroom && DtlsOutput::tailroom >= 4);

DtlsClients::DtlsClients(std::shared_ptr<const tls::Identity> identity, RandomSource random, io::Loop& loop, Above& above)
    : loop_(loop), above_(above), endpoint_(std::move(identity), std::move(random)), plain_(65536 + 4) {}

void DtlsClients::begin_turn() {
  output_ ^= 1;
  outputs_[output_].clear();
}

void DtlsClients::on_datagram(const io::Datagram& datagram, Time now) {
  if (datagram.from.port == 0) return;  // nobody could be answered
  endpoint_.from_client({datagram.from, datagram.socket}, datagram.bytes, datagram.segment, now, outputs_[output_]);
  hand_over();
}

/// What is made of a message may make datagrams again: the lists are taken out first.
void DtlsClients::hand_over() {
  send_datagrams();
  DtlsOutput& out = outputs_[output_];
  messages_.swap(out.messages);
  for (const auto& message : messages_) above_.dtls_message(message.path.client, message.path.socket, {message.bytes, message.segment});
  messages_.clear();
  ended_.swap(out.ended);
  for (const auto& path : ended_) above_.dtls_gone(path.client, path.socket);
  ended_.clear();
}

void DtlsClients::send_datagrams() {
  DtlsOutput& out = outputs_[output_];
  for (const auto& datagram : out.datagrams) {
    io::Outgoing outgoing;
    outgoing.socket = datagram.path.socket;
    outgoing.to = datagram.path.client;
    outgoing.bytes = datagram.bytes;
    loop_.send(outgoing);
  }
  out.datagrams.clear();
}

void DtlsClients::send(const turn::Send& send) {
  const DtlsPath path{send.to, send.socket};
  DtlsOutput& out = outputs_[output_];
  if (send.stride == 0) {
    // The room in front of the payload is there for the prefix.
    std::uint8_t* start = send.bytes.data() - send.prefix_size;
    std::copy_n(send.prefix.begin(), send.prefix_size, start);
    endpoint_.to_client(path, {start, send.prefix_size + send.bytes.size()}, out);
  } else {
    // In front of one stands the end of the one before: each is put together elsewhere. Beside what encryption costs, that is little.
    std::copy_n(send.prefix.begin(), send.prefix_size, plain_.begin());
    for (std::size_t at = 0; at < send.bytes.size(); at += send.stride) {
      const std::size_t start = std::min(at + send.skip, send.bytes.size());
      const std::size_t end = std::max(start, std::min(at + send.stride - send.trim, send.bytes.size()));
      if (end > start) std::memcpy(plain_.data() + send.prefix_size, send.bytes.data() + start, end - start);
      endpoint_.to_client(path, {plain_.data(), send.prefix_size + (end - start)}, out);
    }
  }
  send_datagrams();
}

void DtlsClients::expire(Time now) {
  endpoint_.expire(now, outputs_[output_]);
  hand_over();
}

void DtlsClients::close_all() {
  endpoint_.close_all(outputs_[output_]);
  send_datagrams();
}

}  // namespace radiotower::daemon
