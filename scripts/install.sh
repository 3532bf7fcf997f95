#!/bin/sh
# Installs what `deno task dist` has made: program, units, manual page, completions, default configuration.
#   PREFIX=/usr/local scripts/install.sh
# Variables:
#   PREFIX   where the program goes (default /usr)
#   DESTDIR  put in front of every path, for packages; the host itself is left alone then
#   DIST     the folder with lockvisor and lockvisor.8 (default: dist of this project)
#   ZSH_COMPLETIONS  zsh's folder for completions (default PREFIX/share/zsh/site-functions)
# Can be repeated. A configuration that is there is never touched, nor is any guest: the program is replaced by
# rename, and a guest that runs has long become its own command.
set -eu

project=$(cd "$(dirname "$0")/.." && pwd)
: "${PREFIX:=/usr}" "${DESTDIR:=}" "${DIST:=$project/dist}" "${ZSH_COMPLETIONS:=$PREFIX/share/zsh/site-functions}"

fail() {
  echo "install: $1" >&2
  exit "$2"
}

case $PREFIX in
  *[!A-Za-z0-9/._+-]*) fail "PREFIX is \"$PREFIX\"; it may have A-Z a-z 0-9 / . _ + - only" 64 ;;
  /*) ;;
  *) fail "PREFIX is \"$PREFIX\"; it must be an absolute path" 64 ;;
esac
for made in lockvisor lockvisor.8; do
  [ -f "$DIST/$made" ] || fail "$DIST/$made is not there; make it with: deno task dist" 69
done
program=$DIST/lockvisor

# folder PATH [MODE]: makes it if need be; one that is there keeps the mode that somebody gave it.
folder() {
  [ -d "$DESTDIR$1" ] || (umask 022 && mkdir -p "$DESTDIR$1" && chmod "${2:-0755}" "$DESTDIR$1")
}

# place MODE PATH: standard input becomes that file in one step, so that nobody finds half of it.
place() {
  folder "$(dirname "$2")"
  beside=$DESTDIR$(dirname "$2")/.$(basename "$2").new.$$
  trap 'rm -f "$beside"' EXIT
  cat >"$beside"
  chmod "$1" "$beside"
  mv -f "$beside" "$DESTDIR$2"
  trap - EXIT
}

# completion SHELL PATH: what the program itself prints.
completion() {
  script=$("$program" completion "$1") || fail "$program cannot be run here, so there is no completion for $1" 69
  printf '%s\n' "$script" | place 0644 "$2"
}

units=$PREFIX/lib/systemd/system
for unit in lockvisor.service lockvisor-guest@.service; do
  sed "s|@PREFIX@|$PREFIX|g" "$project/systemd/$unit" | place 0644 "$units/$unit"
done
completion bash "$PREFIX/share/bash-completion/completions/lockvisor"
completion zsh "$ZSH_COMPLETIONS/_lockvisor"
completion fish "$PREFIX/share/fish/vendor_completions.d/lockvisor.fish"
place 0644 "$PREFIX/share/man/man8/lockvisor.8" <"$DIST/lockvisor.8"
examples=$PREFIX/share/doc/lockvisor/examples
place 0644 "$examples/lockvisor.toml" <"$project/etc/lockvisor.toml"
place 0644 "$examples/guest.conf" <"$project/systemd/guest.conf.example"

folder /etc/lockvisor/guests
folder /etc/lockvisor/hooks.d
if [ -e "$DESTDIR/etc/lockvisor/lockvisor.toml" ]; then
  echo "kept: $DESTDIR/etc/lockvisor/lockvisor.toml"
else
  place 0644 /etc/lockvisor/lockvisor.toml <"$project/etc/lockvisor.toml"
fi
place 0755 "$PREFIX/bin/lockvisor" <"$program"
echo "installed: $DESTDIR$PREFIX/bin/lockvisor"

# A package does the rest when it is installed.
[ -z "$DESTDIR" ] || exit 0
getent group lockvisor >/dev/null || groupadd --system lockvisor
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
echo "start the agent: systemctl enable --now lockvisor; one that runs: systemctl restart lockvisor"
