#include <algorithm>
#include <cstring>

#include "radiotower/tls/dtls.h"

namespace radiotower::tls {

void DtlsOutput::clear() {
  datagrams.clear();
  messages.clear();
  ended.clear();
  chunk_ = used_ = 0;
  may_grow_ = false;
}

/// Behind what is there already, in one piece; used_ is the caller's to move.
MutableBytes DtlsOutput::room(std::size_t size) {
  if (chunks_.empty()) chunks_.push_back(std::make_unique_for_overwrite<std::uint8_t[]>(chunk_size));
  if (used_ + size > chunk_size) {
    if (++chunk_ == chunks_.size()) chunks_.push_back(std::make_unique_for_overwrite<std::uint8_t[]>(chunk_size));
    used_ = 0;
    may_grow_ = false;
  }
  return {chunks_[chunk_].get() + used_, size};
}

/// Until add_message() or no_message(), datagrams that are made meanwhile (the answers of a handshake) find room behind it.
MutableBytes DtlsOutput::message_room(const DtlsPath& path) {
  // With room to move a message that does not join the train.
  const MutableBytes all = room(tailroom + headroom + largest_message + tailroom);
  room_joins_ = may_grow_ && messages.back().path == path;
  room_ = {chunk_, used_, used_ + all.size()};
  used_ = room_.end;
  return all.subspan(room_joins_ ? 0 : headroom, largest_message);
}

void DtlsOutput::no_message() {
  if (chunk_ == room_.chunk && used_ == room_.end) used_ = room_.start;
}

void DtlsOutput::add_message(const DtlsPath& path, MutableBytes bytes) {
  // As a train of UDP: each of its messages may want an answer, and there is room for so many.
  constexpr std::size_t longest_train = 65'000, most_messages = 64;
  const bool is_last = chunk_ == room_.chunk && used_ == room_.end;
  const auto end_of = [&](MutableBytes last) { return static_cast<std::size_t>(last.data() - chunks_[room_.chunk].get()) + last.size(); };
  if (room_joins_ && may_grow_) {
    Message& train = messages.back();
    const std::size_t segment = train.segment ? train.segment : train.bytes.size();
    if (bytes.size() <= segment && train.bytes.size() < most_messages * segment && train.bytes.size() + bytes.size() <= longest_train) {
      train.segment = static_cast<std::uint16_t>(segment);
      train.bytes = {train.bytes.data(), train.bytes.size() + bytes.size()};
      used_ = end_of(bytes);
      may_grow_ = bytes.size() == segment;
      return;
    }
  }
  if (room_joins_) {
    std::uint8_t* moved = bytes.data() + tailroom + headroom;
    std::memmove(moved, bytes.data(), bytes.size());
    bytes = {moved, bytes.size()};
  }
  messages.push_back({path, bytes, 0});
  if (is_last) used_ = end_of(bytes);
  may_grow_ = is_last && !bytes.empty();
}

void DtlsOutput::add_datagram(const DtlsPath& path, Bytes bytes) {
  // What writes next may begin behind the room that the last message may write into.
  const MutableBytes all = room(tailroom + bytes.size());
  const MutableBytes place = all.subspan(tailroom);
  std::memcpy(place.data(), bytes.data(), bytes.size());
  used_ += all.size();
  may_grow_ = false;
  datagrams.push_back({path, place});
}

}  // namespace radiotower::tls
