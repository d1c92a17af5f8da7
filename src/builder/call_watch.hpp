#pragma once

#include <condition_variable>
#include <list>
#include <mutex>
#include <stop_token>
#include <thread>

#include <grpcpp/server_context.h>

namespace gantry::builder {

/// Stop tokens of calls: gRPC's synchronous servers tell only on demand whether a client has gone.
class CallWatch {
 public:
  CallWatch();
  ~CallWatch() = default;
  CallWatch(const CallWatch&) = delete;
  CallWatch& operator=(const CallWatch&) = delete;

  /// A call while it runs: its token is stopped within a fifth of a second of the client's leaving.
  class Call {
   public:
    Call(CallWatch& watch, grpc::ServerContext& context);
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    std::stop_token stop() const { return source_.get_token(); }

   private:
    friend class CallWatch;
    CallWatch& watch_;
    grpc::ServerContext& context_;
    std::stop_source source_;
    std::list<Call*>::iterator place_;
  };

 private:
  void run(const std::stop_token& stop);

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::list<Call*> calls_;
  std::jthread thread_;
};

}  // namespace gantry::builder
