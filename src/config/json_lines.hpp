#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace gantry::config {

/// Where things are in a JSON text. Paths are "a.b" for members and "a[0]" for elements.
struct JsonLines {
  std::map<std::string, int> line_of;  // of the key of a member, or of the first character of an element
  struct Duplicate {
    std::string path;
    int first_line;
    int second_line;
  };
  std::vector<Duplicate> duplicates;
};

/// Requires  a valid JSON document: what a parser has accepted already.
JsonLines scan_json_lines(std::string_view text);

/// For a text that a parser refused at `offset`: the line, and what is wrong there in words.
struct JsonFault {
  int line = 1;
  std::string message;
};
JsonFault explain_json_fault(std::string_view text, std::size_t offset);

}  // namespace gantry::config
