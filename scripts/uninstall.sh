#!/bin/sh
# Removes what scripts/install.sh has installed; give it the same PREFIX, DESTDIR and ZSH_COMPLETIONS.
# What is of the host stays: the configuration in /etc/lockvisor, the lockspace in /var/lib/lockvisor, the records in
# /run/lockvisor, the group. The agent is stopped; guests run on under their locks.
set -eu

: "${PREFIX:=/usr}" "${DESTDIR:=}" "${ZSH_COMPLETIONS:=$PREFIX/share/zsh/site-functions}"

case $PREFIX in
  /*) ;;
  *) echo "uninstall: PREFIX is \"$PREFIX\"; it must be an absolute path" >&2 && exit 64 ;;
esac

running=
if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then running=yes; fi
if [ -n "$running" ] && [ -f "$PREFIX/lib/systemd/system/lockvisor.service" ]; then
  systemctl disable --now --quiet lockvisor.service
fi
for file in \
  bin/lockvisor \
  lib/systemd/system/lockvisor.service \
  lib/systemd/system/lockvisor-guest@.service \
  share/man/man8/lockvisor.8 \
  share/bash-completion/completions/lockvisor \
  share/fish/vendor_completions.d/lockvisor.fish \
  share/doc/lockvisor/examples/lockvisor.toml \
  share/doc/lockvisor/examples/guest.conf; do
  rm -f "$DESTDIR$PREFIX/$file"
done
rm -f "$DESTDIR$ZSH_COMPLETIONS/_lockvisor"
for folder in examples ""; do
  rmdir "$DESTDIR$PREFIX/share/doc/lockvisor/$folder" 2>/dev/null || true # others may have put something there
done
if [ -n "$running" ]; then systemctl daemon-reload; fi
echo "removed: $DESTDIR$PREFIX/bin/lockvisor; left: /etc/lockvisor, /var/lib/lockvisor, /run/lockvisor"
