#include "async/readable.hpp"

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace asio = boost::asio;

namespace gantry::async {

struct Readable::State {
  State(asio::any_io_executor loop, sys::Fd fd) : descriptor(std::move(loop), fd.release()) {}
  asio::posix::stream_descriptor descriptor;
};

Readable::Readable(asio::any_io_executor loop, sys::Fd fd)
    : state_(std::make_unique<State>(std::move(loop), std::move(fd))) {}
Readable::~Readable() = default;
Readable::Readable(Readable&&) noexcept = default;
Readable& Readable::operator=(Readable&&) noexcept = default;

Task<void> Readable::wait() {
  co_await state_->descriptor.async_wait(asio::posix::stream_descriptor::wait_read, asio::use_awaitable);
}

int Readable::fd() const { return state_->descriptor.native_handle(); }

}  // namespace gantry::async
