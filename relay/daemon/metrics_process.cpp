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

using Kind = Exposition::Kind;

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
  out.family("process_cpu_seconds_total", Kind::counter, "CPU time of all threads, in user space and in the kernel.");
  out.sample("", static_cast<double>(user + system) / ticks);
  out.family("process_resident_memory_bytes", Kind::gauge, "Memory that is in RAM.");
  out.sample("", static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)));
  out.family("process_virtual_memory_bytes", Kind::gauge, "Address space in use.");
  out.sample("", std::uint64_t{virtual_bytes});
  out.family("process_open_fds", Kind::gauge, "Open descriptors.");
  out.sample("", open_descriptors());
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  out.family("process_max_fds", Kind::gauge, "Descriptors that the process may have open.");
  out.sample("", std::uint64_t{limit.rlim_cur});
  out.family("process_start_time_seconds", Kind::gauge, "When the process began, in seconds since 1970.");
  out.sample("", static_cast<std::uint64_t>(seconds_of(CLOCK_REALTIME) - seconds_of(CLOCK_BOOTTIME) + static_cast<double>(started) / ticks));
}

}  // namespace radiotower::daemon
