// io_uring: one multishot recvmsg a socket, sends that finish inside the one enter of a turn and leave no completion.
#include <liburing.h>
#include <sys/mman.h>

#include <bit>
#include <cerrno>

#include "floor.h"
#include "floor_train.h"

namespace radiotower::bare {

namespace {

constexpr std::uint16_t buffer_group = 0;
constexpr std::uint64_t send_mark = std::uint64_t{1} << 32;  // above every index of a flow, and listener_mark
constexpr unsigned completions = 16384;

class UringLoop {
 public:
  explicit UringLoop(Flows& flows)
      : flows_(flows),
        offload_(flows.options().offload),
        control_(offload_ ? gro_control : 0),
        head_(sizeof(io_uring_recvmsg_out) + sizeof(sockaddr_in) + control_),
        buffers_(std::bit_ceil(flows.options().buffers), head_, offload_),
        trains_(offload_ ? buffers_.count() : 0) {
    io_uring_params params{};
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL |
                   IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    params.cq_entries = completions;
    const int error = -io_uring_queue_init_params(static_cast<unsigned>(buffers_.count()), &ring_, &params);
    if (error != 0) give_up("io_uring_setup", error);
    io_uring_register_ring_fd(&ring_);
    register_buffers();
    form_.msg_namelen = sizeof(sockaddr_in);
    form_.msg_controllen = control_;
    lent_.reserve(buffers_.count());
    arm(listener_mark);
  }

  [[noreturn]] void run() {
    for (;;) {
      // Half of the buffers wait for sends, or a receive has ended for want of one: sends first, then all can receive.
      if (2 * lent_.size() > buffers_.count() || (!ended_.empty() && !lent_.empty())) {
        io_uring_submit(&ring_);
        give_back();
      }
      arming_.swap(ended_);
      for (const std::uint32_t index : arming_) arm(index);
      arming_.clear();
      io_uring_submit_and_wait(&ring_, 1);
      give_back();
      unsigned head = 0, count = 0;
      io_uring_cqe* cqe = nullptr;
      io_uring_for_each_cqe(&ring_, head, cqe) {
        ++count;
        if (cqe->user_data < send_mark) received(*cqe);  // else it is a send that failed: the datagram is lost
      }
      io_uring_cq_advance(&ring_, count);
    }
  }

 private:
  void register_buffers() {
    // By hand: liburing 2.3 has no io_uring_setup_buf_ring.
    const std::size_t size = buffers_.count() * sizeof(io_uring_buf);
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) give_up("mmap", errno);
    buffer_ring_ = static_cast<io_uring_buf_ring*>(memory);
    io_uring_buf_reg reg{};
    reg.ring_addr = reinterpret_cast<std::uint64_t>(memory);
    reg.ring_entries = static_cast<std::uint32_t>(buffers_.count());
    reg.bgid = buffer_group;
    const int error = -io_uring_register_buf_ring(&ring_, &reg, 0);
    if (error != 0) give_up("io_uring_register", error);
    io_uring_buf_ring_init(buffer_ring_);
    for (std::size_t i = 0; i < buffers_.count(); ++i) lent_.push_back(static_cast<std::uint16_t>(i));
    give_back();
  }

  /// Only when everything that was queued from them has left.
  void give_back() {
    if (lent_.empty() || io_uring_sq_ready(&ring_) != 0) return;
    int place = 0;
    for (const std::uint16_t i : lent_)
      io_uring_buf_ring_add(buffer_ring_, buffers_.at(i), static_cast<unsigned>(buffers_.size()), i,
                            static_cast<int>(buffers_.count() - 1), place++);
    io_uring_buf_ring_advance(buffer_ring_, place);
    lent_.clear();
    trains_used_ = 0;
  }

  io_uring_sqe* entry() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    while (!sqe) {
      io_uring_submit(&ring_);
      sqe = io_uring_get_sqe(&ring_);
    }
    return sqe;
  }

