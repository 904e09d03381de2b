// The files of a translation, written so that nobody else can read what is secret in them.
#pragma once

#include <string>
#include <vector>

#include "translation.h"

namespace radiotower::cli {

/// Makes the folder if it is not there (0700, and its parents must be), and every file in it anew with mode 0600: an old one, whatever it is, is replaced and
/// never written into. Without `force` nothing is written when one of the files is there already. False and a sentence in `why`.
bool write_files(const std::string& folder, const std::vector<OutFile>& files, bool force, std::string& why);

}  // namespace radiotower::cli
