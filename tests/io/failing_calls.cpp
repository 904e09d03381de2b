#include "failing_calls.h"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace radiotower::io::testing {

namespace {

struct Plan {
  int calls_before = 0;
  int times = 0;
  int error = 0;
};
std::array<Plan, static_cast<std::size_t>(Call::count)> plans;

bool fails(Call call) {
  Plan& plan = plans[static_cast<std::size_t>(call)];
  if (plan.times == 0 || plan.calls_before-- > 0) return false;
  --plan.times;
  plan.calls_before = 0;
  errno = plan.error;
  return true;
}

}  // namespace

FailingCall::FailingCall(Call call, int n, int error, int times) : call_(call) { plans[static_cast<std::size_t>(call)] = {n - 1, times, error}; }
FailingCall::~FailingCall() { plans[static_cast<std::size_t>(call_)] = {}; }

}  // namespace radiotower::io::testing

using radiotower::io::testing::Call;
using radiotower::io::testing::fails;

extern "C" {

int socket(int domain, int type, int protocol) noexcept {
  return fails(Call::socket) ? -1 : static_cast<int>(syscall(SYS_socket, domain, type, protocol));
}
int bind(int descriptor, const sockaddr* address, socklen_t length) noexcept {
  return fails(Call::bind) ? -1 : static_cast<int>(syscall(SYS_bind, descriptor, address, length));
}
int setsockopt(int descriptor, int level, int option, const void* value, socklen_t length) noexcept {
  return fails(Call::setsockopt) ? -1 : static_cast<int>(syscall(SYS_setsockopt, descriptor, level, option, value, length));
}
ssize_t sendmsg(int descriptor, const msghdr* message, int flags) {
  return fails(Call::sendmsg) ? -1 : syscall(SYS_sendmsg, descriptor, message, flags);
}
int sendmmsg(int descriptor, mmsghdr* messages, unsigned count, int flags) {
  return fails(Call::sendmmsg) ? -1 : static_cast<int>(syscall(SYS_sendmmsg, descriptor, messages, count, flags));
}
int recvmmsg(int descriptor, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  return fails(Call::recvmmsg) ? -1 : static_cast<int>(syscall(SYS_recvmmsg, descriptor, messages, count, flags, timeout));
}

int accept4(int descriptor, sockaddr* address, socklen_t* length, int flags) {
  return fails(Call::accept) ? -1 : static_cast<int>(syscall(SYS_accept4, descriptor, address, length, flags));
}

}  // extern "C"
