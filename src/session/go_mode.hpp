#pragma once

#include <cstdint>

#include <sys/types.h>

/// The mode of a Stat: the bits of Go's os.FileMode, not those of stat(2).
namespace gantry::session {

inline constexpr std::uint32_t kGoDirectory = 1U << 31;
inline constexpr std::uint32_t kGoSymlink = 1U << 27;
inline constexpr std::uint32_t kGoDevice = 1U << 26;
inline constexpr std::uint32_t kGoFifo = 1U << 25;
inline constexpr std::uint32_t kGoSocket = 1U << 24;
inline constexpr std::uint32_t kGoSetuid = 1U << 23;
inline constexpr std::uint32_t kGoSetgid = 1U << 22;
inline constexpr std::uint32_t kGoCharDevice = 1U << 21;  // beside kGoDevice
inline constexpr std::uint32_t kGoSticky = 1U << 20;
inline constexpr std::uint32_t kGoIrregular = 1U << 19;
inline constexpr std::uint32_t kGoTypes =
    kGoDirectory | kGoSymlink | kGoDevice | kGoFifo | kGoSocket | kGoCharDevice | kGoIrregular;

inline constexpr bool is_regular(std::uint32_t go_mode) noexcept { return (go_mode & kGoTypes) == 0; }

/// The mode as stat(2) gives it. Throws invalid_argument for sockets and for types that stat(2) does not know.
mode_t to_st_mode(std::uint32_t go_mode);
std::uint32_t to_go_mode(mode_t st_mode) noexcept;

}  // namespace gantry::session
