// What a process and the machine have used, as the kernel counts it. Linux only, by way of /proc.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace radiotower::load {

std::int64_t steady_ns();
std::int64_t own_thread_cpu_ns();

/// CPU time of all threads of a process, ended ones included. It is the counter that /proc/PID/task/*/schedstat shows,
/// read through the process's CPU clock, which also counts the part of a tick that a running thread has used.
/// 0 for pid 0, which stands for one that nobody has told; -1: no such process.
std::int64_t process_cpu_ns(pid_t pid);

/// Time the CPUs were not idle (user, system, interrupts; not stolen time), in steps of a clock tick (10 ms).
std::int64_t machine_busy_ns();

/// CPU time of the kernel's threads for packets that were put off (ksoftirqd), to the nanosecond. All other work on a packet is
/// done in whoever happens to run: with virtual interfaces that is who has sent it. 0 where the kernel does not show them.
std::int64_t softirq_threads_cpu_ns();

struct ProcessMemory {
  std::int64_t rss_kb = 0;   // VmRSS
  std::int64_t anon_kb = 0;  // RssAnon: what the process itself has written, without the pages of files
};
ProcessMemory process_memory(pid_t pid);

struct KernelMemory {
  std::int64_t slab_kb = 0;    // of the whole machine
  std::int64_t udp_pages = 0;  // pages that queued datagrams hold (/proc/net/sockstat)
  std::int64_t udp_sockets = 0;
};
KernelMemory kernel_memory();

}  // namespace radiotower::load
