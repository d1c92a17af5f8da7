#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include "base/fuzz.hpp"
#include "session/test_packets.hpp"
#include "session/tree_receiver.hpp"
#include "sys/file.hpp"

using gantry::fuzz::accepts;
using gantry::fuzz::require;
namespace session = gantry::session;
namespace sys = gantry::sys;
namespace fs = std::filesystem;

namespace {

/// Each packet is a length byte pair and its bytes; what does not parse ends the script.
std::vector<fsutil::types::Packet> read_script(const std::uint8_t* data, std::size_t size) {
  std::vector<fsutil::types::Packet> script;
  for (std::size_t at = 0; at + 2 <= size && script.size() < 200;) {
    const std::size_t length = std::min<std::size_t>(data[at] | (data[at + 1] << 8), size - at - 2);
    if (!script.emplace_back().ParseFromArray(data + at + 2, static_cast<int>(length))) {
      script.pop_back();
      break;
    }
    at += 2 + length;
  }
  return script;
}

}  // namespace

// What a client sends of a build context: whatever it is, nothing beside the directory changes.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const fs::path top = fs::temp_directory_path() / ("gantry-packets-fuzz-" + std::to_string(::getpid()));
  sys::remove_tree(top);
  fs::create_directories(top / "root/kept");
  std::ofstream(top / "outside") << "untouched";
  std::ofstream(top / "root/file") << "old";
  fs::create_symlink("../outside", top / "root/link");
  session::ScriptedPackets stream(read_script(data, size));
  {
    const sys::Fd root = sys::open_file(top / "root", O_RDONLY | O_DIRECTORY);
    accepts([&] { session::receive_tree(stream, root.get(), false, [](const std::string&) {}, [](std::int64_t) {}); });
  }
  require(sys::read_file(top / "outside") == "untouched", "a client cannot write outside of the directory");
  require(std::distance(fs::directory_iterator(top), fs::directory_iterator()) == 2, "nor make anything there");
  sys::remove_tree(top);
  return 0;
}
