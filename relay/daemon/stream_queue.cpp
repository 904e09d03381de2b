#include "stream_queue.h"

#include <sys/uio.h>

#include <algorithm>
#include <cstring>

namespace radiotower::daemon {

void StreamQueue::append(Bytes head, Bytes body, std::size_t padding, bool media, Time now) {
  close_gaps();
  const std::size_t size = head.size() + body.size() + padding;
  if (size == 0) return;
  messages_.push_back({storage_.size(), static_cast<std::uint32_t>(size), media, now});
  storage_.insert(storage_.end(), head.begin(), head.end());
  storage_.insert(storage_.end(), body.begin(), body.end());
  storage_.insert(storage_.end(), padding, std::uint8_t{0});
  bytes_ += size;
}

void StreamQueue::append_rest(Bytes rest) { append(rest, {}, 0, false, Time{}); }

void StreamQueue::drop(Message& message) {
  bytes_ -= message.size;
  message.size = 0;
}

std::size_t StreamQueue::trim(std::size_t most, Time then) {
  std::size_t dropped = 0;
  for (oldest_media_ = std::max(oldest_media_, first_); oldest_media_ < messages_.size(); ++oldest_media_) {
    Message& message = messages_[oldest_media_];
    if (!message.media || message.size == 0) continue;
    if (message.since >= then && bytes_ <= most) break;
    drop(message);
    ++dropped;
  }
  if (bytes_ == 0) clear();
  return dropped;
}

std::size_t StreamQueue::front(iovec* pieces, std::size_t most, std::size_t& size) const {
  std::size_t count = 0;
  size = 0;
  for (std::size_t i = first_; i < messages_.size(); ++i) {
    const Message& message = messages_[i];
    if (message.size == 0) continue;
    auto* const bytes = const_cast<std::uint8_t*>(storage_.data()) + message.at;  // an iovec has no const
    if (count != 0 && static_cast<std::uint8_t*>(pieces[count - 1].iov_base) + pieces[count - 1].iov_len == bytes) {
      pieces[count - 1].iov_len += message.size;
    } else {
      if (count == most) break;
      pieces[count++] = {bytes, message.size};
    }
    size += message.size;
  }
  return count;
}

Bytes StreamQueue::next() const {
  for (std::size_t i = first_; i < messages_.size(); ++i)
    if (messages_[i].size != 0) return {storage_.data() + messages_[i].at, messages_[i].size};
  return {};
}

void StreamQueue::took(std::size_t size) {
  bytes_ -= size;
  while (first_ < messages_.size()) {
    Message& message = messages_[first_];
    if (size < message.size) {
      if (size == 0) return;
      message.at += size;
      message.size -= static_cast<std::uint32_t>(size);
      message.media = false;  // half of it would be a lie to the other half
      return;
    }
    size -= message.size;
    ++first_;
  }
  clear();
}

void StreamQueue::clear() {
  storage_ = {};  // memory for those who wait alone
  messages_ = {};
  first_ = oldest_media_ = bytes_ = 0;
}

void StreamQueue::close_gaps() {
  if (storage_.size() - bytes_ < std::max<std::size_t>(bytes_, 64 << 10) && first_ < std::max<std::size_t>(messages_.size() / 2, 1024)) return;
  std::size_t at = 0, kept = 0;
  for (std::size_t i = first_; i < messages_.size(); ++i) {
    Message message = messages_[i];
    if (message.size == 0) continue;
    std::memmove(storage_.data() + at, storage_.data() + message.at, message.size);
    message.at = at;
    at += message.size;
    messages_[kept++] = message;
  }
  storage_.resize(at);
  messages_.resize(kept);
  first_ = oldest_media_ = 0;
}

}  // namespace radiotower::daemon
