#pragma once

#include "dockerfile/instruction.hpp"

namespace gantry::dockerfile {

/// What a FROM says, without the stage's instructions. Both throw Error(invalid_argument) without a place.
Stage make_stage(const Node& node);
/// What any other instruction says. `unknown instruction: FNTRYPOINT (did you mean ENTRYPOINT?)`.
Instruction make_instruction(const Node& node);

}  // namespace gantry::dockerfile
