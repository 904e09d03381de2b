// Of metrics_text(): the process, under the names that all who are scraped by Prometheus use.
#include <dirent.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "metrics_text.h"

namespace radiotower::daemon {

namespace {

double seconds_of(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

std::string read_file(const char* path) {
  std::string text;
  if (std::FILE* const file = std::fopen(path, "re")) {
    char buffer[2048];
    text.assign(buffer, std::fread(buffer, 1, sizeof buffer, file));
    std::fclose(file);
  }
  return text;
}

std::uint64_t open_descriptors() {
  std::uint64_t count = 0;
  if (DIR* const folder = opendir("/proc/self/fd")) {
    while (const dirent* const entry = readdir(folder)) count += entry->d_name[0] != '.' ? 1 : 0;
    closedir(folder);
  }
  return count == 0 ? 0 : count - 1;  // the folder's own
}

}  // namespace

/// /proc/self alone: the unit hides all else of /proc.
void add_process_metrics(Exposition& out) {
  const std::string stat = read_file("/proc/self/stat");
  const std::size_t name_ends = stat.rfind(')');  // the name may hold blanks and brackets
  unsigned long long user = 0, system = 0, started = 0, virtual_bytes = 0;
  long long pages = 0;
  if (name_ends == stat.npos ||
      std::sscanf(stat.c_str() + name_ends + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %llu %llu %lld",
                  &user, &system, &started, &virtual_bytes, &pages) != 5)
    return;
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  out.one("process_cpu_seconds_total", MetricType::Counter, "CPU time of all threads, in user space and in the kernel.", static_cast<double>(user + system) / ticks);
  out.one("process_resident_memory_bytes", MetricType::Gauge, "Memory that is in RAM.", static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)));
  out.one("process_virtual_memory_bytes", MetricType::Gauge, "Address space in use.", virtual_bytes);
  out.one("process_open_fds", MetricType::Gauge, "Open descriptors.", open_descriptors());
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  out.one("process_max_fds", MetricType::Gauge, "Descriptors that the process may have open.", limit.rlim_cur);
  out.one("process_start_time_seconds", MetricType::Gauge, "When the process began, in seconds since 1970.", static_cast<std::uint64_t>(seconds_of(CLOCK_REALTIME) - seconds_of(CLOCK_BOOTTIME) + static_cast<double>(started) / ticks));
}

}  // namespace radiotower::daemon
