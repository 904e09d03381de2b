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

MutableBytes DtlsOutput::message_room(const DtlsPath& path) {
  // With room to move a message that does not join the train.
  const MutableBytes all = room(tailroom + headroom + largest_message + tailroom);
  may_grow_ = may_grow_ && messages.back().path == path;
  return all.subspan(may_grow_ ? 0 : headroom, largest_message);
}

void DtlsOutput::add_message(const DtlsPath& path, MutableBytes bytes) {
  constexpr std::size_t longest_train = 65'000;
  if (may_grow_) {
    Message& train = messages.back();
    const std::size_t segment = train.segment ? train.segment : train.bytes.size();
    if (bytes.size() <= segment && train.bytes.size() + bytes.size() <= longest_train) {
      train.segment = static_cast<std::uint16_t>(segment);
      train.bytes = {train.bytes.data(), train.bytes.size() + bytes.size()};
      used_ += bytes.size();
      may_grow_ = bytes.size() == segment;
      return;
    }
    std::uint8_t* moved = bytes.data() + tailroom + headroom;
    std::memmove(moved, bytes.data(), bytes.size());
    bytes = {moved, bytes.size()};
  }
  messages.push_back({path, bytes, 0});
  used_ = static_cast<std::size_t>(bytes.data() - chunks_[chunk_].get()) + bytes.size();
  may_grow_ = !bytes.empty();
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
