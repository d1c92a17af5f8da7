#pragma once

#include <functional>
#include <memory>

#include "api/request.hpp"
#include "image/progress.hpp"
#include "storage/byte_source.hpp"

namespace gantry::api {

/// When the reply of a long verb begins.
enum class ReplyStart {
  with_first_message,  // a verb that fails before it says anything gets an HTTP status of its own
  at_once,             // every failure is a message in a reply with status 200
};

/// Runs a verb and sends its messages as they come. A client that goes away cancels it. `body`: if given, the request's
/// body is fed into it meanwhile.
Task<Response> reply_with_progress(Request request, std::function<Task<void>(image::ProgressPtr)> verb,
                                   ReplyStart start, std::shared_ptr<storage::ByteChannel> body = nullptr);

/// Sends a stream of bytes as the reply's body. What breaks before the first byte is the caller's to throw.
Task<Response> reply_with_stream(Request request, std::string content_type,
                                 std::shared_ptr<storage::ByteChannel> stream);

}  // namespace gantry::api
