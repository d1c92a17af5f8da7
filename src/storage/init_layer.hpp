#pragma once

#include "sys/file.hpp"

namespace gantry::storage {

/// The lowest layer of every container, one directory for all of them: the places where things are mounted
/// (/dev, /proc, /sys, /etc/hosts, /etc/resolv.conf, /etc/hostname, /dev/console), /.dockerenv, and /etc/mtab.
///
/// As a layer, it makes them exist in the container without being a change of the container. As the lowest one, it
/// gives way to whatever the image has there. Docker makes such a directory for each container instead, because its
/// lies above the image.
///
/// Makes what is missing and leaves the rest: idempotent. Blocks; throws Error.
void make_init_layer(const sys::Path& directory);

/// Its place below the data root.
sys::Path init_layer_directory(const sys::Path& data_root);

}  // namespace gantry::storage
