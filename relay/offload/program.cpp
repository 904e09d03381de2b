#include "program.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <vector>

namespace radiotower::offload {

static_assert(sizeof(Slot) == 32 && sizeof(Direction) == 64);
static_assert(sizeof(ClientKey) == 40 && sizeof(Path) == 36 && offsetof(ClientKey, path) == 0);
static_assert(sizeof(BucketWords) == sizeof(Bucket) &&
              offsetof(Bucket, bytes_full_at) == offsetof(BucketWords, bytes_full_at) &&
              offsetof(Bucket, packets_full_at) == offsetof(BucketWords, packets_full_at) &&
              offsetof(Bucket, byte_rate) == offsetof(BucketWords, byte_rate) &&
              offsetof(Bucket, packet_rate) == offsetof(BucketWords, packet_rate));
static_assert(sizeof(net::IpAddress) == sizeof(Address));

namespace {

/// What libbpf and the verifier said last, instead of on standard error.
thread_local std::string last_words;

int remember(libbpf_print_level level, const char* format, va_list arguments) {
  if (level > LIBBPF_WARN) return 0;
  va_list again;
  va_copy(again, arguments);
  const int length = std::vsnprintf(nullptr, 0, format, again);  // the verifier's log is one argument, and long
  va_end(again);
  if (length <= 0) return 0;
  std::string text(static_cast<std::size_t>(length) + 1, '\0');
  std::vsnprintf(text.data(), text.size(), format, arguments);
  text.pop_back();
  constexpr std::size_t enough = 8192;  // the end tells
  last_words += text.size() > enough ? text.substr(text.size() - enough) : text;
  if (last_words.size() > 2 * enough) last_words.erase(0, last_words.size() - enough);
  return 0;
}

/// The lines that tell: the verifier's verdict stands in front of its statistics.
std::string verdict() {
  std::string found;
  for (std::size_t at = 0; at < last_words.size();) {
    const std::size_t end = std::min(last_words.find('\n', at), last_words.size());
    const std::string line = last_words.substr(at, end - at);
    at = end + 1;
    if (line.empty() || line.starts_with("libbpf:") || line.starts_with("processed ") || line.starts_with("--")) {
      if (line.starts_with("processed ")) break;
      continue;
    }
    found = line;
  }
  return found;
}

std::string refusal(int error) {
  std::string text = std::string("the kernel refuses BPF: ") + std::strerror(error);
  if (error == EPERM)
    return text + "; the unit needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, see systemd/radiotower-relay-offload.conf";
  const std::string said = verdict();
  return said.empty() ? text : text + " (" + said + ")";
}

bool resize(bpf_object* object, const char* name, std::size_t entries) {
  bpf_map* map = bpf_object__find_map_by_name(object, name);
  return map && bpf_map__set_max_entries(map, static_cast<std::uint32_t>(std::max<std::size_t>(entries, 1))) == 0;
}

int descriptor_of(bpf_object* object, const char* name) {
  const bpf_map* map = bpf_object__find_map_by_name(object, name);
  return map ? bpf_map__fd(map) : -1;
}

Address to_words(const net::IpAddress& address) {
  Address words;
  std::memcpy(&words, address.bytes.data(), sizeof words);
  return words;
}

}  // namespace

SharedMemory::~SharedMemory() {
  if (at_) munmap(at_, bytes_);
}

bool SharedMemory::map(int descriptor, std::size_t bytes) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  bytes_ = (bytes + page - 1) / page * page;
  void* at = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  at_ = at == MAP_FAILED ? nullptr : at;
  return at_ != nullptr;
}

