import { absolutePath } from "../identity/absolute_path.ts";
import { rbdName } from "../identity/rbd_name.ts";
import { percentEncode } from "../identity/uri.ts";
import type { BlockOptions } from "./block_options.ts";

/**
 * A network disk's name as `--disk` takes it, from the options of its driver (qapi/block-core.json).
 * @returns undefined when the options do not tell which disk it is
 */
export function networkName(
  driver: string,
  options: BlockOptions,
  directory: string | undefined,
): string | undefined {
  const text = (name: string) => options.text(name);
  switch (driver) {
    case "nbd":
      return nbdName(options, directory);
    case "rbd": {
      const [pool, image] = [text("pool"), text("image")];
      if (pool === undefined || image === undefined) return undefined;
      return rbdName({ pool, image, namespace: text("namespace"), snapshot: text("snapshot") });
    }
    case "iscsi":
    case "iser": {
      const [portal, target] = [text("portal"), text("target")];
      if (portal === undefined || target === undefined) return undefined;
      return `iscsi://${portal}/${percentEncode(target, ":")}/${text("lun") ?? "0"}`;
    }
    case "nfs":
    case "ssh": {
      const [host, path] = [text("server.host") ?? text("host"), text("path")];
      if (host === undefined || path === undefined) return undefined;
      return `${driver}://${hostPort(host, text("server.port") ?? text("port"))}${encodedPath(path)}`;
    }
    case "gluster": {
      const [volume, path] = [text("volume"), text("path")];
      if (volume === undefined || path === undefined) return undefined;
      const inside = `${encodedPath(volume)}${encodedPath(path)}`;
      const socket = text("server.0.path") ?? text("server.0.socket");
      if (socket !== undefined) {
        return `gluster+unix://${inside}?socket=${percentEncode(absolutePath(socket, directory), "/")}`;
      }
      const host = text("server.0.host");
      return host === undefined ? undefined : `gluster://${hostPort(host, text("server.0.port"))}${inside}`;
    }
    case "http":
    case "https":
    case "ftp":
    case "ftps":
      return text("url");
    case "sheepdog": {
      const vdi = text("vdi");
      return vdi === undefined ? undefined : `sheepdog:///${percentEncode(vdi)}`;
    }
    default:
      return undefined;
  }
}

function nbdName(options: BlockOptions, directory: string | undefined): string | undefined {
  const exportName = percentEncode(options.text("export") ?? "", "/");
  const socket = options.text("server.path") ?? options.text("path");
  if (socket !== undefined) {
    return `nbd+unix:///${exportName}?socket=${percentEncode(absolutePath(socket, directory), "/")}`;
  }
  const host = options.text("server.host") ?? options.text("host");
  if (host === undefined || !["inet", undefined].includes(options.text("server.type"))) return undefined;
  return `nbd://${hostPort(host, options.text("server.port") ?? options.text("port"))}/${exportName}`;
}

/** The name of a network disk from its file name: a relative socket is meant from the directory. */
export function networkFilename(filename: string, directory: string | undefined): string {
  const [, socket, rest] = /^nbd:unix:(.*?)(:exportname=.*)?$/s.exec(filename) ?? [];
  if (socket === undefined) return filename;
  return `nbd:unix:${absolutePath(socket, directory)}${rest ?? ""}`;
}

function hostPort(host: string, port: string | undefined): string {
  const name = host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
  return port === undefined ? name : `${name}:${port}`;
}

function encodedPath(path: string): string {
  return `/${percentEncode(path.replace(/^\/+/, ""), "/")}`;
}
