// System calls that fail on command. A test executable that links failing_calls.cpp has its socket(), bind() ... go through it, since a
// program's own definition of a name comes before the C library's. One thread at a time. Sends of io_uring are made by the kernel and
// are not seen here; the epoll loop's are, and so are the rare sends of the io_uring loop that are calls of their own.
#pragma once

namespace radiotower::io::testing {

enum class Call { socket, bind, setsockopt, sendmsg, sendmmsg, recvmmsg, accept, count };

/// The n-th call from now on (1: the next) fails with `error`, and all `times - 1` that follow it.
class FailingCall {
 public:
  FailingCall(Call call, int n, int error, int times = 1);
  ~FailingCall();  // fails no more
  FailingCall(const FailingCall&) = delete;
  FailingCall& operator=(const FailingCall&) = delete;

 private:
  Call call_;
};

}  // namespace radiotower::io::testing
