/*
 * The options of QEMU's system emulators: those of 7.2 (its -help), of all machines, and what older and newer versions
 * have besides (qemu-options.hx). Which take a value decides where the next one begins, and what is the name of an image.
 */

const WITH_VALUE = `
  M L D accel acpitable action add-fd append audio audiodev balloon bios blockdev boot bootp bt cdrom chardev chroot clock
  compat cpu d debugcon device dfilter display drive dtb dump-vmstate echr fda fdb fsdev fw_cfg g gdb global hda hdachs
  hdb hdc hdd icount incoming initrd iscsi k kernel kvm-shadow-memory loadvm m machine mem-path mon monitor msg mtdblock
  name net netdev nic numa object option-rom overcommit parallel pcidevice pflash pidfile plugin prom-env qmp qmp-pretty
  qtest qtest-log readconfig realtime redir rotate rtc run-with runas sandbox sd seed semihosting-config serial set shim smb smbios
  smp soundhw spice startdate tb-size tftp tpmdev trace usbdevice uuid vga virtfs virtioconsole vnc watchdog
  watchdog-action writeconfig xen-domid`;

const WITHOUT_VALUE = `
  S alt-grab async-teardown audio-help ctrl-grab curses daemonize enable-fips enable-hax enable-kvm enable-sync-profile
  full-screen h help igd-passthru jitdump localtime mem-prealloc no-acpi no-fd-bootchk no-frame no-hpet no-kvm
  no-kvm-irqchip no-kvm-pit no-kvm-pit-reinjection no-quit no-reboot no-shutdown no-user-config nodefaults nodefconfig
  nographic old-param one-insn-per-tb only-migratable perfmap portrait preconfig rtc-td-hack s sdl semihosting show-cursor
  singlestep snapshot tdf trace-unassigned usb version virtfs_synth win2k-hack xen-attach xen-create xen-domid-restrict`;

/** Whether an option, without its dashes, takes a value; undefined for one that is not known. */
export function takesValue(name: string): boolean | undefined {
  if (isIn(name, WITH_VALUE)) return true;
  return isIn(name, WITHOUT_VALUE) ? false : undefined;
}

/** Looks into the text itself: taking it apart first would cost each start more than the few look-ups that it needs. */
function isIn(name: string, names: string): boolean {
  if (name === "" || name.includes(" ") || name.includes("\n")) return false;
  for (let at = names.indexOf(name); at >= 0; at = names.indexOf(name, at + 1)) {
    if (isSpace(names[at - 1]) && isSpace(names[at + name.length])) return true;
  }
  return false;
}

function isSpace(character: string | undefined): boolean {
  return character === undefined || character === " " || character === "\n";
}
