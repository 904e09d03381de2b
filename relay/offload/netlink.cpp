#include "netlink.h"

#include <linux/genetlink.h>
#include <linux/netconf.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <span>

namespace radiotower::offload {

namespace {

// linux/netdev.h, which is younger than the headers of Debian 12.
constexpr std::uint8_t netdev_dev_get = 1;
constexpr std::uint16_t netdev_interface_index = 1, netdev_xdp_features = 3;
constexpr std::size_t attribute_header = 4, message_header = sizeof(nlmsghdr);

/// One request with one attribute, one answer.
class Exchange {
 public:
  explicit Exchange(int protocol) : descriptor_(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)) {}
  ~Exchange() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  /// `family_header` comes between the netlink header and the attribute, padded to 4 bytes.
  bool ask(std::uint16_t type, std::uint16_t answer_type, std::span<const std::byte> family_header,
           std::uint16_t attribute, std::span<const std::byte> value) {
    const std::size_t head = NLMSG_ALIGN(family_header.size());
    std::array<std::byte, 128> request{};
    nlmsghdr header{};
    header.nlmsg_len = static_cast<std::uint32_t>(message_header + head + attribute_header + value.size());
    header.nlmsg_type = type;
    header.nlmsg_flags = NLM_F_REQUEST;
    const std::array<std::uint16_t, 2> attribute_words{static_cast<std::uint16_t>(attribute_header + value.size()),
                                                       attribute};
    std::memcpy(request.data(), &header, sizeof header);
    std::memcpy(request.data() + message_header, family_header.data(), family_header.size());
    std::memcpy(request.data() + message_header + head, attribute_words.data(), attribute_header);
    std::memcpy(request.data() + message_header + head + attribute_header, value.data(), value.size());
    attributes_at_ = message_header + head;
    // The kernel answers within the call, if it does at all.
    if (descriptor_ < 0 || send(descriptor_, request.data(), header.nlmsg_len, 0) < 0) return false;
    received_ = recv(descriptor_, answer_.data(), answer_.size(), MSG_DONTWAIT);
    if (received_ < static_cast<ssize_t>(attributes_at_)) return false;
    std::memcpy(&header, answer_.data(), sizeof header);
    return header.nlmsg_type == answer_type;
  }

  template <typename T>
  std::optional<T> find(std::uint16_t wanted) const {
    for (std::size_t at = attributes_at_; at + attribute_header <= static_cast<std::size_t>(received_);) {
      std::array<std::uint16_t, 2> words;
      std::memcpy(words.data(), answer_.data() + at, attribute_header);
      if (words[0] < attribute_header || at + words[0] > static_cast<std::size_t>(received_)) return std::nullopt;
      if (words[1] == wanted && words[0] >= attribute_header + sizeof(T)) {
        T value;
        std::memcpy(&value, answer_.data() + at + attribute_header, sizeof value);
        return value;
      }
      at += NLMSG_ALIGN(words[0]);
    }
    return std::nullopt;
  }

 private:
  int descriptor_;
  ssize_t received_ = 0;
  std::size_t attributes_at_ = 0;
  alignas(nlmsghdr) std::array<std::byte, 8192> answer_;
};

}  // namespace

std::optional<bool> loopback_forwards(int family) {
  Exchange exchange(NETLINK_ROUTE);
  netconfmsg message{};
  message.ncm_family = static_cast<std::uint8_t>(family);
  const std::int32_t loopback = 1;
  if (!exchange.ask(RTM_GETNETCONF, RTM_NEWNETCONF, std::as_bytes(std::span(&message, 1)), NETCONFA_IFINDEX,
                    std::as_bytes(std::span(&loopback, 1)))) {
    return std::nullopt;
  }
  const auto forwarding = exchange.find<std::int32_t>(NETCONFA_FORWARDING);
  return forwarding ? std::optional(*forwarding != 0) : std::nullopt;
}

std::optional<std::uint64_t> xdp_features(unsigned interface_index) {
  Exchange exchange(NETLINK_GENERIC);
  genlmsghdr command{};
  command.cmd = CTRL_CMD_GETFAMILY;
  command.version = 1;
  static constexpr char name[] = "netdev";
  if (!exchange.ask(GENL_ID_CTRL, GENL_ID_CTRL, std::as_bytes(std::span(&command, 1)), CTRL_ATTR_FAMILY_NAME,
                    std::as_bytes(std::span(name)))) {
    return std::nullopt;
  }
  const auto family = exchange.find<std::uint16_t>(CTRL_ATTR_FAMILY_ID);
  if (!family) return std::nullopt;
  command.cmd = netdev_dev_get;
  const std::uint32_t index = interface_index;
  if (!exchange.ask(*family, *family, std::as_bytes(std::span(&command, 1)), netdev_interface_index,
                    std::as_bytes(std::span(&index, 1)))) {
    return std::nullopt;
  }
  return exchange.find<std::uint64_t>(netdev_xdp_features);
}

}  // namespace radiotower::offload
