#include "uring_setup.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

namespace radiotower::io {

namespace {

std::string sentence(const char* call, int error) {
  std::string text = std::string(call) + ": " + std::strerror(error);
  if (error == EPERM || error == EACCES || error == ENOSYS) {
    if (std::FILE* f = std::fopen("/proc/sys/kernel/io_uring_disabled", "re")) {
      const int value = std::fgetc(f);
      std::fclose(f);
      if (value == '1' || value == '2') return text + " (kernel.io_uring_disabled = " + static_cast<char>(value) + ")";
    }
    text += " (a container's seccomp profile refuses it, or the kernel was built without)";
  }
  return text;
}

}  // namespace

bool UringSetup::open(unsigned completions, const Buffers& buffers, std::size_t files, std::string& why) {
  io_uring_params params{};
  // What helps, then less: each flag is from another kernel (6.1 has them all).
  const unsigned attempts[] = {
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED,
      IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED,
  };
  int error = 0;
  for (const unsigned flags : attempts) {
    params = {};
    params.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    params.cq_entries = std::max(completions, submission_entries);
    error = -io_uring_queue_init_params(submission_entries, &ring, &params);
    if (error != EINVAL) break;
  }
  if (error != 0) {
    why = sentence("io_uring_setup", error);
    return false;
  }
  has_ring_ = true;
  if (!register_buffers(buffers, why)) return false;
  // A file of the ring's own table is found without a reference being taken and given back on every send. Registering room for all is
  // refused beyond RLIMIT_NOFILE, and then plain descriptors do.
  has_files = io_uring_register_files_sparse(&ring, static_cast<unsigned>(files)) == 0;
  restrict_operations();
  if (!register_with_kernel(IORING_REGISTER_ENABLE_RINGS, nullptr, 0)) {
    why = sentence("io_uring_register (enable)", errno);
    return false;
  }
  io_uring_register_ring_fd(&ring);  // saves a look-up an enter; without it everything works as well
  return true;
}

void UringSetup::close() {
  if (std::exchange(has_ring_, false)) io_uring_queue_exit(&ring);
  if (buffer_ring) munmap(std::exchange(buffer_ring, nullptr), buffer_ring_size_);
}

bool UringSetup::register_buffers(const Buffers& buffers, std::string& why) {
  // liburing 2.3 has no io_uring_setup_buf_ring: the ring is made and registered by hand.
  buffer_ring_size_ = buffers.count() * sizeof(io_uring_buf);
  void* memory = mmap(nullptr, buffer_ring_size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    why = sentence("mmap", errno);
    return false;
  }
  buffer_ring = static_cast<io_uring_buf_ring*>(memory);
  io_uring_buf_reg reg{};
  reg.ring_addr = reinterpret_cast<std::uint64_t>(buffer_ring);
  reg.ring_entries = static_cast<std::uint32_t>(buffers.count());
  reg.bgid = buffer_group;
  if (const int error = -io_uring_register_buf_ring(&ring, &reg, 0); error != 0) {
    why = sentence("io_uring_register (buffer ring; Linux 5.19 or later has it)", error);
    return false;
  }
  io_uring_buf_ring_init(buffer_ring);
  for (std::size_t i = 0; i < buffers.count(); ++i) add_buffer(buffers, static_cast<std::uint16_t>(i), static_cast<int>(i));
  io_uring_buf_ring_advance(buffer_ring, static_cast<int>(buffers.count()));
  return true;
}

/// seccomp cannot see what a ring is asked to do, so the ring itself is told what it may do (security.md, "Sandbox").
void UringSetup::restrict_operations() {
  std::array<io_uring_restriction, 12> r{};
  std::size_t n = 0;
  for (const int op : {IORING_OP_RECVMSG, IORING_OP_RECV, IORING_OP_SEND, IORING_OP_SENDMSG, IORING_OP_ASYNC_CANCEL, IORING_OP_POLL_ADD, IORING_OP_TIMEOUT}) {
    r[n].opcode = IORING_RESTRICTION_SQE_OP;
    r[n++].sqe_op = static_cast<std::uint8_t>(op);
  }
  r[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
  r[n++].sqe_flags = IOSQE_BUFFER_SELECT | IOSQE_CQE_SKIP_SUCCESS | IOSQE_FIXED_FILE;
  for (const int op : {IORING_REGISTER_ENABLE_RINGS, IORING_REGISTER_RING_FDS, IORING_UNREGISTER_RING_FDS, IORING_REGISTER_FILES_UPDATE}) {
    r[n].opcode = IORING_RESTRICTION_REGISTER_OP;
    r[n++].register_op = static_cast<std::uint8_t>(op);
  }
  register_with_kernel(IORING_REGISTER_RESTRICTIONS, r.data(), static_cast<unsigned>(n));  // a kernel without them is no reason not to start
}

/// liburing 2.3 as Debian has it declares, but does not export, the calls for restrictions and enabling.
bool UringSetup::register_with_kernel(unsigned operation, const void* argument, unsigned count) {
  return syscall(__NR_io_uring_register, ring.ring_fd, operation, argument, count) == 0;
}

}  // namespace radiotower::io