  void arm(std::uint32_t index) {
    io_uring_sqe* sqe = entry();
    io_uring_prep_recvmsg_multishot(sqe, flows_.socket_of(index), &form_, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = buffer_group;
    io_uring_sqe_set_data64(sqe, index);
  }

  void received(const io_uring_cqe& cqe) {
    const auto index = static_cast<std::uint32_t>(cqe.user_data);
    if (!(cqe.flags & IORING_CQE_F_MORE)) ended_.push_back(index);
    if (!(cqe.flags & IORING_CQE_F_BUFFER)) return;
    const auto buffer = static_cast<std::uint16_t>(cqe.flags >> IORING_CQE_BUFFER_SHIFT);
    lent_.push_back(buffer);
    if (cqe.res < static_cast<int>(head_)) return;
    std::uint8_t* const start = buffers_.at(buffer);
    const MutableBytes bytes{start + head_, static_cast<std::size_t>(cqe.res) - head_};
    std::size_t segment = 0;
    if (offload_) {
      io_uring_recvmsg_out out;
      std::memcpy(&out, start, sizeof out);
      segment = segment_size(start + sizeof out + sizeof(sockaddr_in), out.controllen);
      if (segment >= bytes.size()) segment = 0;
    }
    if (index == listener_mark) return from_client(start + sizeof(io_uring_recvmsg_out), bytes, segment);
    from_peer(flows_.at(index), bytes, segment);
  }

  void from_client(const std::uint8_t* name, MutableBytes bytes, std::size_t segment) {
    sockaddr_in client;
    std::memcpy(&client, name, sizeof client);
    if (bytes.size() < header_size) return;
    if (stun::classify(bytes[0]) == stun::FirstByte::channel_data) {
      Flow* const flow = flows_.find(client);
      if (!flow) return;
      if (segment == 0) return send(flow->descriptor, bytes.subspan(header_size), flow->peer);
      while (!bytes.empty()) send(flow->descriptor, [&](TrainMessage& t) { t.to_peer(bytes, segment, *flow); });
      return;
    }
    for (const std::size_t size = segment == 0 ? bytes.size() : segment; !bytes.empty();
         bytes = bytes.subspan(std::min(size, bytes.size())))
      if (const auto made = flows_.answer(bytes.first(std::min(size, bytes.size())), client)) arm(*made);
  }

  void from_peer(Flow& flow, MutableBytes bytes, std::size_t segment) {
    if (segment == 0) {
      std::uint8_t* const start = bytes.data() - header_size;  // over what the kernel wrote there, which has been read
      write_header(start, flow, bytes.size());
      return send(flows_.listener(), {start, bytes.size() + header_size}, flow.client);
    }
    while (!bytes.empty()) send(flows_.listener(), [&](TrainMessage& t) { t.to_client(bytes, segment, flow); });
  }

  void send(int descriptor, Bytes bytes, const sockaddr_in& to) {
    io_uring_sqe* sqe = entry();
    io_uring_prep_send(sqe, descriptor, bytes.data(), bytes.size(), MSG_DONTWAIT);
    io_uring_prep_send_set_addr(sqe, reinterpret_cast<const sockaddr*>(&to), sizeof to);
    leave(sqe);
  }

  template <typename Fill>
  void send(int descriptor, Fill&& fill) {
    if (trains_used_ == trains_.size()) {
      io_uring_submit(&ring_);
      trains_used_ = 0;
    }
    io_uring_sqe* sqe = entry();
    TrainMessage& message = trains_[trains_used_++];
    fill(message);
    io_uring_prep_sendmsg(sqe, descriptor, &message.header, MSG_DONTWAIT);
    leave(sqe);
  }

  static void leave(io_uring_sqe* sqe) {
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, send_mark);
  }

  Flows& flows_;
  const bool offload_;
  const std::size_t control_, head_;  // a buffer begins: io_uring_recvmsg_out, name, control messages
  Buffers buffers_;
  io_uring ring_{};
  io_uring_buf_ring* buffer_ring_ = nullptr;
  msghdr form_{};
  std::vector<TrainMessage> trains_;  // filled from the front each turn, to stay in the cache
  std::size_t trains_used_ = 0;
  std::vector<std::uint16_t> lent_;   // buffers that sends of this turn point into
  std::vector<std::uint32_t> ended_, arming_;
};

}  // namespace

void run_uring(Flows& flows) { UringLoop(flows).run(); }

}  // namespace radiotower::bare
