#!/bin/sh
# Moves a running guest to another host, for those who drive QEMU themselves. To be run on the host that the guest leaves,
# by the user who runs lockvisor there. It is told by its environment:
#
#   GUEST      the guest's name
#   QMP        its monitor's socket here
#   THERE      what runs a command at the destination: "ssh root@hv2"
#   THERE_QMP  the monitor's socket that the guest gets there
#   STREAM     where QEMU there listens, and QEMU here sends to: tcp:hv2:4444
#   COMMAND    the guest's command there, as for a shell, without -qmp and -incoming; the same as here but for paths
#
# Both hosts need lockvisor with the same lockspace, and Perl, for QEMU's monitor. Whatever it stops at: lockvisor migrate status
set -eu
: "${GUEST:?}" "${QMP:?}" "${THERE:?}" "${THERE_QMP:?}" "${STREAM:?}" "${COMMAND:?}"

say() {
  echo "$GUEST: $*" >&2
}

# One command to the monitor, and its answer. QEMU talks to one at a time.
monitor='
  my ($path, $command) = @ARGV;
  my $qemu = IO::Socket::UNIX->new($path) or die "$path: $!\n";
  <$qemu>;
  for ("{\"execute\":\"qmp_capabilities\"}", $command) {
    print $qemu "$_\n";
    do { $answer = <$qemu> // die "$path: QEMU has ended\n" } until $answer =~ /^\{"(return|error)"/;
  }
  print $answer;'
here() {
  perl -MIO::Socket::UNIX -e "$monitor" "$QMP" "$1"
}
there() {
  $THERE sh -s <<SCRIPT
exec perl -MIO::Socket::UNIX -e '$monitor' '$THERE_QMP' '$1'
SCRIPT
}
# The word that QEMU has for its state, or for that of its migration.
word() {
  sed -n 's/.*"status": "\([a-z-]*\)".*/\1/p'
}

ticket=$(mktemp) # mode 0600: who has the ticket may have the disks
trap 'rm -f "$ticket"' EXIT

# 1. Half of each lock is offered to who has the ticket; the guest runs on, and the other half keeps everybody out.
lockvisor migrate prepare "$GUEST" --to "$STREAM" --ticket "$ticket"

# What follows goes back from here on: at the destination first, since its end gives the source its locks back.
go_back() {
  say "$1; the guest stays here"
  $THERE lockvisor migrate cancel "$GUEST" --side in || :
  lockvisor migrate cancel "$GUEST" --side out
  exit 1
}

# 2. At the destination lockvisor takes that half and becomes the QEMU that waits. The ticket goes by standard input.
$THERE sh -s <<SCRIPT || go_back "the destination cannot be reached"
file=\$(mktemp) # mode 0600
cat >"\$file" <<'TICKET'
$(cat "$ticket")
TICKET
log=\$(mktemp)
setsid lockvisor migrate in --ticket "\$file" --qmp '$THERE_QMP' -- \\
  $COMMAND -qmp 'unix:$THERE_QMP,server=on,wait=off' -incoming '$STREAM' </dev/null >"\$log" 2>&1 &
tries=0
until lockvisor migrate status '$GUEST' 2>/dev/null | grep -q inmigrate; do
  tries=\$((tries + 1))
  if [ \$tries -gt 100 ] || ! kill -0 \$! 2>/dev/null; then
    cat "\$log" >&2
    rm -f "\$file" "\$log"
    exit 1
  fi
  sleep 0.1
done
rm -f "\$file" "\$log"
SCRIPT

# 3. QEMU sends the guest. With a return path the source learns whether everything has arrived.
here '{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"return-path","state":true}]}}' \
  >/dev/null
here '{"execute":"migrate","arguments":{"uri":"'"$STREAM"'"}}' | grep -q '"return"' || go_back "QEMU does not send"
while :; do
  case $(here '{"execute":"query-migrate"}' | word) in
    completed) break ;;
    failed | cancelled | '') go_back "QEMU could not send it" ;;
  esac
  sleep 0.1
done
while :; do
  case $(there '{"execute":"query-status"}' | word) in
    inmigrate) sleep 0.1 ;;
    '') say "its destination does not answer; see: lockvisor migrate status" && exit 1 ;;
    *) break ;;
  esac
done

# 4. It has moved. Here its QEMU is ended, which never runs again; there it gets the half of each lock that this one had.
lockvisor migrate complete "$GUEST" --side out
$THERE lockvisor migrate complete "$GUEST" --side in --wait=30s
say "has moved"
