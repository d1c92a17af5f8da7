# Helpers of the scripts in this folder. Sourced, never run. Bash.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
logs=$repo/build/logs
preset=${GANTRY_PRESET:-release}
build=$repo/build/$preset

say() { printf '%s\n' "$*"; }
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

need_root() { [ "$(id -u)" = 0 ] || die "needs root: sudo $0 $*"; }

# step NAME TEXT COMMAND...: runs COMMAND with its output in build/logs/NAME.log. Says what it does and that it goes on;
# a failure names the step and the log, shows the log's end, and ends the script with the command's status.
step() {
  local name=$1 text=$2 log=$logs/$1.log start=$SECONDS pid status=0
  shift 2
  mkdir -p "$logs"
  printf '== %s\n' "$text"
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  show_progress "$pid" "$log"
  wait "$pid" || status=$?
  if [ "$status" != 0 ]; then
    tail -n 25 "$log" | sed 's/^/   | /'
    printf '== FAILED: %s (status %s). Its log: %s\n' "$text" "$status" "$log" >&2
    exit "$status"
  fi
  printf '   done in %s s\n' $((SECONDS - start))
}

# The last line of the log: rewritten in place on a terminal, now and then elsewhere.
show_progress() {
  local pid=$1 log=$2 start=$SECONDS shown=$SECONDS line
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    line=$(tail -n 1 "$log" 2>/dev/null | tr -d '\r' | cut -c1-90)
    if [ -t 1 ]; then
      printf '\r\033[K   %4s s  %s' $((SECONDS - start)) "$line"
    elif [ $((SECONDS - shown)) -ge 20 ]; then
      shown=$SECONDS
      printf '   %4s s  %s\n' $((SECONDS - start)) "$line"
    fi
  done
  if [ -t 1 ]; then printf '\r\033[K'; fi
}

install_packages() {
  local missing
  missing=$("$repo/scripts/packages" --missing "$@")
  if [ -z "$missing" ]; then return 0; fi
  need_root
  step packages "installing Debian packages: $(echo $missing)" apt_install $missing
}

apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -y -q --no-install-recommends "$@"
}

# build TARGET...: configures and builds with the preset.
build() {
  local tests=$1
  shift
  step configure "configuring ($preset)" cmake -S "$repo" --preset "$preset" "-DGANTRY_TESTS=$tests"
  step build "building $* ($preset, $(nproc) cores; a first build takes a while)" \
    ninja -C "$build" -j "$(nproc)" "$@"
}

# Sets $docker to a docker client: the machine's, or Debian's, unpacked below build/ and not installed.
find_docker_client() {
  docker=$(command -v docker || true)
  if [ -n "$docker" ]; then return 0; fi
  docker=$repo/build/docker-client/usr/bin/docker
  if [ ! -x "$docker" ]; then
    step docker-client "fetching Debian's docker client (not installed, only unpacked)" unpack_docker_client
  fi
}

unpack_docker_client() {
  local into=$repo/build/docker-client
  mkdir -p "$into/debs"
  # The client is docker-cli from Debian 13 on, and a part of docker.io before.
  (cd "$into/debs" && { apt-get download -q docker-cli || apt-get download -q docker.io; })
  for package in "$into"/debs/*.deb; do dpkg -x "$package" "$into"; done
  test -x "$into/usr/bin/docker"
}
