#include "api/wire.hpp"

#include <algorithm>

#include <boost/asio/error.hpp>

#include "base/error.hpp"
#include "base/expect.hpp"

namespace asio = boost::asio;

namespace gantry::api {
namespace {

constexpr std::size_t kInitialBuffer = 4096;
constexpr std::size_t kKeptBuffer = 16384;
// While a handler runs, so much of what the client sends behind its request is read in order to notice its end.
constexpr std::size_t kReadAheadLimit = 65536;

}  // namespace

Wire::Wire(std::unique_ptr<Transport> transport) : transport_(std::move(transport)), data_(kInitialBuffer) {}

Wire::~Wire() = default;

void Wire::consume(std::size_t n) {
  EXPECTS(n <= end_ - begin_);
  begin_ += n;
  if (begin_ == end_ && !reading_) begin_ = end_ = 0;
}

void Wire::shrink() {
  wanted_ = 0;
  if (reading_ || begin_ != end_ || data_.size() <= kKeptBuffer) return;
  data_ = std::vector<char>(kInitialBuffer);
  begin_ = end_ = 0;
}

void Wire::start_read() {
  if (end_ == data_.size()) {
    const std::size_t used = end_ - begin_;
    if (begin_ > 0)
      std::copy(data_.begin() + static_cast<std::ptrdiff_t>(begin_), data_.begin() + static_cast<std::ptrdiff_t>(end_),
                data_.begin());
    begin_ = 0;
    end_ = used;
    if (used > data_.size() / 2) data_.resize(std::max(used + kInitialBuffer, data_.size() * 2));
  }
  reading_ = true;
  transport_->read_some(
      data_.data() + end_, data_.size() - end_,
      [self = shared_from_this()](boost::system::error_code ec, std::size_t n) { self->read_done(ec, n); });
}

void Wire::read_done(boost::system::error_code ec, std::size_t n) {
  reading_ = false;
  end_ += n;
  if (ec == asio::error::eof) eof_ = true;
  // A read that was cancelled in order to stop reading (release) has not failed.
  else if (ec && !(ec == asio::error::operation_aborted && !closed_)) broken_ = true;
  read_changed_.notify();
  if (!read_ahead_ || ec == asio::error::operation_aborted) return;
  if (broken_) return went_away();
  if (eof_ && transport_->eof_may_be_half_close() && !transport_->is_hung_up()) return start_hangup_wait();
  if (eof_) return went_away();
  if (end_ - begin_ < kReadAheadLimit) start_read();
}

Task<bool> Wire::fill() {
  auto self = shared_from_this();
  if (data_.size() < wanted_ && !reading_) data_.resize(wanted_);
  const std::size_t before = end_ - begin_;
  while (end_ - begin_ == before) {
    if (broken_ || closed_) throw Error(Errc::cancelled, "client connection: broken");
    if (eof_) co_return false;
    if (!reading_) start_read();
    co_await read_changed_.wait();
  }
  co_return true;
}

Task<void> Wire::write(Transport::Buffers buffers) {
  auto self = shared_from_this();
  if (closed_ || gone_) throw Error(Errc::cancelled, "client connection: closed");
  try {
    co_await transport_->write(buffers);
  } catch (const Error&) {
    gone_ = true;  // a reply that stopped in the middle cannot be continued
    throw;
  }
}

void Wire::watch(std::function<void()> on_gone) {
  on_gone_ = std::move(on_gone);
  read_ahead_ = true;
  if (broken_ || closed_) return went_away();
  if (eof_ && (!transport_->eof_may_be_half_close() || transport_->is_hung_up())) return went_away();
  if (eof_) return start_hangup_wait();
  if (!reading_ && end_ - begin_ < kReadAheadLimit) start_read();
}

void Wire::stop_reading_ahead() {
  read_ahead_ = false;
  if (on_gone_) start_hangup_wait();
}

void Wire::stop_watching() {
  read_ahead_ = false;
  on_gone_ = nullptr;
}

void Wire::start_hangup_wait() {
  if (hangup_pending_ || closed_) return;
  hangup_pending_ = true;
  transport_->wait_hangup([self = shared_from_this()](boost::system::error_code ec, std::size_t) {
    self->hangup_pending_ = false;
    if (ec) return;
    if (self->transport_->is_hung_up()) self->went_away();
    else self->start_hangup_wait();
  });
}

void Wire::went_away() {
  gone_ = true;
  hung_up_.notify();
  if (auto told = std::exchange(on_gone_, nullptr)) told();
}

Task<void> Wire::wait_hangup() {
  auto self = shared_from_this();
  if (!gone_) start_hangup_wait();
  while (!gone_ && !closed_) co_await hung_up_.wait();
}

Task<sys::Fd> Wire::release() {
  auto self = shared_from_this();
  stop_watching();
  while (reading_ || hangup_pending_) {
    transport_->cancel();
    if (reading_) co_await read_changed_.wait();
    else co_await async::sleep_for(std::chrono::nanoseconds(0));
  }
  if (closed_ || broken_) throw Error(Errc::cancelled, "client connection: closed");
  closed_ = true;
  co_return transport_->release();
}

void Wire::close() {
  if (closed_) return;
  closed_ = true;
  transport_->close();
  read_changed_.notify();
  hung_up_.notify();
}

}  // namespace gantry::api
