#include "address_watch.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "clock.h"

namespace radiotower::daemon {

namespace {

bool same(const std::vector<io::HostAddress>& a, const std::vector<io::HostAddress>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const io::HostAddress& x, const io::HostAddress& y) {
    return x.ip == y.ip && x.interface == y.interface && x.loopback == y.loopback && x.deprecated_or_temporary == y.deprecated_or_temporary &&
           x.scope == y.scope && x.broadcast == y.broadcast;
  });
}

}  // namespace

AddressWatch::AddressWatch() : netlink_(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE)) {
  sockaddr_nl name{};
  name.nl_family = AF_NETLINK;
  name.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
  if (netlink_ && ::bind(netlink_.descriptor(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0) netlink_ = io::Socket();
}

bool AddressWatch::hear() {
  bool heard = false;
  for (int i = 0; i < 64; ++i) {
    alignas(nlmsghdr) char buffer[8192];
    const ssize_t size = recv(netlink_.descriptor(), buffer, sizeof buffer, 0);
    if (size > 0 || (size < 0 && errno == ENOBUFS)) heard = true;  // ENOBUFS: there was more than fits, of whatever kind
    else if (size < 0 && errno == EINTR) continue;
    else break;
  }
  return heard;
}

FollowedAddresses::FollowedAddresses(Log& log, std::function<void()> wake, HostAddresses host, ExternalAddresses::Ask ask)
    : log_(log), host_addresses_(std::move(host)), external_(log, std::move(wake), std::move(ask)) {}

void FollowedAddresses::adopt(const Config& config, const Built& built, std::vector<io::HostAddress> host) {
  config_ = config;
  built_ = built;
  said_ = built.notes;
  host_ = std::move(host);
  external_.follow(built.questions, seconds(config.external_refresh_seconds));
}

void FollowedAddresses::wait_for_answers(milliseconds patience, Built& built) {
  if (built.questions.empty()) return;
  external_.wait(patience);
  external_.take_change();
  ConfigErrors errors;
  if (auto next = rebuild_addresses(config_, built_, host_, external_.answers(), errors)) built_.settings = built.settings = next->settings;
}

void FollowedAddresses::hear(Time now) {
  if (watch_.hear() && looks_at_ == never) looks_at_ = now + addresses_settle;
}

bool FollowedAddresses::due(Time now) {
  answered_ = external_.take_change() || answered_;
  return answered_ || now >= looks_at_;
}

std::optional<NextSettings> FollowedAddresses::rebuild(std::vector<std::string>& errors) {
  looks_at_ = never;
  auto host = host_addresses_();
  if (!std::exchange(answered_, false) && same(host, host_)) return std::nullopt;
  ConfigErrors mistakes;
  host_ = host;
  auto next = rebuild_addresses(config_, built_, std::move(host), external_.answers(), mistakes);
  for (const auto& mistake : mistakes) errors.push_back(mistake.text());
  if (!next) return std::nullopt;
  for (const auto& note : next->notes)
    if (std::find(said_.begin(), said_.end(), note) == said_.end()) log_.write(Priority::warning, "configuration", note);
  said_ = next->notes;
  if (next->questions != built_.questions) external_.follow(next->questions, seconds(config_.external_refresh_seconds));
  built_ = std::move(*next);
  return NextSettings{built_.settings, nullptr, built_.listeners, built_.dtls, built_.tcp, built_.tls, operator_settings(config_)};
}

}  // namespace radiotower::daemon
