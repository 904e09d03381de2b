#include "measures.h"

#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

namespace radiotower::load {
namespace {

std::int64_t read_clock(clockid_t clock) {
  timespec t{};
  if (clock_gettime(clock, &t) != 0) return -1;
  return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

// The number behind "Key:" in a file of "Key:   123 kB" lines; 0 when there is none.
std::int64_t number_behind(const std::string& file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key)) return std::strtoll(line.c_str() + key.size(), nullptr, 10);
  return 0;
}

}  // namespace

std::int64_t steady_ns() { return read_clock(CLOCK_MONOTONIC); }
std::int64_t own_thread_cpu_ns() { return read_clock(CLOCK_THREAD_CPUTIME_ID); }

std::int64_t process_cpu_ns(pid_t pid) {
  clockid_t clock{};
  if (pid <= 0) return 0;  // 0 would be this process
  if (clock_getcpuclockid(pid, &clock) != 0) return -1;
  return read_clock(clock);
}

std::int64_t machine_busy_ns() {
  std::ifstream in("/proc/stat");
  std::string cpu;
  std::int64_t user = 0, nice = 0, system = 0, idle = 0, io_wait = 0, irq = 0, soft_irq = 0;
  in >> cpu >> user >> nice >> system >> idle >> io_wait >> irq >> soft_irq;
  return (user + nice + system + irq + soft_irq) * (1'000'000'000 / sysconf(_SC_CLK_TCK));
}

std::int64_t softirq_threads_cpu_ns() {
  static const std::vector<std::string> files = [] {
    std::vector<std::string> found;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
      std::ifstream in(entry.path() / "comm");
      std::string name;
      if (std::getline(in, name) && name.starts_with("ksoftirqd/")) found.push_back(entry.path() / "schedstat");
    }
    return found;
  }();
  std::int64_t sum = 0;
  for (const std::string& file : files) {
    std::int64_t on_cpu = 0;  // the first of three numbers
    if (std::ifstream(file) >> on_cpu) sum += on_cpu;
  }
  return sum;
}

ProcessMemory process_memory(pid_t pid) {
  const std::string file = "/proc/" + std::to_string(pid) + "/status";
  return {number_behind(file, "VmRSS:"), number_behind(file, "RssAnon:")};
}

KernelMemory kernel_memory() {
  KernelMemory memory;
  memory.slab_kb = number_behind("/proc/meminfo", "Slab:");
  std::ifstream in("/proc/net/sockstat");  // "UDP: inuse 3 mem 1"
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("UDP:")) continue;
    std::istringstream words(line);
    std::string word;
    words >> word >> word >> memory.udp_sockets >> word >> memory.udp_pages;
  }
  return memory;
}

}  // namespace radiotower::load
