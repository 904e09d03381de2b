// On which interfaces it runs, and the sentence when it does not.
#include <doctest/doctest.h>
#include <net/if.h>

#include "netlink.h"
#include "tower.h"

using namespace radiotower;
using namespace radiotower::test;

namespace {

std::string refusal(const offload::OffloadSettings& settings) {
  std::string why;
  const auto started = offload::start(settings, why);
  return started ? "started" : why;
}

offload::OffloadSettings on(const char* interface, bool generic = false) {
  offload::OffloadSettings settings = Tower::settings();
  settings.interfaces = {{interface, generic}};
  return settings;
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a named interface that cannot be is an error with its name and a reason") {
  NEEDS_NAMESPACE();
  CHECK(refusal(on("nowhere0")) == "nowhere0: no such interface");
  CHECK(refusal(on("lo")) == "lo: no Ethernet interface");
  CHECK(refusal(on("inside0")) == "started");
}

TEST_CASE("another program on the interface is left alone") {
  NEEDS_NAMESPACE();
  const Tower first;
  CHECK(refusal(on("inside0")) == "inside0: another XDP program is on it, which is left alone");
}

TEST_CASE("the end of the object takes the program off the interface") {
  NEEDS_NAMESPACE();
  for (int i = 0; i < 3; ++i) CHECK(refusal(on("outside0")) == "started");
  CHECK_FALSE(run("ip -o link show inside0 | grep -q xdp"));
}

/// A veth of this MTU runs no program natively.
bool add_plain(const char* address) {
  return run("ip link add plain0 mtu 9000 type veth peer name plain1 mtu 9000") && run("ip link set plain0 up") &&
         run("ip link set plain1 up") && run(std::string("ip addr add dev plain0 ") + address);
}

// Kernels before 6.3 do not tell what the other end of a veth can do.
#define NEEDS_FEATURES()                                      \
  if (!offload::xdp_features(if_nametoindex("inside0"))) {    \
    MESSAGE("skipped: this kernel tells no features of XDP"); \
    return;                                                   \
  }

TEST_CASE("generic mode only where it is asked for") {
  NEEDS_NAMESPACE();
  REQUIRE(add_plain("10.0.3.1/24"));
  CHECK(contains(refusal(on("plain0")), "plain0: the driver refuses native XDP"));
  {
    std::string why;
    const auto generic = offload::start(on("plain0", true), why);
    REQUIRE(generic != nullptr);
    CHECK_FALSE(generic->attached().at(0).native);
    CHECK(generic->attached().at(0).index == if_nametoindex("plain0"));
    offload::OffloadSettings automatic = Tower::settings();
    automatic.automatic = true;
    automatic.addresses = {at("10.0.3.1:1").ip};
    CHECK(contains(refusal(automatic), "no interface can run the offload; plain0: "));
  }
  offload::OffloadSettings both = Tower::settings();
  both.interfaces = {{"inside0", true}, {"plain0", true}};
  std::string why;
  const auto mixed = offload::start(both, why);
  REQUIRE(mixed != nullptr);
  CHECK(mixed->attached().at(0).native);
  CHECK_FALSE(mixed->attached().at(1).native);
  REQUIRE(mixed->notes().size() == 1);
  CHECK(contains(mixed->notes()[0], "plain0: takes no packets from the other interfaces"));
  run("ip link del plain0");
}

TEST_CASE("automatic: every interface with one of the addresses, each once, and a note for those that cannot") {
  NEEDS_NAMESPACE();
  NEEDS_FEATURES();
  offload::OffloadSettings settings = Tower::settings();
  settings.automatic = true;
  settings.interfaces.clear();
  settings.addresses.push_back(net::IpAddress::parse("127.0.0.1").value());
  REQUIRE(run("ip link set lo up"));
  REQUIRE(add_plain("10.0.4.1/24"));
  settings.addresses.push_back(net::IpAddress::parse("10.0.4.1").value());
  std::string why;
  const auto started = offload::start(settings, why);
  INFO(why);
  REQUIRE(started != nullptr);
  std::string names;
  for (const auto& attached : started->attached())
    names += attached.name + (attached.native ? " native, " : " generic, ");
  CHECK(names == "inside0 native, outside0 native, aside0 native, ");
  REQUIRE(started->notes().size() == 1);
  CHECK(contains(started->notes()[0], "plain0: the driver refuses native XDP"));
  run("ip link del plain0");
}

TEST_CASE("a veth whose other end would lose every frame is refused") {
  NEEDS_NAMESPACE();
  NEEDS_FEATURES();
  run("ethtool -K aside1 gro off");
  CHECK(contains(refusal(on("aside0")), "aside0: a veth whose other end would lose the frames"));
  run("ethtool -K aside1 gro on");
  CHECK(refusal(on("aside0")) == "started");
}

TEST_CASE("without forwarding on lo the kernel tells no way: a note for one family, an error for all") {
  NEEDS_NAMESPACE();
  set_forwarding(false, false);
  std::string why;
  const auto half = offload::start(on("inside0"), why);
  REQUIRE(half != nullptr);
  REQUIRE(half->notes().size() == 1);
  CHECK(contains(half->notes()[0], "net.ipv6.conf.lo.forwarding is 0"));
  set_forwarding(true, false);
  CHECK(contains(refusal(on("outside0")), "net.ipv4.conf.lo.forwarding is 0"));
  set_forwarding(true, true);
  set_forwarding(false, true);
}

TEST_CASE("no addresses, no offload") {
  NEEDS_NAMESPACE();
  offload::OffloadSettings settings = on("inside0");
  settings.addresses.clear();
  CHECK(refusal(settings) == "there are no addresses to offload for");
}

TEST_CASE("compiled_in names the library") { CHECK(contains(std::string(offload::compiled_in()), "libbpf 1.")); }
