// A load that is told by lines what to do, and answers each with a line of JSON: for bench/compare.
#pragma once

#include "credentials.h"
#include "sessions.h"

namespace radiotower::load {

/// Reads standard input to its end or to "quit". The exit code.
///
///   set-up | renew | tear-down | verify | memory
///   traffic up|down|both RATE SIZE TRAIN SECONDS          RATE 0: as many as can be sent
///   profile NAME up|down|both RATE TRAIN SECONDS          RATE 0: its own
///   search up|down|both SIZE TRAIN SECONDS FIRST-RATE     SECONDS of each step
///   storm SECONDS
///   flood RATE TRAIN CORE                                 begins; CORE -1: this one
///   calm                                                  ends it, and tells what it was
int obey(Sessions& sessions);

}  // namespace radiotower::load
