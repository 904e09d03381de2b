// What a client's connection could not take yet: whole messages in their order, bounded by bytes and age. When there is too much, the oldest media
// goes first; an answer never, nor what has begun to leave. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "radiotower/base/bytes.h"
#include "radiotower/base/time.h"

struct iovec;

namespace radiotower::daemon {

class StreamQueue {
 public:
  /// One message as pieces. `media`: ChannelData or a Data indication, which may be lost as a datagram may.
  void append(Bytes head, Bytes body, std::size_t padding, bool media, Time now);
  /// The rest of a message whose front has left. Only into an empty queue.
  void append_rest(Bytes rest);

  /// Drops media that waits since before `then`, and then of what is left the oldest until no more than `most` bytes wait. How many messages
  /// that were. What cannot be dropped stays: see bytes().
  std::size_t trim(std::size_t most, Time then);

  bool empty() const { return bytes_ == 0; }
  std::size_t bytes() const { return bytes_; }
  /// The front, in order, in at most `most` pieces; how many. They are valid until the next call that changes the queue.
  std::size_t front(iovec* pieces, std::size_t most, std::size_t& size) const;
  Bytes next() const;  // the first message, or what is left of it
  /// That many bytes of the front have left.
  void took(std::size_t size);
  void clear();
  std::size_t capacity() const { return storage_.capacity() + messages_.capacity() * sizeof(Message); }

 private:
  struct Message {
    std::size_t at = 0;
    std::uint32_t size = 0;  // 0: dropped
    bool media = false;      // that has not begun to leave
    Time since{};
  };
  void drop(Message& message);
  void close_gaps();

  std::vector<std::uint8_t> storage_;
  std::vector<Message> messages_;
  std::size_t first_ = 0;  // of messages_
  std::size_t oldest_media_ = 0;  // none before it
  std::size_t bytes_ = 0;
};

}  // namespace radiotower::daemon
