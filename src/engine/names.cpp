#include "engine/names.hpp"

#include <array>
#include <random>

#include <fmt/format.h>

#include "engine/messages.hpp"

namespace gantry::engine {
namespace {

constexpr std::array kLeft{
    "able",   "agile",    "amber",   "ample",    "apt",     "astute",   "awake",    "balanced", "bold",    "brave",
    "breezy", "bright",   "brisk",   "calm",     "candid",  "careful",  "cheerful", "civil",    "clear",   "clever",
    "cosmic", "crisp",    "curious", "daring",   "deft",    "diligent", "eager",    "earnest",  "easy",    "elegant",
    "epic",   "exact",    "fair",    "faithful", "fervent", "festive",  "fine",     "fluent",   "focused", "frank",
    "fresh",  "friendly", "gallant", "generous", "gentle",  "glad",     "golden",   "graceful", "grand",   "happy",
    "hardy",  "hearty",   "honest",  "hopeful",  "humble",  "ideal",    "jolly",    "joyful",   "keen",    "kind",
    "lively", "logical",  "loyal",   "lucid",    "lucky",   "merry",    "mighty",   "modest",   "neat",    "nimble",
    "noble",  "open",     "patient", "peaceful", "placid",  "playful",  "polite",   "prompt",   "proud",   "quick",
    "quiet",  "rapid",    "ready",   "robust",   "serene",  "sharp",    "silent",   "sincere",  "smart",   "solid",
    "spry",   "steady",   "stoic",   "sturdy",   "subtle",  "sunny",    "swift",    "tender",   "tidy",    "trusty",
    "upbeat", "vivid",    "warm",    "wise",     "witty",   "zealous"};

constexpr std::array kRight{
    "abel",        "archimedes", "babbage",    "banneker",   "bardeen",      "bell",     "bernoulli",  "bessel",
    "bohr",        "boole",      "bose",       "boyle",      "brahe",        "brattain", "cantor",     "carson",
    "cauchy",      "cavendish",  "cerf",       "chandra",    "church",       "clarke",   "conway",     "copernicus",
    "coulomb",     "crick",      "curie",      "dalton",     "darwin",       "dijkstra", "dirac",      "doppler",
    "edison",      "einstein",   "elion",      "engelbart",  "eratosthenes", "erdos",    "euclid",     "euler",
    "faraday",     "fermat",     "fermi",      "feynman",    "fibonacci",    "floyd",    "fourier",    "franklin",
    "galileo",     "galois",     "gauss",      "germain",    "gibbs",        "goodall",  "gray",       "hamilton",
    "harvey",      "hawking",    "heisenberg", "helmholtz",  "herschel",     "hertz",    "hilbert",    "hodgkin",
    "hopper",      "hubble",     "huffman",    "huygens",    "hypatia",      "johnson",  "joule",      "kalman",
    "kay",         "keller",     "kelvin",     "kepler",     "khayyam",      "kilby",    "knuth",      "kovalevskaya",
    "lagrange",    "lamarr",     "laplace",    "lavoisier",  "leavitt",      "leibniz",  "linnaeus",   "liskov",
    "lorenz",      "lovelace",   "mach",       "mandelbrot", "maxwell",      "mccarthy", "mcclintock", "meitner",
    "mendel",      "mendeleev",  "minsky",     "mirzakhani", "moore",        "morse",    "napier",     "nash",
    "newton",      "nobel",      "noether",    "noyce",      "ohm",          "pare",     "pascal",     "pasteur",
    "pauling",     "payne",      "perlman",    "planck",     "poincare",     "poitras",  "ramanujan",  "ride",
    "riemann",     "ritchie",    "roentgen",   "rosalind",   "rutherford",   "sagan",    "shannon",    "shockley",
    "sinoussi",    "somerville", "stallman",   "steno",      "swan",         "tesla",    "thales",     "thompson",
    "torvalds",    "turing",     "vaughan",    "venn",       "villani",      "volta",    "watt",       "wegner",
    "weierstrass", "wien",       "wiles",      "wilson",     "wing",         "wirth",    "wright",     "wu",
    "yalow",       "zeno",       "zuse"};

bool is_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

}  // namespace

void validate_container_name(const std::string& name, const std::string& shown_before) {
  bool valid = name.size() >= 2 && is_alnum(name[0]);
  for (const char c : name) valid = valid && (is_alnum(c) || c == '_' || c == '.' || c == '-');
  if (!valid) throw invalid_container_name(shown_before + name);
}

std::string generate_name(int attempt) {
  static std::mt19937 random{std::random_device{}()};
  const std::string name = fmt::format("{}_{}", kLeft[random() % kLeft.size()], kRight[random() % kRight.size()]);
  return attempt == 0 ? name : fmt::format("{}{}", name, random() % 10);
}

}  // namespace gantry::engine
