import { parseDuration } from "../config/duration.ts";
import { plugDisk, type PluggedReport, requireMonitor } from "../disk_plug/plug_disk.ts";
import { unplugDisk, type UnpluggedReport } from "../disk_plug/unplug_disk.ts";
import { LockvisorError, printable } from "../errors.ts";
import { isNetworkDisk } from "../identity/network_disk.ts";
import { parseDisk } from "../identity/specification.ts";
import { resolveOnHost } from "../host_lock.ts";
import { findLivingGuest } from "../manager/find_guest.ts";
import { planRequest, type PlugRequest } from "../qemu/plug_request.ts";
import { pluggedResult, unpluggedResult } from "../report/results.ts";
import type { CliContext } from "./context.ts";
import { reportText } from "./hotplug.ts";
import type { Invocation } from "./parse.ts";
import { rememberImages, resourcesOfQemu } from "./run_qemu.ts";
import { openSession } from "./session.ts";

/** `lockvisor disk plug`: locks a disk and plugs it into a guest that runs. */
export async function plug(
  { options, arguments: [guest, text] }: Invocation,
  context: CliContext,
): Promise<number> {
  const spec = parseDisk(text!);
  if (isNetworkDisk(spec.name)) {
    throw new LockvisorError(
      "data",
      `disk ${spec.name} is on a network: lock it with lockvisor acquire, then plug it in by QMP yourself`,
    );
  }
  const session = await openSession(options, context);
  const record = requireMonitor(findLivingGuest(session.store, guest!));
  const disk = { ...spec, name: resolveOnHost(session, spec).name };
  const images = rememberImages((line) => context.note(`warning: ${line}`));
  const request = await planRequest({
    disk,
    kind: Deno.statSync(disk.name).isBlockDevice ? "block-device" : "file",
    device: options.text("device") ?? "",
    format: options.text("format"),
    id: options.text("id"),
  }, images.reader);
  for (const { name } of request.disks.filter(({ format }) => format === undefined)) {
    context.note(
      `warning: disk ${
        printable(name)
      }: its overlay does not state its format; if it has backing files itself, QEMU opens them unlocked: state it with qemu-img rebase -u -F FORMAT`,
    );
  }
  const report = await plugDisk(session, record, {
    request,
    disks: resourcesOfQemu(session, [], request),
    confirm: images.confirm,
  });
  for (const warning of report.locks.warnings) context.note(`warning: ${warning}`);
  context.out(
    options.isGiven("json")
      ? JSON.stringify(pluggedResult(record, request, report)) + "\n"
      : pluggedText(report, request, record.name),
  );
  return 0;
}

function pluggedText({ outcome, locks }: PluggedReport, { id, path }: PlugRequest, guest: string): string {
  const how = outcome === "plugged" ? "plugged into" : "was plugged already into";
  return reportText(locks, guest) + printable(`disk ${path}: ${how} guest "${guest}" as "${id}"`) + "\n";
}

/** `lockvisor disk unplug`: has a guest give a disk up, and releases it. */
export async function unplug(
  { options, arguments: [guest, id] }: Invocation,
  context: CliContext,
): Promise<number> {
  const timeoutMs = parseDuration("--timeout", options.text("timeout") ?? "10s");
  const session = await openSession(options, context);
  const record = requireMonitor(findLivingGuest(session.store, guest!));
  const report = await unplugDisk(session, record, { id: id!, timeoutMs });
  for (const warning of report.locks.warnings) context.note(`warning: ${warning}`);
  context.out(
    options.isGiven("json")
      ? JSON.stringify(unpluggedResult(record, id!, report)) + "\n"
      : unpluggedText(report, id!, record.name),
  );
  return 0;
}

function unpluggedText({ outcome, locks }: UnpluggedReport, id: string, guest: string): string {
  if (outcome === "not-plugged") {
    return printable(`disk "${id}": was not plugged into guest "${guest}"`) + "\n";
  }
  return reportText(locks, guest) + printable(`disk "${id}": unplugged from guest "${guest}"`) + "\n";
}
