#include "qr.h"

#include <qrencode.h>

#include <memory>

namespace radiotower::cli::page {

std::string qr_code(const std::string& text, bool colour) {
  const std::unique_ptr<QRcode, decltype(&QRcode_free)> code(QRcode_encodeString8bit(text.c_str(), 0, QR_ECLEVEL_L), QRcode_free);
  if (!code) return {};
  constexpr int margin = 2;  // four by the standard; phones take two, and the code stays small
  const auto dark = [&](int x, int y) { return x >= 0 && y >= 0 && x < code->width && y < code->width && (code->data[y * code->width + x] & 1) != 0; };
  std::string out;
  for (int y = -margin; y < code->width + margin; y += 2) {
    if (colour) out += "\x1b[40;97m";
    // A full block is light, so that it is right where letters are light.
    for (int x = -margin; x < code->width + margin; ++x) out += dark(x, y) ? (dark(x, y + 1) ? " " : "▄") : (dark(x, y + 1) ? "▀" : "█");
    if (colour) out += "\x1b[0m";
    out += '\n';
  }
  return out;
}

}  // namespace radiotower::cli::page
