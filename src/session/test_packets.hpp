#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "session/packet_stream.hpp"

namespace gantry::session {

/// Two ends of an exchange in memory.
class PacketPipe {
 public:
  PacketPipe() : ends_{End(*this, 0), End(*this, 1)} {}
  PacketStream& end(int which) { return ends_[which]; }
  /// Nothing comes from this end any more.
  void close(int which) {
    const std::lock_guard lock(mutex_);
    closed_[which] = true;
    moved_.notify_all();
  }

 private:
  class End final : public PacketStream {
   public:
    End(PacketPipe& pipe, int side) : pipe_(pipe), side_(side) {}
    bool read(fsutil::types::Packet& packet) override {
      std::unique_lock lock(pipe_.mutex_);
      auto& queue = pipe_.queues_[1 - side_];
      pipe_.moved_.wait(lock, [&] { return !queue.empty() || pipe_.closed_[1 - side_] || pipe_.closed_[side_]; });
      if (queue.empty()) return false;
      packet = std::move(queue.front());
      queue.pop_front();
      return true;
    }
    bool write(const fsutil::types::Packet& packet) override {
      const std::lock_guard lock(pipe_.mutex_);
      if (pipe_.closed_[side_]) return false;
      pipe_.queues_[side_].push_back(packet);
      pipe_.moved_.notify_all();
      return true;
    }
    void cancel() override { pipe_.close(side_); }

   private:
    PacketPipe& pipe_;
    int side_;
  };

  std::mutex mutex_;
  std::condition_variable moved_;
  std::deque<fsutil::types::Packet> queues_[2];
  bool closed_[2] = {false, false};
  End ends_[2];
};

/// A sender that says what the test wrote down, and hears nothing.
class ScriptedPackets final : public PacketStream {
 public:
  explicit ScriptedPackets(std::vector<fsutil::types::Packet> script) : script_(std::move(script)) {}
  bool read(fsutil::types::Packet& packet) override {
    if (next_ == script_.size()) return false;
    packet = script_[next_++];
    return true;
  }
  bool write(const fsutil::types::Packet& packet) override {
    written.push_back(packet);
    return true;
  }
  void cancel() override { next_ = script_.size(); }

  std::vector<fsutil::types::Packet> written;

 private:
  std::vector<fsutil::types::Packet> script_;
  std::size_t next_ = 0;
};

}  // namespace gantry::session