std::unique_ptr<Program> Program::load(const Sizes& sizes, std::string& why) {
  libbpf_set_print(remember);
  last_words.clear();
  std::unique_ptr<Program> program(new Program);
  program->sizes_ = {std::max<std::size_t>(sizes.flows, 1), std::max<std::size_t>(sizes.buckets, 1), sizes.addresses,
                     sizes.interfaces};

  const auto bytes = program_bytes();
  LIBBPF_OPTS(bpf_object_open_opts, options, .object_name = "radiotower");
  bpf_object* object = program->object_ = bpf_object__open_mem(bytes.data(), bytes.size(), &options);
  if (!object) {
    why = refusal(errno);
    return nullptr;
  }
  const Sizes& s = program->sizes_;
  if (!resize(object, "from_client", s.flows) || !resize(object, "from_peer", s.flows) ||
      !resize(object, "slots", s.flows) || !resize(object, "directions", 2 * s.flows) ||
      !resize(object, "buckets", s.buckets) || !resize(object, "addresses", s.addresses) ||
      !resize(object, "egress", s.interfaces)) {
    why = "the offload's program lacks a map";
    return nullptr;
  }
  if (const int error = bpf_object__load(object); error != 0) {
    why = refusal(-error);
    return nullptr;
  }
  program->descriptor_ = bpf_program__fd(bpf_object__find_program_by_name(object, "channels"));
  program->from_client_ = descriptor_of(object, "from_client");
  program->from_peer_ = descriptor_of(object, "from_peer");
  program->addresses_ = descriptor_of(object, "addresses");
  program->egress_ = descriptor_of(object, "egress");
  program->outcomes_ = descriptor_of(object, "outcomes");
  if (!program->slots_.map(descriptor_of(object, "slots"), s.flows * sizeof(Slot)) ||
      !program->directions_.map(descriptor_of(object, "directions"), 2 * s.flows * sizeof(Direction)) ||
      !program->buckets_.map(descriptor_of(object, "buckets"), s.buckets * sizeof(Bucket)) ||
      !program->control_.map(descriptor_of(object, ".bss"), sizeof(Control))) {
    why = std::string("the offload's maps cannot be mapped: ") + std::strerror(errno);
    return nullptr;
  }
  return program;
}

Program::~Program() {
  if (object_) bpf_object__close(object_);
}

void Program::keep_alive(Time until) {
  std::atomic_ref(control().alive_until).store(until.time_since_epoch().count(), std::memory_order_relaxed);
}

void Program::redirect_back(bool wanted) {
  std::atomic_ref(control().redirects_back).store(wanted ? 1 : 0, std::memory_order_relaxed);
}

bool Program::add_address(const net::IpAddress& address) {
  const Address key = to_words(address);
  const std::uint8_t value = 1;
  return bpf_map_update_elem(addresses_, &key, &value, BPF_ANY) == 0;
}

bool Program::add_egress(unsigned interface_index) {
  return bpf_map_update_elem(egress_, &interface_index, &interface_index, BPF_ANY) == 0;
}

bool Program::insert(const ClientKey& key, FlowWord id) const {
  return bpf_map_update_elem(from_client_, &key, &id, BPF_NOEXIST) == 0;
}
bool Program::insert(const Path& key, FlowWord id) const {
  return bpf_map_update_elem(from_peer_, &key, &id, BPF_NOEXIST) == 0;
}
void Program::erase(const ClientKey& key) const { bpf_map_delete_elem(from_client_, &key); }
void Program::erase(const Path& key) const { bpf_map_delete_elem(from_peer_, &key); }

Program::OutcomeCounts Program::outcomes() const {
  OutcomeCounts sums{};
  const int cpus = libbpf_num_possible_cpus();
  if (cpus <= 0) return sums;
  std::vector<std::uint64_t> of_cpus(static_cast<std::size_t>(cpus));
  for (std::uint32_t outcome = 0; outcome < outcome_count; ++outcome) {
    if (bpf_map_lookup_elem(outcomes_, &outcome, of_cpus.data()) != 0) continue;
    sums[outcome] = std::accumulate(of_cpus.begin(), of_cpus.end(), std::uint64_t{0});
  }
  return sums;
}

}  // namespace radiotower::offload
